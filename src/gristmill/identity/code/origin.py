"""Where code comes from: the user, the standard library, or an installed distribution.

Owns that distinction and the versions of distributions. Knows nothing of what the code does.
"""

from __future__ import annotations

import sys
import sysconfig
from enum import Enum
from functools import cache
from importlib import metadata
from pathlib import PurePath
from typing import Literal

Policy = Literal["major", "exact", "ignore"]
"""How much of a distribution's version counts."""

_LIBRARY_FOLDERS = frozenset(("site-packages", "dist-packages"))


class Origin(Enum):
    """Who wrote it."""

    OWN = "own"
    STDLIB = "stdlib"
    LIBRARY = "library"


def top_level(module: str) -> str:
    return module.partition(".")[0]


def origin(module: str | None, home: str | None = None) -> Origin:
    """Say where a module comes from.

    Parameters
    ----------
    module
        Its name; None is the interpreter's.
    home
        The top-level package whose code is the user's own wherever it is installed.
    """
    if not module:
        return Origin.STDLIB
    top = top_level(module)
    if top == home or top in ("__main__", "__mp_main__"):
        return Origin.OWN
    return _located(module) if module in sys.modules else _located(top)


@cache
def _located(module: str) -> Origin:
    # A module does not move while it is loaded; one that is not loaded is found by its top-level package.
    top = top_level(module)
    if top == "gristmill":
        return Origin.LIBRARY
    folder = _folder(module) or _folder(top)
    if folder is None:
        return Origin.STDLIB if top in sys.stdlib_module_names else Origin.OWN
    path = PurePath(folder)
    if _LIBRARY_FOLDERS & set(path.parts):
        return Origin.LIBRARY
    return Origin.STDLIB if any(path.is_relative_to(root) for root in _stdlib_roots()) else Origin.OWN


def _folder(module: str) -> str | None:
    loaded = sys.modules.get(module)
    file = getattr(loaded, "__file__", None)
    if file:
        return str(file)
    return next(iter(getattr(loaded, "__path__", ())), None)


@cache
def _stdlib_roots() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple({paths["stdlib"], paths["platstdlib"]})


@cache
def distribution(module: str) -> tuple[str, str] | None:
    """Name and version of the installed distribution that a module belongs to."""
    top = top_level(module)
    try:
        found = metadata.distribution(top)
    except metadata.PackageNotFoundError:
        return _by_content(module)
    return str(found.metadata["Name"]), found.version


def _by_content(module: str) -> tuple[str, str] | None:
    """Find a distribution that is not named as its package; several may share a namespace package."""
    candidates = _names().get(top_level(module), ())
    path = module.replace(".", "/")
    for name in candidates:
        files = metadata.files(name) or []
        if len(candidates) == 1 or any(str(file).startswith(path) for file in files):
            return name, metadata.version(name)
    return None


@cache
def _names() -> dict[str, list[str]]:
    return {top: sorted(set(names)) for top, names in metadata.packages_distributions().items()}


def counted(version: str, policy: Policy) -> str:
    """The part of a version that counts."""
    if policy == "exact":
        return version
    return "" if policy == "ignore" else version.partition(".")[0]
