"""The refuge: a private temporary directory that takes what the store does not.

Owns where it is, how it is made, how long it stays and how it is swept. It does not know what is put there, nor
why: its layout is that of a store.

The process that names it removes it. Every process that uses it holds a shared lock on it, so that one whose
users have all been killed can be told from one that is in use, and is swept by whoever makes one next.
"""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import weakref
from pathlib import Path

from gristmill.errors import StoreError
from gristmill.storage import patience
from gristmill.storage.layout import Layout, Scratch, sweep
from gristmill.storage.patience import Waiter

_MEMORY = Path("/dev/shm")  # noqa: S108 - what is made there is made private
"""Where a file system in memory usually is; it fills up independently of any disk."""


def name_refuge(store: Path) -> str:
    """Return where the refuge of a store would be: on another file system than the store, where there is one.

    Nothing is made; the name is new each time.
    """
    places = _temporary_places()
    device = _device(store)
    elsewhere = [place for place in places if _device(place) != device]
    folder = _folder((elsewhere or places)[0]) if places else Path(os.devnull)
    return str(folder / os.urandom(16).hex())


def sweep_refuges() -> None:
    """Remove the refuges whose users have all gone without doing so."""
    for place in _temporary_places():
        with contextlib.suppress(OSError):
            if (folder := _folder(place)).exists():
                sweep(folder)


def _temporary_places() -> list[Path]:
    found = []
    with contextlib.suppress(OSError):  # no directory takes a file
        found.append(Path(tempfile.gettempdir()))
    return [*found, *([_MEMORY] if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) else [])]


def _folder(place: Path) -> Path:
    return place / f"gristmill-refuges-{os.geteuid()}"


def _device(path: Path) -> int:
    """The file system of `path`, or of what of it exists."""
    for there in (path, *path.parents):
        with contextlib.suppress(OSError):
            return there.stat().st_dev
    return -1


class Refuge:
    """The refuge of one store.

    Parameters
    ----------
    path
        Where it is, or would be; see `name_refuge`.
    owned
        Whether it goes with this object. Otherwise this process only uses it.
    """

    def __init__(self, path: str, *, owned: bool) -> None:
        self.layout = Layout(Path(path))
        self._lock_path = os.path.join(path, ".lock")
        self._locks: list[int] = []
        self._scratch: Scratch | None = None
        self._waiter = Waiter()
        weakref.finalize(self, _leave, path if owned else "", self._locks, os.getpid())

    @property
    def path(self) -> Path:
        """Its directory."""
        return self.layout.root

    @property
    def salt(self) -> bytes:
        """What a store that is made by who uses it derives its key from: so what is here is sealed as it is there."""
        return bytes.fromhex(self.path.name)

    @property
    def exists(self) -> bool:
        """Whether any process has made it; from then on this one uses it too."""
        if not self._locks and os.path.exists(self._lock_path):
            with contextlib.suppress(OSError):
                self._join()
        return bool(self._locks)

    @property
    def scratch(self) -> Path:
        """A directory in it for temporary files of this process.

        Raises
        ------
        StoreError
            It cannot be made.
        """
        self.make()
        if self._scratch is None:
            try:
                self._scratch = Scratch(self.layout.scratch)
            except OSError as error:
                raise StoreError(f"cannot write to the refuge at {self.path}: {error}") from error
        return self._scratch.path

    def make(self) -> None:
        """Make it, unless it is there.

        Raises
        ------
        StoreError
            It cannot be made.
        """
        if self._locks:
            return
        try:
            folder = self.path.parent
            folder.mkdir(mode=0o700, exist_ok=True)
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
                raise StoreError(f"{folder} is not a directory that only this user can write to")
            sweep(folder)
            self._join()
            self.layout.chunks.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StoreError(f"no refuge can be made at {self.path}: {error}") from error

    def close(self) -> None:
        """Remove temporary files of this process; what was put there stays."""
        scratch, self._scratch = self._scratch, None
        if scratch is not None:
            scratch.close()

    def _join(self) -> None:
        while not self._locks:
            self.path.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
            if not self._waiter.lock(descriptor, fcntl.LOCK_SH, patience.TABLE_SECONDS):
                os.close(descriptor)
                raise BlockingIOError(f"{self.path} is being removed by a process that has stopped")
            if (self.path / ".lock").exists():
                self._locks.append(descriptor)
            else:
                os.close(descriptor)  # a sweeper was faster


def _leave(path: str, locks: list[int], maker: int) -> None:
    if path and os.getpid() == maker:  # a forked child that ends has a copy of the finalizer
        shutil.rmtree(path, ignore_errors=True)
    for descriptor in locks:
        os.close(descriptor)
