"""Directives that show the package on the site, from the package's own text, so that no page can
say anything that the source does not.

    ```{annotated-source} minilstm/nn/lstm.py
    ```

shows a module with its prose (docstrings, whole-line comments) on the left of its code.

    ```{api} minilstm.plots
    ```

lists a module's public names with their signatures and docstrings.
"""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
_SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Source):$")
_ENTRY = re.compile(r" {4}([*\w]+(?:, [*\w]+)*): ")
_TOPIC = re.compile(r"([A-Z][a-z]+): ")
_TAG = re.compile(r" {3,}(\([A-Z]\d\))$")  # of an equation, too far right for a column


def as_markdown(doc: str) -> str:
    """A docstring in Markdown: its sections as lists, its formulas and examples as code.

    >>> print(as_markdown("Sum.\\n\\n    s = Σ x\\n\\nArgs:\\n    x: (N,),\\n        finite.\\n"))
    Sum.
    <BLANKLINE>
        s = Σ x
    <BLANKLINE>
    **Args**
    <BLANKLINE>
    - `x`: (N,),
      finite.
    """
    lines, section = list[str](), ""
    for line in inspect.cleandoc(doc).splitlines():
        if found := _SECTION.match(line):
            section = found[1]
            lines += ["", f"**{section}**", ""]
        elif section and (found := _ENTRY.match(line)):
            lines.append(f"- `{found[1]}`: {line[found.end() :]}")
        elif section and line.startswith("    "):
            lines.append(f"  {line.strip()}" if lines[-1] else line.strip())
        elif found := _TOPIC.match(line):
            lines += ["", f"**{found[1]}.** {line[found.end() :]}"]
        else:
            section = section if line.strip() else ""
            lines.append(_TAG.sub(r"   \1", line))
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    session = re.compile(r"(?:^>>> .*\n?)(?:^\S.*\n?)*", re.MULTILINE)
    return session.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", text)


# --- annotated source


def rows(source: str) -> Iterator[tuple[str, str]]:
    """Pairs of prose, in Markdown, and the code that it stands beside.

    >>> list(rows('def f():\\n    "One."\\n    # Two.\\n    return 2\\n'))
    [('One.', 'def f():'), ('Two.', '    return 2')]
    """
    tree = ast.parse(source)
    begins, silent = {1: as_markdown(ast.get_docstring(tree) or "")}, set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
            doc = ast.get_docstring(node)
            if doc:
                silent |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
            if doc and not isinstance(node, ast.Module):
                begins[min([node.lineno, *(d.lineno for d in node.decorator_list)])] = as_markdown(
                    doc
                )
    prose, code, in_comment = "", list[str](), False
    for number, line in enumerate(source.splitlines(), 1):
        comment = re.match(r"\s*#(?! fmt:) ?(.*)", line) if number not in silent else None
        if number in begins or (comment and not in_comment):
            if prose or "".join(code).strip():
                yield prose, "\n".join(code).strip("\n")
            prose, code = begins.get(number, ""), []
        if comment:
            prose = f"{prose}\n{comment[1]}".strip()
        elif number not in silent and "# fmt: o" not in line:
            code.append(_TAG.sub(r"   \1", line.rstrip()))
        in_comment = comment is not None
    yield prose, "\n".join(code).strip("\n")


class AnnotatedSource(SphinxDirective):
    """Two columns: prose, read as the site's other pages are, and the code beside it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = ROOT / self.arguments[0]
        self.env.note_dependency(str(path))
        whole = nodes.container(classes=["annotated"])
        for prose, code in rows(path.read_text(encoding="utf-8")):
            row, left = nodes.container(classes=["row"]), nodes.container(classes=["prose"])
            self.state.nested_parse(StringList(prose.splitlines(), str(path)), 0, left)
            row += left
            if code:
                row += nodes.literal_block(code, code, language="python")
            whole += row
        return [whole]


# --- the public names


class Api(SphinxDirective):
    """Every public name of a module: what is in its __all__, or else defined in it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module = importlib.import_module(self.arguments[0])
        own = [name for name, it in vars(module).items() if not name.startswith("_")
               and callable(it) and getattr(it, "__module__", "") == module.__name__]  # fmt: skip
        text = "\n".join(
            entry(f"{module.__name__}.{name}", getattr(module, name), 4)
            for name in getattr(module, "__all__", own)
            if not inspect.ismodule(getattr(module, name))
        )
        found = nodes.container(classes=["api"])
        self.state.nested_parse(StringList(text.splitlines(), module.__file__ or ""), 0, found)
        return found.children


def entry(name: str, it: Any, fence: int) -> str:
    """The directive of Sphinx's Python domain for one name, its methods inside it."""
    kind = "class" if inspect.isclass(it) else "function"
    lines = [f"{name}{_signature(it)}", "", as_markdown(inspect.getdoc(it) or ""), ""]
    if kind == "class":
        for attribute, method in vars(it).items():
            if inspect.isfunction(inspect.unwrap(getattr(method, "__func__", method))):
                if not attribute.startswith("_") and (doc := inspect.getdoc(method)):
                    signature = f"{attribute}{_signature(getattr(it, attribute), method=True)}"
                    lines += [_fenced("method", [signature, "", as_markdown(doc)], fence - 1)]
            elif isinstance(method, property) and not attribute.startswith("_"):
                lines += [
                    _fenced(
                        "property", [attribute, "", as_markdown(method.__doc__ or "")], fence - 1
                    )
                ]
    return _fenced(kind, lines, fence)


def _fenced(kind: str, lines: list[str], fence: int) -> str:
    colons = ":" * (fence + 2)
    return "\n".join([f"{colons}{{py:{kind}}} {lines[0]}", *lines[1:], colons, ""])


def _signature(it: Any, method: bool = False) -> str:
    """Names and defaults; what types they have, the docstring says in words and shapes."""
    try:
        parameters = inspect.signature(it).parameters.values()
    except (TypeError, ValueError):
        return ""
    shown = [p.replace(annotation=p.empty) for p in parameters if not (method and p.name == "self")]
    return str(inspect.Signature(shown))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("annotated-source", AnnotatedSource)
    app.add_directive("api", Api)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
