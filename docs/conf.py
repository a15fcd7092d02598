"""Settings of the documentation site (`make docs`): Sphinx, MyST and furo; nothing is loaded from the net."""

import re
import tomllib
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

ROOT = Path(__file__).parents[1]

project = "mlplugins"
author = "The mlplugins developers"
copyright = "The mlplugins developers"
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
root_doc = "index"
exclude_patterns = ["conf.py", "README.md"]
nitpicky = False  # names in annotations are of this package, torch and ASE, whose inventories are on the net
default_role = "literal"

myst_enable_extensions = ["colon_fence", "dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 4
myst_dmath_double_inline = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"mlplugins {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"sidebar_hide_name": False}
templates_path: list[str] = []
highlight_language = "text"
pygments_style = "friendly"
pygments_dark_style = "monokai"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

OUTSIDE = {
    "../README.md": "index.md",
    "../CHANGELOG.md": "changelog.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../benchmarks/RESULTS.md": "results.md",
}
"""Files outside `docs/` that have a page here; links to them read well on a forge and lead to the page."""


def _to_pages(app, name, source):
    depth = "../" * name.count("/")
    for file, page in OUTSIDE.items():
        source[0] = source[0].replace(f"]({depth}{file}", f"]({depth}{page}")


def _blocks(app, what, name, obj, options, lines):
    """Indented blocks of docstrings are code, as in Markdown."""
    found = []
    for i, line in enumerate(lines):
        if i > 1 and line.startswith("    ") and not lines[i - 1] and re.match(r"\S", lines[i - 2]):
            found += ["::", ""]
        found.append(line)
    lines[:] = found


def _mathml(self, node, display):
    formula = convert(node.astext(), display=display)
    if "\\" in formula:  # a command that the converter does not know stays in the text
        logging.getLogger(__name__).warning("unknown command in %s", node.astext(), location=node)
    self.body.append(formula)
    raise nodes.SkipNode


def setup(app):
    """Formulas become MathML when the site is built: no script, no fonts."""
    app.connect("source-read", _to_pages)
    app.connect("autodoc-process-docstring", _blocks, priority=400)  # before napoleon
    app.add_html_math_renderer(
        "mathml",
        (lambda self, node: _mathml(self, node, "inline"), None),
        (lambda self, node: _mathml(self, node, "block"), None),
    )


html_math_renderer = "mathml"
