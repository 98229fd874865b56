"""The documentation as a site: `.ci/check docs` builds it into docs/_build/html

Everything the pages load lies beside them. KaTeX comes in two halves: its JavaScript with
sphinxcontrib-katex, its styles and fonts (unchanged, woff2 only) in _static/katex. Halves of
different versions draw wrong sizes without any error, so the versions are compared here.
"""

import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinxcontrib.katex import katex_version

project = "minilstm"
author = "the minilstm authors"
copyright = "2026, the minilstm authors"
release = version = installed_version("minilstm")

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
extensions = ["myst_parser", "sphinxcontrib.katex", "sources", "museum_page"]
exclude_patterns = ["_build", "_static", "snippets"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"minilstm {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sphinx = False

katex_css_path = "katex/katex.min.css"
styles = (Path(__file__).parent / "_static" / katex_css_path).read_text(encoding="utf-8")
styles_version = re.search(r'katex-version::?after\{content:"([\d.]+)"', styles)[1]
if styles_version != katex_version:
    raise RuntimeError(f"KaTeX: styles are {styles_version}, the JavaScript is {katex_version}")
