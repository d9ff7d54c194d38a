"""The demo's input: the Python files of the standard library, which every machine has."""

import os
import sysconfig
from pathlib import Path

_LEFT_OUT = frozenset(("test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"))


def standard_library() -> Path:
    """Return the folder of the running interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def python_files(root: Path) -> list[Path]:
    """Return the readable Python files below `root`, sorted; tests and installed packages are left out."""
    found: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - _LEFT_OUT)
        found += [Path(folder, name) for name in sorted(names) if name.endswith(".py")]
    return [path for path in found if os.access(path, os.R_OK)]


def module_name(path: Path, root: Path) -> str:
    """Return the dotted name under which the file `path` below `root` is imported.

    Examples
    --------
    >>> module_name(Path("lib/json/decoder.py"), Path("lib"))
    'json.decoder'
    >>> module_name(Path("lib/json/__init__.py"), Path("lib"))
    'json'
    """
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
