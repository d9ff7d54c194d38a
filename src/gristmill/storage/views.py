"""Views: zarr v3 groups on disk whose chunk files are hard links to chunks, for other programs to read.

Derived data: they can be deleted and are made again. gristmill never reads them. Chunk keys have "." as separator
(the zarr v3 ``default`` chunk key encoding), so that an element costs no directory.

Source: https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html
"""

import contextlib
import errno
import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_128_digest, xxh3_128_hexdigest

from gristmill.errors import IntegrityError, StoreError
from gristmill.storage.chunks import ChunkFiles, raw_bytes
from gristmill.storage.compress import Compressor
from gristmill.storage.elements import ChunkRef

Array = np.ndarray[Any, Any]

_DONE_SECONDS = 0.5
"""How often the mask of finished elements is written while a run goes on."""

_COMPRESSOR = "gristmill_compressor"
"""Attribute of a view's array: the ledger's name of its compressor."""

_ATTEMPTS = 5
"""How often a view that is being deleted is made again for one element."""


def array_metadata(
    axes: Sequence[str],
    extents: Sequence[int],
    shape: Sequence[int],
    dtype: np.dtype[Any],
    *,
    name: str = "",
    whole: bool = False,
) -> dict[str, Any]:
    """Return the `zarr.json` of an array with one chunk per element.

    Parameters
    ----------
    axes, extents
        Names and lengths of the axes.
    shape
        Shape of the elements; their dimensions have no names.
    dtype
        One that zarr v3 knows.
    name
        What the elements' dimensions are named after: in a group, equal names mean equal lengths.
    whole
        One chunk for everything instead.
    """
    grid = [max(n, 1) for n in extents] if whole else [1] * len(extents)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [*extents, *shape],
        "data_type": dtype.name,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [*grid, *(max(n, 1) for n in shape)]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": _fill_value(dtype),
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "attributes": {},
        "dimension_names": [*axes, *(f"{name}_dim_{k}".lstrip("_") for k in range(len(shape)))],
    }


def _fill_value(dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "b":
        return False
    return [0.0, 0.0] if dtype.kind == "c" else 0.0 if dtype.kind == "f" else 0


class View:
    """The view of one stage: an array per chunked output, and a mask `done` of the indices that have them all.

    Parameters
    ----------
    directory
        Where the group is; made with the first element.
    axes, extents
        Of the stage's space.
    chunks
        The chunk files to link.
    """

    def __init__(
        self, directory: Path, axes: tuple[str, ...], extents: tuple[int, ...], chunks: ChunkFiles
    ) -> None:
        self.directory = directory
        self._axes = axes
        self._extents = extents
        self._chunks = chunks
        self._outputs: dict[str, _OutputView] = {}
        self._irregular: set[str] = set()
        self._written = 0.0

    def link(self, output: str, positions: Array, refs: Sequence[ChunkRef]) -> list[int]:
        """Link the chunks of `output` at `positions`; return the positions whose chunk is not there.

        Raises
        ------
        OSError
            The file system refuses.
        """
        if output in self._irregular:
            return []
        view = self._outputs.get(output)
        if view is None:
            view = self._outputs[output] = self._new(output, refs[0])
        if not view.fits(refs):
            self.spoil(output)
            return []
        lost = view.link(positions, refs)
        if time.monotonic() - self._written > _DONE_SECONDS:
            self.finish()
        return lost

    def spoil(self, output: str) -> None:
        """Have no array for an output whose elements are of different shapes or types, or cannot be linked."""
        self._irregular.add(output)
        view = self._outputs.pop(output, None)
        if view is not None:
            shutil.rmtree(view.directory, ignore_errors=True)

    def is_spoiled(self, output: str) -> bool:
        """Whether an output has no array here, and will have none."""
        return output in self._irregular

    def paths(self) -> dict[str, str]:
        """Return output name to the path of its array."""
        return {name: str(view.directory) for name, view in self._outputs.items()}

    def finish(self) -> None:
        """Write the mask as it is now."""
        if not self._outputs:
            return
        done = np.logical_and.reduce([view.linked for view in self._outputs.values()])
        mask = self.directory / ("done" if "done" not in self._outputs else "done.mask")
        _write_metadata(mask, array_metadata(self._axes, self._extents, (), np.dtype(bool), whole=True))
        _write_atomically(mask / ("c" + ".0" * len(self._extents)), done.tobytes())
        self._written = time.monotonic()

    def _new(self, output: str, first: ChunkRef) -> "_OutputView":
        return _OutputView(self.directory / file_name(output), self._axes, self._extents, first, self._chunks)


def file_name(output: str) -> str:
    """Return a name for the array of an output that every file system takes and no other output has."""
    if _PLAIN_NAME.fullmatch(output):
        return output
    readable = re.sub(r"[^A-Za-z0-9_]", "_", output)[:40]
    return f"{readable}-{xxh3_128_hexdigest(output.encode('utf-8', 'surrogatepass'))}"


_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]{0,80}")
"""Names that are told apart on file systems that ignore case."""


