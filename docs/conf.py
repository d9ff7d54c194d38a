"""Sphinx configuration: builds without a network and without a warning (`-n -W`)."""

import builtins
from importlib.metadata import version as installed_version

project = "gristmill"
author = "The gristmill developers"
copyright = author  # noqa: A001  Sphinx reads this name
version = release = installed_version("gristmill")

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc", "sphinx_copybutton"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"gristmill {release}"

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
numpydoc_show_class_members = False  # autodoc lists them

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# What has to resolve is what readers use, gristmill.NAME. Annotations also name what has no page here: types
# of other packages, whose inventories would need a network, and our internal types.
nitpick_ignore = [("py:class", name) for name in (*dir(builtins), "ZarrArray", "optional")]
nitpick_ignore_regex = [
    ("py:.*", r"(?!gristmill\.)\w+\..*"),
    ("py:.*", r"gristmill\.\w+\..*"),
    ("py:class", r"(dict|tuple)\[.*"),  # an annotation that is cut at its comma
]
# Some reports have an attribute `bytes`, for which Sphinx takes the builtin in annotations.
suppress_warnings = ["ref.python"]
