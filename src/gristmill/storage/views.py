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
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.storage.chunks import ChunkFiles
from gristmill.storage.elements import ChunkRef

Array = np.ndarray[Any, Any]

_DONE_SECONDS = 0.5
"""How often the mask of finished elements is written while a run goes on."""


def array_metadata(
    axes: Sequence[str],
    extents: Sequence[int],
    shape: Sequence[int],
    dtype: np.dtype[Any],
    *,
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
        "dimension_names": [*axes, *(f"dim_{k}" for k in range(len(shape)))],
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
        self._written = 0.0

    def link(self, output: str, positions: Array, refs: Sequence[ChunkRef]) -> list[int]:
        """Link the chunks of `output` at `positions`; return the positions whose chunk is not there."""
        view = self._outputs.get(output)
        if view is None:
            view = self._outputs[output] = self._create(output, refs[0])
        lost = view.link(positions, refs)
        if time.monotonic() - self._written > _DONE_SECONDS:
            self.finish()
        return lost

    def spoil(self, output: str) -> None:
        """Remove the array of an output whose elements turned out to be of different shapes or types."""
        view = self._outputs.get(output)
        if view is not None:
            view.remove()

    def paths(self) -> dict[str, str]:
        """Return output name to the path of its array."""
        return {name: str(view.directory) for name, view in self._outputs.items() if view.regular}

    def finish(self) -> None:
        """Write the mask as it is now."""
        masks = [view.linked for view in self._outputs.values() if view.regular]
        if masks:
            name = "c" + ".0" * len(self._extents)
            _write_atomically(self._mask_directory / name, np.logical_and.reduce(masks).tobytes())
            self._written = time.monotonic()

    @property
    def _mask_directory(self) -> Path:
        return self.directory / ("done" if "done" not in self._outputs else "done.mask")

    def _create(self, output: str, first: ChunkRef) -> "_OutputView":
        self.directory.mkdir(exist_ok=True, mode=0o700)
        group = {"zarr_format": 3, "node_type": "group", "attributes": {"gristmill": "view"}}
        _write_atomically(self.directory / "zarr.json", json.dumps(group).encode())
        view = _OutputView(self.directory / output, self._axes, self._extents, first, self._chunks)
        mask = self.directory / ("done" if output != "done" else "done.mask")
        _write_metadata(mask, array_metadata(self._axes, self._extents, (), np.dtype(bool), whole=True))
        return view


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
        self.regular = True
        self.linked = np.zeros(math.prod(extents), dtype=bool)
        self._extents = extents
        self._first = first
        self._chunks = chunks
        self._zeros = ".0" * len(first.shape)
        _write_metadata(directory, array_metadata(axes, extents, first.shape, np.dtype(first.dtype)))

    def link(self, positions: Array, refs: Sequence[ChunkRef]) -> list[int]:
        if not self.regular:
            return []
        if any(ref.dtype != self._first.dtype or ref.shape != self._first.shape for ref in refs):
            self.remove()
            return []
        lost = []
        for position, name, ref in zip(positions.tolist(), self._names(positions), refs, strict=True):
            if _link(self._chunks.path(ref.checksum), self.directory / name):
                self.linked[position] = True
            else:
                lost.append(position)
        return lost

    def remove(self) -> None:
        self.regular = False
        shutil.rmtree(self.directory, ignore_errors=True)

    def _names(self, positions: Array) -> Iterable[str]:
        columns = [c.tolist() for c in np.unravel_index(positions, self._extents)]
        return [f"c.{'.'.join(map(str, index))}{self._zeros}" for index in zip(*columns, strict=True)]


def _link(source: Path, target: Path) -> bool:
    """Make `target` the file `source`; return False where that is not there."""
    try:
        os.link(source, target)
    except FileExistsError:
        return _relink(source, target)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in (errno.EMLINK, errno.EPERM, errno.ENOTSUP, errno.EXDEV):
            raise
        shutil.copyfile(source, target)  # ext4 allows 65,000 links to a file; some file systems none
    return True


def _relink(source: Path, target: Path) -> bool:
    """Replace a link that points to other bytes: those of a chunk that was damaged, say."""
    try:
        if os.path.samefile(source, target):
            return True
    except FileNotFoundError:
        if not source.exists():
            return False
    target.unlink(missing_ok=True)
    return _link(source, target)


def _write_metadata(directory: Path, metadata: dict[str, Any]) -> None:
    directory.mkdir(exist_ok=True, mode=0o700)
    _write_atomically(directory / "zarr.json", json.dumps(metadata).encode())


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
