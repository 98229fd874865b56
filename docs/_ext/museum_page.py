"""The directive that shows the bug museum, from tests/museum.py and docs/museum.json.

    ```{museum} nn/lstm.py
    ```

shows the exhibits of one file of the package, each with its answer hidden.
"""

import html
import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import museum  # noqa: E402

OTHERWISE = {  # what is said of the recipes that some exhibits need
    "{}": "",
    '{"fast": true}': " of the faster form",
    '{"fast": true, "chunk": 32768}': " with the logits in five chunks",
    '{"fast": true, "threads": 2}': " in two processes",
    '{"largest_one_hot": 0}': " with gradients of rows added one by one",
    '{"clip": 0.1}': " with clipping at 0.1",
}


class Museum(SphinxDirective):
    """The exhibits whose bug is in this file, in the museum's order."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(ROOT / "tests" / "museum.py"))
        self.env.note_dependency(str(ROOT / "docs" / "museum.json"))
        seen = json.loads((ROOT / "docs" / "museum.json").read_text(encoding="utf-8"))
        text = "\n\n".join(
            exhibit(number, bug, seen)
            for number, bug in enumerate(museum.BUGS, 1)
            if bug.file == self.arguments[0]
        )
        found = nodes.container(classes=["museum"])
        self.state.nested_parse(StringList(text.splitlines(), "tests/museum.py"), 0, found)
        return [found]


def exhibit(number: int, bug: Any, seen: dict[str, Any]) -> str:
    """One exhibit in Markdown: the line as somebody wrote it, its training, the hidden answer."""
    wrong, right = lines_of(bug)
    return f"""
**Exhibit {number}.** What is wrong here, in `minilstm/{bug.file}`?

```python
{wrong}
```

{training(seen["bugs"].get(bug.name), seen)}

<details>
<summary>Answer</summary>

{sentence(bug.name)} It should be

```python
{right}
```

*Why it may stay:* {bug.survives_because}.

*Who notices:* {", ".join(f"`{test}`" for test in bug.caught_by)}.

*Seen in:* {html.escape(bug.seen_in)}.

</details>
"""


def lines_of(bug: Any) -> tuple[str, str]:
    """The whole lines that the bug touches, with it and without."""
    source = (museum.PACKAGE / bug.file).read_text(encoding="utf-8")
    before, after = source.split(bug.old)
    head = before[before.rfind("\n") + 1 :]
    tail = "" if bug.old.endswith("\n") else after[: after.find("\n")]
    tail = re.sub(r"\s*#\s+.*", "", tail)  # a comment may give the answer away
    wrong, right = (textwrap.dedent(f"{head}{text}{tail}").rstrip() for text in (bug.new, bug.old))
    return wrong, right


def training(figures: dict[str, Any] | None, seen: dict[str, Any]) -> str:
    """What a run with the bug looks like, beside runs without."""
    if figures is None:
        return "*In training:* it plays no part there."
    if "error" in figures:
        return f"*In training:* it stops with `{figures['error']}`."
    right = seen["right"][figures["recipe"]]
    when = f"*In training:* after {seen['steps']} steps{OTHERWISE[figures['recipe']]}"
    if all(figures[name] == right[0][name] for name in right[0]):
        return f"{when}: both losses are those of the right code, to the last digit."
    told = []
    for name, loss in (("train", "training"), ("valid", "validation")):
        values = sorted(run[name] for run in right)
        told.append(f"{loss} loss {figures[name]} (right code: {values[0]} to {values[-1]})")
    return f"{when}: {', '.join(told)}."


def sentence(name: str) -> str:
    """The exhibit's name as a sentence."""
    return re.sub(r"^.", lambda first: first[0].upper(), name).rstrip(".") + "."


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("museum", Museum)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
