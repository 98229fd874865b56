"""The documentation as a reader sees it: built, and every page opened in a real browser."""

import ast
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(
    str(page.relative_to(DOCS).with_suffix(""))
    for page in [*DOCS.glob("*.md"), *DOCS.glob("source/*.md")]
)
WIDTHS, SCHEMES = (360, 1280), ("light", "dark")

pytestmark = pytest.mark.browser

# What a page must be once its formulas are drawn: no error in one, none left undrawn, nothing wider
# than the window, every picture there.
LOOK = """() => ({
    undrawn: [...document.querySelectorAll('.math')].filter(e => !e.querySelector('.katex')).length,
    errors: [...document.querySelectorAll('.katex-error')].map(e => e.textContent),
    formulas: document.querySelectorAll('.katex').length,
    wider: document.documentElement.scrollWidth - window.innerWidth,
    pictures: [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src),
})"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built pages."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-E", "-W", "--keep-going", DOCS, folder]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path, quiet = shutil.which("chromium"), ["--no-sandbox", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=path, args=quiet)
        yield browser
        browser.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_at_every_width_in_light_and_dark(name, site, browser):
    for width in WIDTHS:
        for scheme in SCHEMES:
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            told, asked = [], []
            page.on("console", lambda line, told=told: told.append(f"{line.type}: {line.text}"))
            page.on("pageerror", lambda error, told=told: told.append(str(error)))
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto((site / f"{name}.html").as_uri())
            page.wait_for_load_state("load")
            seen = page.evaluate(LOOK)
            where = f"{name}, {width} px, {scheme}"
            assert told == [], where
            assert [url for url in asked if not url.startswith(("file:", "data:"))] == [], where
            assert (seen["undrawn"], seen["errors"], seen["pictures"]) == (0, [], []), where
            assert seen["wider"] <= 0, where
            page.close()


def test_formulas_are_drawn_and_not_left_as_text(site, browser):
    page = browser.new_page()
    page.goto((site / "backward.html").as_uri())
    assert page.evaluate(LOOK)["formulas"] > 50
    page.close()


def test_katexs_two_halves_draw_a_subscript_smaller_than_its_letter(site, browser):
    """Styles of another version than the JavaScript's draw every subscript at full size."""
    page = browser.new_page()
    page.goto((site / "forward.html").as_uri())
    sizes = page.evaluate("""() => {
        const sub = document.querySelector('.katex .msupsub .mtight');
        const size = e => parseFloat(getComputedStyle(e).fontSize);
        return [size(sub), size(sub.closest('.katex'))];
    }""")
    assert sizes[0] < 0.8 * sizes[1]
    page.close()


# --- the annotated source


@pytest.fixture(scope="module")
def sources():
    """What docs/_ext/sources.py defines; it imports Sphinx."""
    return runpy.run_path(str(DOCS / "_ext" / "sources.py"))


@pytest.mark.parametrize("module", ["nn/lstm.py", "nn/loss.py", "model.py", "optim.py"])
def test_annotated_source_has_every_line_of_code_and_every_docstring(module, sources):
    source = (DOCS.parent / "minilstm" / module).read_text(encoding="utf-8")
    rows = list(sources["rows"](source))
    shown = [line.split() for _, code in rows for line in code.splitlines() if line.strip()]
    tree = ast.parse(source)
    silent = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            silent |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    wanted = [
        line.split()
        for number, line in enumerate(source.splitlines(), 1)
        if line.strip() and not line.strip().startswith("#") and number not in silent
    ]
    assert shown == wanted
    prose = " ".join(text for text, _ in rows)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and (doc := ast.get_docstring(node)):
            assert doc.splitlines()[0] in prose


def test_a_docstring_becomes_lists_formulas_and_examples(sources):
    doc = "Sum.\n\n    s = Σ x\n\nArgs:\n    x: (N,),\n        finite.\n\n>>> 1 + 1\n2\n"
    assert sources["as_markdown"](doc).splitlines() == [
        "Sum.", "", "    s = Σ x", "", "**Args**", "", "- `x`: (N,),", "  finite.", "",
        "```pycon", ">>> 1 + 1", "2", "```",
    ]  # fmt: skip
