"""Kept files: what calls returned on disk, kept as chunks, and put back where it is missing.

A path comes out of the store only in the record of a call whose function returned it, and nothing that is
there is ever overwritten.
"""

import os
import stat
from pathlib import Path

from gristmill.errors import DigestError, IntegrityError
from gristmill.identity.files import Dir, File, file_hash, tree_hash
from gristmill.storage.chunks import ChunkFiles
from gristmill.storage.elements import KeptFile, KeptTree


def keep(chunks: ChunkFiles, place: File | Dir, content: bytes) -> tuple[KeptFile | KeptTree, int]:
    """Copy what is at `place` to the store; return how to put it back, and the bytes that were written.

    Parameters
    ----------
    content
        The hash of what is there.

    Raises
    ------
    InputError
        It changes meanwhile.
    DigestError
        A folder holds what cannot be put back.
    StoreError
        The store's file system refuses.
    """
    path = os.fspath(place)
    if isinstance(place, File):
        return _keep_file(chunks, path, path, content)
    return _keep_tree(chunks, path, content)


def is_there(chunks: ChunkFiles, place: KeptFile | KeptTree, *, repair: bool) -> bool:
    """Return whether what was returned is where it was; with `repair`, after putting back what is missing.

    Raises
    ------
    IntegrityError
        It has to be put back, and its bytes are lost.
    """
    try:
        if isinstance(place, KeptFile):
            return _is_file_there(chunks, Path(place.path), place, repair=repair)
        return _is_tree_there(chunks, place, repair=repair)
    except IntegrityError:
        raise
    except (OSError, ValueError):  # somebody else's folder, a file where a folder was: not what it was
        return False


def _keep_file(chunks: ChunkFiles, path: str, name: str, content: bytes) -> tuple[KeptFile, int]:
    status = os.stat(path)
    chunk, new = chunks.adopt(path, content)
    other = chunk if chunk != content else b""
    return KeptFile(name, content, stat.S_IMODE(status.st_mode), other), status.st_size if new else 0


def _keep_tree(chunks: ChunkFiles, path: str, content: bytes) -> tuple[KeptTree, int]:
    folders: list[str] = []
    files: list[KeptFile] = []
    written = 0
    for folder, inner, names in os.walk(path, followlinks=True):
        inner.sort()
        here = os.path.realpath(folder) + os.sep
        if any(here.startswith(os.path.realpath(os.path.join(folder, name)) + os.sep) for name in inner):
            raise DigestError(f"{folder!r} has a link to a folder around it, which cannot be kept")
        folders += [os.path.relpath(os.path.join(folder, name), path) for name in inner]
        for name in sorted(names):
            full = os.path.join(folder, name)
            if not os.path.exists(full):
                raise DigestError(
                    f"{full!r} is a link to nothing, which cannot be kept with the folder {path!r}"
                )
            kept, size = _keep_file(chunks, full, os.path.relpath(full, path), file_hash(full))
            files.append(kept)
            written += size
    return KeptTree(path, content, tuple(folders), tuple(files)), written


def _is_file_there(chunks: ChunkFiles, path: Path, kept: KeptFile, *, repair: bool) -> bool:
    if os.path.lexists(path):
        return file_hash(os.fspath(path)) == kept.content
    if repair:
        chunks.put_back(kept.name, path, kept.mode)
    return True


def _is_tree_there(chunks: ChunkFiles, kept: KeptTree, *, repair: bool) -> bool:
    root = Path(kept.path)
    if os.path.lexists(root) and tree_hash(kept.path) == kept.content:
        return True
    present = [file for file in kept.files if os.path.lexists(root / file.path)]
    if any(file_hash(os.fspath(root / file.path)) != file.content for file in present):
        return False
    known = {*kept.folders, *(file.path for file in kept.files)}
    for folder, inner, names in os.walk(root):
        if any(os.path.relpath(os.path.join(folder, name), root) not in known for name in (*inner, *names)):
            return False  # something was added
    if not repair:
        return True
    for name in ("", *kept.folders):
        (root / name).mkdir(parents=True, exist_ok=True)
    for file in kept.files:
        if not os.path.lexists(root / file.path):
            chunks.put_back(file.name, root / file.path, file.mode)
    return tree_hash(kept.path) == kept.content
