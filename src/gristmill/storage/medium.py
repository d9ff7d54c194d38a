"""The medium: what it takes for a file to survive a power cut."""

import os
from pathlib import Path


def sync_directory(path: Path) -> None:
    """Make the entries of the directory `path` survive a power cut."""
    _sync(path)


def sync_file(path: Path, root: Path) -> None:
    """Make the file `path` survive a power cut, with the directories in `root` on the way to it."""
    _sync(path)
    for folder in path.parents:
        _sync(folder)
        if folder == root:
            return


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
