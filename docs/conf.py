"""The site of these pages: ``python -m sphinx -W docs DIR``."""

import re

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
autodoc_typehints = "signature"  # with the shapes of arrays
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
default_role = "code"  # docstrings write names as `name`
autodoc_default_options = {"member-order": "bysource"}


def _as_written(app, what, name, item, options, lines):
    """Docstrings are plain text, in which * and | mean themselves."""

    def escaped(line):
        if line.lstrip().startswith((">>>", "...")):
            return line
        parts = re.split(r"(`+[^`]*`+)", line)
        return "".join(part if index % 2 else re.sub(r"[*|]", r"\\\g<0>", part) for index, part in enumerate(parts))

    lines[:] = map(escaped, lines)


def setup(app):
    app.connect("autodoc-process-docstring", _as_written, priority=100)  # before napoleon
