"""The spool gives back what it holds, from memory or from a file that nobody else sees."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gristmill.errors import IntegrityError
from gristmill.storage import spool
from gristmill.storage.local import LocalStorage, StoreSpec
from gristmill.storage.spool import NamelessFile, Spool


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but small blocks fits into memory."""
    monkeypatch.setattr(spool, "IN_MEMORY", 0)


@pytest.mark.usefixtures("tight")
def test_blocks_come_back_from_a_file(tmp_path: Path) -> None:
    blocks = [os.urandom(size) for size in (5000, 1024, 100_000, 10)]
    holder = Spool(lambda: tmp_path)
    held = [holder.hold(block) for block in blocks]
    assert [one[:] for one in held] == blocks
    assert [one[16:32] for one in held] == [block[16:32] for block in blocks]
    assert [one[50:20] for one in held] == [b""] * 4
    assert [len(one) for one in held] == [len(block) for block in blocks]
    assert [type(one) is bytes for one in held] == [False, False, False, True]
    assert not list(tmp_path.iterdir())


def test_little_is_held_in_memory(tmp_path: Path) -> None:
    def never() -> Path:
        raise AssertionError("no file is needed")

    block = os.urandom(5000)
    assert Spool(never).hold(block) is block


@pytest.mark.usefixtures("tight")
def test_a_disk_that_refuses_leaves_blocks_in_memory(tmp_path: Path) -> None:
    block = os.urandom(5000)
    assert Spool(lambda: tmp_path / "missing").hold(block) is block


@pytest.mark.usefixtures("tight")
def test_a_fork_writes_to_a_file_of_its_own(tmp_path: Path) -> None:
    holder = Spool(lambda: tmp_path)
    before = holder.hold(b"before" * 1000)
    child = os.fork()
    if not child:
        theirs = holder.hold(b"theirs" * 1000)
        os._exit(0 if (before[:6], theirs[:6]) == (b"before", b"theirs") else 1)
    ours = holder.hold(b"ours.." * 1000)
    assert os.waitpid(child, 0)[1] == 0
    assert (before[:], ours[:]) == (b"before" * 1000, b"ours.." * 1000)


def test_what_is_not_there_is_an_integrity_error(tmp_path: Path) -> None:
    file = NamelessFile(tmp_path)
    file.append(b"abc")
    with pytest.raises(IntegrityError, match="too short"):
        file.read(1, 3)


def test_a_file_is_made_while_others_wait_for_the_index(tmp_path: Path) -> None:
    """Who appends holds the store's lock while it waits for an index, which may need a file to go on."""
    storage = LocalStorage(StoreSpec(str(tmp_path / "store")))
    with ThreadPoolExecutor(1) as pool, storage._lock:  # noqa: SLF001 - no other way to hold it
        assert pool.submit(lambda: storage.scratch).result(timeout=20).is_dir()
    storage.close()
