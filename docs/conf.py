"""The site of these pages: ``python -m sphinx -W docs DIR``."""

project = "ssenet_jax"
author = "the authors of ssenet_jax"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
root_doc = "index"
html_theme = "furo"
html_title = "ssenet_jax"

highlight_language = "none"  # of blocks that name none: commands and what they print
myst_heading_anchors = 3
nitpicky = False  # types of jax and numpy are not looked up: the site is built without a network

napoleon_numpy_docstring = False
napoleon_custom_sections = ["Source"]
autodoc_typehints = "none"  # the signature shows them, shapes included
autodoc_default_options = {"member-order": "bysource"}
