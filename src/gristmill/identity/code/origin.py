"""Where code comes from: the user, the standard library, or an installed distribution.

Owns that distinction and the versions of distributions. Knows nothing of what the code does.
"""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import PurePath
from typing import Literal

Versions = Literal["major", "exact", "ignore"]
"""How much of a distribution's version counts."""

_LIBRARY_FOLDERS = frozenset(("site-packages", "dist-packages"))


class Origin(Enum):
    """Who wrote it."""

    OWN = "own"
    STDLIB = "stdlib"
    LIBRARY = "library"


def top_level(module: str) -> str:
    """Name of the package at the top."""
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
    if top == "gristmill":
        return Origin.LIBRARY
    for name in (module, top):
        if name in sys.modules:
            return _located(name)
    return _found(top)


@cache
def _located(module: str) -> Origin:
    """Origin of a loaded module: it does not move while it is loaded."""
    loaded = sys.modules[module]
    file = getattr(loaded, "__file__", None) or next(iter(getattr(loaded, "__path__", ())), None)
    return _placed(file, module)


@cache
def _found(top: str) -> Origin:
    """Origin of a top-level package that is not loaded; finding it imports nothing."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    places = (spec.submodule_search_locations or ()) if spec else ()
    file = spec.origin if spec and spec.has_location else next(iter(places), None)
    return _placed(file, top)


def _placed(file: str | None, module: str) -> Origin:
    if file is None:
        return Origin.STDLIB if top_level(module) in sys.stdlib_module_names else Origin.OWN
    path = PurePath(file)
    if _LIBRARY_FOLDERS & set(path.parts):
        return Origin.LIBRARY
    return Origin.STDLIB if any(path.is_relative_to(root) for root in _stdlib_roots()) else Origin.OWN


@cache
def _stdlib_roots() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple({paths["stdlib"], paths["platstdlib"]})


@cache
def distribution(module: str) -> tuple[str, str] | None:
    """Name and version of the installed distribution that a module belongs to."""
    from importlib import metadata

    top = top_level(module)
    try:
        found = metadata.distribution(top)
    except metadata.PackageNotFoundError:
        return _by_content(module)
    return str(found.metadata["Name"]), found.version


def _by_content(module: str) -> tuple[str, str] | None:
    """Find a distribution that is not named as its package; several may share a namespace package."""
    from importlib import metadata

    candidates = _names().get(top_level(module), ())
    path = module.replace(".", "/")
    for name in candidates:
        files = metadata.files(name) or []
        if len(candidates) == 1 or any(str(file).startswith(path) for file in files):
            return name, metadata.version(name)
    return None


@cache
def _names() -> dict[str, list[str]]:
    from importlib import metadata

    return {top: sorted(set(names)) for top, names in metadata.packages_distributions().items()}


def counted(version: str, versions: Versions) -> str:
    """The part of a version that counts."""
    if versions == "exact":
        return version
    return "" if versions == "ignore" else version.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Policy:
    """What of other people's code counts, and whose code that is."""

    versions: Versions = "major"
    own: frozenset[str] = frozenset()
    """Modules and packages that are the user's own wherever they are installed."""
    libraries: frozenset[str] = frozenset()
    """Those that count by name and version, wherever they are."""

    def origin(self, module: str | None, home: str | None = None) -> Origin:
        """Say where a module comes from: by the longest of its names that is listed, else by where it is."""
        name = module or ""
        while name:
            if name in self.own:
                return Origin.OWN
            if name in self.libraries:
                return Origin.LIBRARY
            name = name.rpartition(".")[0]
        return origin(module, home)


@cache
def is_home(top: str) -> bool:
    """Whether the package of a node's function is the user's own.

    An installed one is, if it came from a folder, a repository or an archive, if it builds on gristmill, or
    if nobody says where it came from. Any other is a library: ``pandas.concat`` is not all of pandas.
    """
    if origin(top) is not Origin.LIBRARY:
        return origin(top) is Origin.OWN
    found = distribution(top)
    if found is None:
        return True
    from importlib import metadata

    installed = metadata.distribution(found[0])
    builds_on_us = any(name.startswith("gristmill") for name in installed.requires or ())
    return builds_on_us or bool(installed.read_text("direct_url.json"))