def drop_links(arrays: Path, inodes: Collection[int], before: float, chunk: Callable[[bytes], Path]) -> int:
    """Delete the files of all views whose chunks are gone; return how many there were.

    Parameters
    ----------
    arrays
        The directory of all views.
    inodes
        Of the chunks that are there.
    before
        Files that are younger are left alone.
    chunk
        Gives the path that a chunk with some checksum has or would have.
    """
    dropped = 0
    for view in sorted(path for path in arrays.iterdir() if path.is_dir()) if arrays.exists() else ():
        gone = [path for path in sorted(view.glob("*/c.*")) if _is_gone(path, inodes, before, chunk)]
        for path in gone:
            path.unlink(missing_ok=True)
        dropped += len(gone)
        if gone and not any(path for path in view.glob("*/c.*") if not is_mask(path)):
            shutil.rmtree(view, ignore_errors=True)
        elif gone:
            _remask(view)
    return dropped


def _is_gone(path: Path, inodes: Collection[int], before: float, chunk: Callable[[bytes], Path]) -> bool:
    if is_mask(path):
        return False
    try:
        status = path.stat()
        if status.st_ino in inodes or status.st_mtime >= before:
            return False
        copied = status.st_mode & 0o200  # a link has the mode of its chunk, which nobody may write
        return not (copied and chunk(xxh3_128_digest(path.read_bytes())).exists())
    except OSError:
        return False


def is_mask(path: Path) -> bool:
    """Return whether a file of a view belongs to its mask."""
    return path.parent.name in ("done", "done.mask")


def _remask(view: Path) -> None:
    """Write the mask of the indices that have all their elements, as it is now."""
    for mask in (path for path in (view / "done.mask", view / "done") if (path / "zarr.json").exists()):
        with contextlib.suppress(OSError, ValueError, KeyError):
            extents = json.loads((mask / "zarr.json").read_bytes())["shape"]
            done = np.ones(extents, dtype=bool)
            for array in (path for path in view.iterdir() if path.is_dir() and path != mask):
                linked = np.zeros(extents, dtype=bool)
                for path in array.glob("c.*"):
                    linked[tuple(int(part) for part in path.name.split(".")[1 : 1 + len(extents)])] = True
                done &= linked
            _write_atomically(mask / ("c" + ".0" * len(extents)), done.tobytes())
        return


