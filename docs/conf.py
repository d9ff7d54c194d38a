"""Sphinx configuration: builds without a network and without a warning (`-n -W`)."""

import builtins
from importlib.metadata import version as installed_version

project = "gristmill"
author = "The gristmill developers"
copyright = author  # noqa: A001  Sphinx reads this name
version = release = installed_version("gristmill")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"gristmill {release}"

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = False
napoleon_use_rtype = False

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Names outside gristmill are not ours to resolve, and their inventories would need a network.
nitpick_ignore = [("py:class", name) for name in (*dir(builtins), "optional")]
nitpick_ignore_regex = [("py:.*", r"(?!gristmill\.)\w+\..*")]
