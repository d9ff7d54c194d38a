"""The façade `Store`: where results live, and what can be asked of them."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from gristmill.errors import InputError, StoreError
from gristmill.loading import chunk_path, load
from gristmill.result import MapResult
from gristmill.runs import RunRecord, read_runs
from gristmill.storage.compress import Compressor
from gristmill.storage.layout import Layout
from gristmill.storage.local import LocalStorage, StoreSpec
from gristmill.storage.seal import Secret

if TYPE_CHECKING:
    from gristmill.storage.gc import GcReport
    from gristmill.storage.inspect import StoreEntry, StoreStats
    from gristmill.storage.verify import VerifyReport

Durability = Literal["process", "power"]

ENVIRONMENT = "GRISTMILL_STORE"
DEFAULT_LOCATION = ".gristmill"


def _remove(storage: LocalStorage, path: str, maker: int) -> None:
    if os.getpid() == maker:  # a forked child that ends has a copy of the finalizer
        storage.close()
        shutil.rmtree(path, ignore_errors=True)


class Store:
    """A directory in which every result is kept.

    Parameters
    ----------
    location
        A path; made, with mode 0700, when something is stored first. By default `$GRISTMILL_STORE`, else
        `.gristmill` in the working directory.
    durability
        `"process"` survives the death of any process; `"power"` also a power cut (each commit is synced first).
    verify
        Whether arrays are compared with their checksums when they are read. False trusts the disk: a damaged
        array is then a wrong value. Everything else is always checked.
    compressor
        What large arrays are compressed with from now on: None, `"zstd"` or `"lz4"` (`"blosc"` is the same), with
        a level as in `"zstd:9"`. What is there already is read whatever it was compressed with.
    allow_pickle
        False neither writes nor loads a pickle: results must be numbers, text, bytes, or arrays of these, else
        their call fails, and a pickle that is in the store is refused.
    secret
        Text or bytes that nobody can guess; by default `$GRISTMILL_SECRET`. All that is stored is sealed with it,
        and what was not sealed with it is never decoded: it counts as missing. A store that was made with a
        secret opens with no other.
    readonly
        Serve what is there, write nothing to it. What is missing is computed, and held in a private temporary
        directory for as long as this store or a result is in use.
    trust
        Use a store that other users own or may write to. Its contents are unpickled, so they can run code here.

    Raises
    ------
    StoreVersionError
        The directory holds a store of another format, or something else.
    StorePermissionError
        Other users own it or may write to it, and `trust` is False; or the secret is not its own.

    Examples
    --------
    >>> with Store.temporary() as store:
    ...     store.location.name.startswith("gristmill-")
    True
    """

    def __init__(
        self,
        location: str | os.PathLike[str] | None = None,
        *,
        durability: Durability = "process",
        verify: bool = True,
        compressor: str | None = None,
        allow_pickle: bool = True,
        secret: str | bytes | None = None,
        readonly: bool = False,
        trust: bool = False,
    ) -> None:
        if durability not in ("process", "power"):
            raise StoreError(f"durability is {durability!r}; use 'process' or 'power'")
        place = (
            os.fspath(location) if location is not None else os.environ.get(ENVIRONMENT) or DEFAULT_LOCATION
        )
        if "://" in place:
            raise StoreError(
                f"the store's location is {place!r}; only paths of this machine's file systems work"
            )
        if secret and not verify:
            raise StoreError("verify=False reads what secret= forbids to read; give one of the two")
        path = str(Path(place).expanduser().absolute())
        self._spec = StoreSpec(
            path,
            durable=durability == "power",
            readonly=readonly,
            trust=trust,
            verify=verify,
            compressor=Compressor.parse(compressor).name if compressor is not None else "",
            allow_pickle=allow_pickle,
            secret=Secret.given(secret),
        )
        self._storage: LocalStorage | None = None
        self._finalizer: weakref.finalize[..., Store] | None = None

    @classmethod
    def temporary(cls) -> Self:
        """Return a new store in a temporary directory, removed when it is closed or no longer used."""
        path = tempfile.mkdtemp(prefix="gristmill-")
        store = cls(path)
        store._finalizer = weakref.finalize(store, _remove, store.storage, path, os.getpid())
        return store

    @property
    def location(self) -> Path:
        """The directory."""
        return Path(self._spec.location)

    @property
    def storage(self) -> LocalStorage:
        """What reads and writes; opened when it is needed first."""
        if self._storage is None:
            self._storage = LocalStorage(self._spec)
        return self._storage

    def remembered_files(self) -> list[bytes]:
        """Return what the store knows of files that were hashed before."""
        return self.look().remembered_files()

    def look(self) -> LocalStorage:
        """Return what reads; a directory that is no store yet counts as an empty one, and is not made one."""
        if not Layout(self.location).exists:
            return LocalStorage(replace(self._spec, readonly=True), make=False)
        self.storage.reopen()  # somebody may have deleted it and made another
        return self.storage

    def runs(self) -> list[RunRecord]:
        """Return the records of all maps on this store, the newest first."""
        return read_runs(self.look())

    def load(self, run_id: str) -> MapResult:
        """Return the result of a run, by reference, as `map` returned it, or would have if it was killed.

        Elements that were not computed, and those that have been collected since, are missing; `missing` of
        the output is their mask. The run's failures are in its record, not in `errors`.

        Parameters
        ----------
        run_id
            As in `MapResult.run_id`, or its first characters.

        Raises
        ------
        StoreError
            There is no record of such a run.
        """
        return load(self.look(), run_id, self)

    def stats(self) -> "StoreStats":
        """Return how much there is in the store: bytes by kind and by node, calls, and the hits of each run."""
        from gristmill.storage.inspect import stats

        return stats(self.look())

    def ls(self, node: str | None = None) -> "list[StoreEntry]":
        """Return what is in the store, one entry for each version of a node's code, the last used first.

        Parameters
        ----------
        node
            Only entries of this node: its qualified name, with or without its module, or an output's name.
        """
        from gristmill.storage.inspect import entries

        return entries(self.look(), node)

    def path(self, run_id: str, output_name: str, index: tuple[int, ...] = ()) -> Path | None:
        """Return the file in which the bytes of one element are; None where they are packed with others.

        The file is the element's C-order buffer, in little-endian order. Read it, and never write to it.

        Parameters
        ----------
        run_id
            As for `load`.
        output_name, index
            Which element.

        Raises
        ------
        GristmillError
            The run has no such element, or it is missing.
        """
        return chunk_path(self.look(), run_id, output_name, index)

    def verify(
        self, *, repair: bool = False, progress: Callable[[int, int], None] | None = None
    ) -> "VerifyReport":
        """Read everything in the store, and say what is damaged.

        Parameters
        ----------
        repair
            Set aside what is damaged, so that the next map computes it again; nothing that is intact is deleted.
        progress
            Called with the bytes that have been read, and with about how many there are.
        """
        from gristmill.storage.verify import verify

        return verify(self.look(), repair=repair, progress=progress)

    def gc(
        self,
        max_bytes: int | None = None,
        older_than: float | timedelta | None = None,
        keep_runs: int | None = None,
        *,
        dry_run: bool = False,
    ) -> "GcReport":
        """Delete what is not needed any more; beside running maps, too, which lose nothing that they need.

        Without options, only what nothing can reach goes: litter of crashes, what was quarantined, and records
        that others have superseded. Each option lets more go; what running maps and results in use need stays
        under all of them. What was collected is computed again when it is asked for.

        Parameters
        ----------
        max_bytes
            Let results go, the least recently used first, until the store has at most so many bytes.
        older_than
            Seconds, or a timedelta: keep what was computed, or used by a recorded run, within that time.
        keep_runs
            Keep what the newest so many recorded runs used.
        dry_run
            Only say what would go.

        Raises
        ------
        StoreError
            Another process is collecting, or the store cannot be written.
        """
        from gristmill.storage.gc import GcReport, Policy, collect

        seconds = older_than.total_seconds() if isinstance(older_than, timedelta) else older_than
        for name, value in (("max_bytes", max_bytes), ("older_than", seconds), ("keep_runs", keep_runs)):
            if value is not None and value < 0:
                raise InputError(f"{name} is {value!r}; it must not be negative")
        if not Layout(self.location).marker.exists():
            return GcReport(dry_run)  # nothing has been stored here yet
        return collect(self.look(), Policy(max_bytes, seconds, keep_runs), dry_run=dry_run)

    def close(self) -> None:
        """Close files and end this process's claims; the store may be used again."""
        if self._storage is not None:
            self._storage.close()
            self._storage = None
        if self._finalizer is not None:
            self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Store({str(self.location)!r})"