class _OutputView:
    """One array of hard links."""

    def __init__(
        self,
        directory: Path,
        axes: tuple[str, ...],
        extents: tuple[int, ...],
        first: ChunkRef,
        chunks: ChunkFiles,
    ) -> None:
        self.directory = directory
        self.linked = np.zeros(math.prod(extents), dtype=bool)
        self._axes = axes
        self._extents = extents
        self._first = first
        self._chunks = chunks
        self._zeros = ".0" * len(first.shape)
        self._compressor = first.compressor
        self._create()

    def fits(self, refs: Sequence[ChunkRef]) -> bool:
        """Whether all elements have the shape and dtype of the first."""
        return all(ref.dtype == self._first.dtype and ref.shape == self._first.shape for ref in refs)

    def link(self, positions: Array, refs: Sequence[ChunkRef]) -> list[int]:
        lost = []
        for position, name, ref in zip(positions.tolist(), self._names(positions), refs, strict=True):
            if self._link(ref, name):
                self.linked[position] = True
            else:
                lost.append(position)
        return lost

    def _link(self, ref: ChunkRef, name: str) -> bool:
        """Link one chunk; return False where it is not there."""
        chunk = self._chunks.path(ref.checksum)
        for _ in range(_ATTEMPTS):
            try:
                if ref.compressor == self._compressor:
                    _link(chunk, self.directory / name)
                else:
                    self._copy(ref, chunk, self.directory / name)
            except IntegrityError:
                return False
            except FileNotFoundError:
                if not chunk.exists():
                    return False
                self._create()  # somebody has deleted the view, as is their right
            else:
                return True
        raise FileNotFoundError(errno.ENOENT, "the view is deleted again and again", str(self.directory))

    def _copy(self, ref: ChunkRef, chunk: Path, target: Path) -> None:
        """Write a chunk as the view's codecs make it: a zarr array has one pipeline for all its chunks.

        The copy has the time stamp of the chunk, so that the next run sees that it is there.
        """
        written = chunk.stat().st_mtime_ns
        with contextlib.suppress(FileNotFoundError):
            if target.stat().st_mtime_ns == written:
                return
        array, used = self._chunks.read(ref), self._compressor
        _write_atomically(target, Compressor.parse(used).encode(array) if used else raw_bytes(array), written)

    def _create(self) -> None:
        self.linked[:] = False
        group = {"zarr_format": 3, "node_type": "group", "attributes": {"gristmill": "view"}}
        _write_metadata(self.directory.parent, group)
        self._compressor = self._agreed()
        _write_metadata(self.directory, self._metadata(self._compressor))

    def _agreed(self) -> str:
        """Return what the chunks of the view that is there are compressed with; one that does not fit is removed.

        Where there is none, the first element decides.
        """
        with contextlib.suppress(FileNotFoundError):
            with contextlib.suppress(
                ValueError, KeyError, TypeError, AttributeError, RecursionError, StoreError
            ):
                told = json.loads((self.directory / "zarr.json").read_bytes())
                used = told["attributes"].get(_COMPRESSOR, "")
                if told == self._metadata(used):
                    return str(used)
            shutil.rmtree(self.directory, ignore_errors=True)
        return self._first.compressor

    def _metadata(self, compressor: str) -> dict[str, Any]:
        dtype, name = np.dtype(self._first.dtype), self.directory.name
        metadata = array_metadata(self._axes, self._extents, self._first.shape, dtype, name=name)
        if compressor:
            metadata["codecs"].append(Compressor.parse(compressor).metadata(dtype))
            metadata["attributes"][_COMPRESSOR] = compressor
        return metadata

    def _names(self, positions: Array) -> Iterable[str]:
        columns = [c.tolist() for c in np.unravel_index(positions, self._extents)]
        return [f"c.{'.'.join(map(str, index))}{self._zeros}" for index in zip(*columns, strict=True)]


def _link(source: Path, target: Path) -> None:
    """Make `target` the file `source`, whatever was there."""
    try:
        os.link(source, target)
    except FileExistsError:
        if not (
            os.path.samefile(source, target) or _is_copy(source, target)
        ):  # of a chunk that was damaged, say
            target.unlink(missing_ok=True)
            _link(source, target)
    except OSError as error:
        if error.errno not in (errno.EMLINK, errno.EPERM, errno.ENOTSUP, errno.EXDEV):
            raise
        written = source.stat().st_mtime_ns  # by which the next run sees that it is there
        _write_atomically(
            target, source.read_bytes(), written
        )  # ext4 allows 65,000 links; some file systems none


def _is_copy(source: Path, target: Path) -> bool:
    """Whether `target` was copied from the file that `source` is now."""
    there, copied = source.stat(), target.stat()
    is_written_here = bool(copied.st_mode & 0o200)  # a link has the mode of its chunk, which nobody may write
    return is_written_here and (there.st_size, there.st_mtime_ns) == (copied.st_size, copied.st_mtime_ns)


def _write_metadata(directory: Path, metadata: dict[str, Any]) -> None:
    for folder in (directory.parent, directory):
        folder.mkdir(exist_ok=True, parents=True, mode=0o700)
    _write_atomically(directory / "zarr.json", json.dumps(metadata).encode())


def _write_atomically(path: Path, data: bytes | memoryview, written: int | None = None) -> None:
    temporary = path.with_name(f".{os.urandom(8).hex()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
        if written is not None:
            os.utime(temporary, ns=(written, written))
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
