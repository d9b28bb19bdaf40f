"""The site: pages of this folder, and a reference that is made of the docstrings. ``python -m sphinx -W docs build/site``."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import site_reference

import msam

project = "msam"
author = "the msam authors"
release = version = msam.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["README.md"]
html_theme = "furo"
html_title = "msam"
html_static_path: list[str] = []
html_show_sphinx = False
default_role = "literal"
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["myst.header"]
autosummary_generate = True
autosummary_imported_members = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Source", "Notes"), ("Deviations", "Notes"), ("Cost", "Notes")]
pygments_style = "friendly"
pygments_dark_style = "monokai"


def setup(app: Any) -> None:
    """Make the reference before anything is read, and docstrings' equations before they are."""
    app.connect("builder-inited", site_reference.write_reference)
    app.connect("source-read", site_reference.keep_links_inside)
    app.connect("autodoc-process-docstring", site_reference.set_equations, priority=100)
