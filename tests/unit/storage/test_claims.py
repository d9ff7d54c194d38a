"""Claims: one owner at a time, none after its end, and a silent one is not waited for."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from tests.support.programs import ROOT

from gristmill.storage.claims import Claims


def keys(*numbers: int) -> bytes:
    """Keys as evenly spread as digests."""
    return b"".join(
        (number * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "little") + number.to_bytes(8, "little")
        for number in numbers
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "claims"


@pytest.fixture
def one(directory: Path) -> Iterator[Claims]:
    made = Claims(directory)
    yield made
    made.close()


@pytest.fixture
def other(directory: Path) -> Iterator[Claims]:
    made = Claims(directory)
    yield made
    made.close()


def test_what_nobody_has_is_granted(one: Claims) -> None:
    assert one.take(keys(1, 2, 3)).tolist() == [True, True, True]


def test_what_another_owner_has_is_refused(one: Claims, other: Claims) -> None:
    one.take(keys(1, 2))
    assert other.take(keys(2, 3, 1)).tolist() == [False, True, False]


def test_what_was_dropped_is_granted(one: Claims, other: Claims) -> None:
    one.take(keys(1, 2))
    one.drop(keys(2))
    assert other.take(keys(1, 2)).tolist() == [False, True]


def test_what_was_refused_stays_with_its_owner(one: Claims, other: Claims) -> None:
    one.take(keys(1, 2))
    granted = other.take(keys(1, 2, 3))
    other.drop(b"".join(keys(n) for n, ok in zip((1, 2, 3), granted, strict=True) if ok))
    assert other.take(keys(1)).tolist() == [False]


def test_a_closed_owner_holds_nothing(one: Claims, other: Claims) -> None:
    one.take(keys(1, 2))
    one.close()
    assert other.take(keys(1, 2)).tolist() == [True, True]


def test_a_closed_owner_may_begin_again(one: Claims, other: Claims) -> None:
    one.take(keys(1))
    one.close()
    assert one.take(keys(2)).tolist() == [True]
    assert other.take(keys(1, 2)).tolist() == [True, False]


def test_nothing_is_granted_to_nobody(one: Claims) -> None:
    assert one.take(b"").tolist() == []
    one.drop(b"")


def test_many_keys_at_once(one: Claims, other: Claims) -> None:
    numbers = range(50_000)
    assert one.take(keys(*numbers)).mean() > 0.99
    assert not other.take(keys(*numbers[:20_000])).all()
    one.drop(keys(*numbers))
    assert other.take(keys(*numbers)).mean() > 0.99


def test_many_rounds_leave_nothing_behind(one: Claims, other: Claims) -> None:
    for start in range(0, 200_000, 10_000):
        block = keys(*range(start, start + 10_000))
        granted = one.take(block)
        one.drop(np.frombuffer(block, dtype="V16")[granted].tobytes())
    assert other.take(keys(*range(0, 200_000, 7))).all()


def test_a_million_calls_are_claimed_at_once(one: Claims, other: Claims, directory: Path) -> None:
    """The table grows with them, under the eyes of an owner that has mapped it before."""
    block = np.random.default_rng(0).bytes(16 * 1_000_000)
    mine = keys(5, 6, 7)
    other.take(mine)
    before = (directory / "table").stat().st_size
    assert one.take(block).all()
    assert (directory / "table").stat().st_size > before
    assert one.take(mine).tolist() == [False, False, False]
    assert other.take(block).mean() < 0.001
    one.drop(block)
    other.drop(mine)
    assert other.take(block).all()
    assert one.take(mine).all()


def test_a_table_that_grows_forgets_who_is_gone(
    holder: "subprocess.Popen[str]", one: Claims, other: Claims
) -> None:
    one.take(keys(3))
    assert one.take(keys(1)).tolist() == [False]
    holder.kill()
    holder.wait()
    one.take(np.random.default_rng(0).bytes(16 * 200_000))
    assert other.take(keys(1, 2, 3)).tolist() == [True, True, False]


def test_a_table_that_cannot_grow_grants_what_it_has_no_room_for(
    one: Claims, other: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    one.take(keys(1))
    block = np.random.default_rng(0).bytes(16 * 400_000)
    with monkeypatch.context() as patch:
        patch.setattr("gristmill.storage.claims.os.posix_fallocate", full)
        assert one.take(block).all()
    assert 0.3 < other.take(block).mean() < 0.6
    one.drop(block)
    assert one.take(keys(1)).tolist() == [False]


def test_one_call_and_many_are_claimed_alike(one: Claims, other: Claims) -> None:
    block = np.random.default_rng(0).bytes(16 * 3000)
    single = [block[at : at + 16] for at in range(0, len(block), 16)]
    assert all(one.take(key).all() for key in single)
    assert not other.take(block).any()
    one.drop(block)
    assert other.take(block).all()
    assert not any(one.take(key).any() for key in single)
    for key in single:
        other.drop(key)
    assert one.take(block).all()


def test_the_same_call_twice_in_a_batch_is_one_claim(one: Claims, other: Claims) -> None:
    many = np.random.default_rng(0).bytes(16 * 9000)
    assert one.take(keys(1) + many + keys(1)).all()
    one.drop(keys(1))
    assert other.take(keys(1)).all()


def test_a_key_whose_halves_are_zero_is_a_key(one: Claims, other: Claims) -> None:
    assert one.take(bytes(16)).all()
    assert not other.take(bytes(16) + keys(1))[0]
    one.drop(bytes(16))
    assert other.take(bytes(16) + keys(1))[0]


def test_threads_of_one_owner_do_not_get_the_same_call(one: Claims) -> None:
    with ThreadPoolExecutor(8) as pool:
        granted = list(pool.map(lambda _: bool(one.take(keys(7))[0]), range(64)))
    assert granted.count(True) == 1


HOLDER = dedent(
    """
    import sys
    from pathlib import Path
    from gristmill.storage.claims import Claims
    claims = Claims(Path(sys.argv[1]))
    print(claims.take(bytes.fromhex(sys.argv[2])).all(), flush=True)
    sys.stdin.read()
    """
)


@pytest.fixture
def holder(directory: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds calls 1 and 2."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, directory, keys(1, 2).hex()],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.communicate()


def test_a_living_process_is_respected(holder: "subprocess.Popen[str]", one: Claims) -> None:
    assert one.take(keys(1, 2, 3)).tolist() == [False, False, True]


def test_a_killed_process_holds_nothing(holder: "subprocess.Popen[str]", one: Claims) -> None:
    holder.kill()
    holder.wait()
    assert one.take(keys(1, 2)).tolist() == [True, True]


def test_a_process_that_ended_holds_nothing(holder: "subprocess.Popen[str]", one: Claims) -> None:
    holder.communicate("")
    assert one.take(keys(1, 2)).tolist() == [True, True]


def test_a_silent_owner_is_not_waited_for(
    holder: "subprocess.Popen[str]", directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its heartbeat stands still: it has been stopped, or its machine sleeps."""
    now = [1000.0]
    monkeypatch.setattr("gristmill.storage.claims.time.monotonic", lambda: now[0])
    impatient = Claims(directory)
    monkeypatch.setattr("gristmill.storage.claims.os.pread", lambda *_: b"the same")
    assert impatient.take(keys(1)).tolist() == [False]
    now[0] += 29.0
    assert impatient.take(keys(1)).tolist() == [False]
    now[0] += 2.0
    assert impatient.take(keys(1)).tolist() == [True]
    impatient.close()


def test_an_owner_that_moves_is_waited_for(
    holder: "subprocess.Popen[str]", directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, beats = [1000.0], iter(range(1000))
    monkeypatch.setattr("gristmill.storage.claims.time.monotonic", lambda: now[0])
    patient = Claims(directory)
    monkeypatch.setattr("gristmill.storage.claims.os.pread", lambda *_: b"%d" % next(beats))
    for _ in range(5):
        assert patient.take(keys(1)).tolist() == [False]
        now[0] += 29.0
    patient.close()


def test_damage_to_the_table_costs_no_more_than_time(one: Claims, other: Claims, directory: Path) -> None:
    one.take(keys(1))
    table = directory / "table"
    with table.open("r+b") as file:
        file.write(os.urandom(table.stat().st_size - 8))
    assert other.take(keys(*range(100, 200))).all()


@pytest.mark.parametrize("left", [0, 8, 5000])
def test_a_table_that_is_cut_off_in_use_costs_no_more_than_time(
    left: int, one: Claims, other: Claims, directory: Path
) -> None:
    assert one.take(keys(1, 2)).all()
    os.truncate(directory / "table", left)
    assert other.take(keys(2, 3)).shape == (2,)
    one.drop(keys(1, 2))
    assert one.take(keys(4)).all()
    assert not other.take(keys(4)).any()


def test_the_directory_may_be_deleted_between_owners(one: Claims, directory: Path) -> None:
    import shutil

    one.take(keys(1))
    one.close()
    shutil.rmtree(directory)
    assert one.take(keys(1)).tolist() == [True]


def test_a_disk_that_is_full_grants_everything_again_and_again(
    one: Claims, other: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("gristmill.storage.claims.os.posix_fallocate", full)
        for _ in range(2):
            assert one.take(keys(1, 2)).tolist() == [True, True]
        one.drop(keys(1, 2))
    assert one.take(keys(1)).tolist() == [True]
    assert other.take(keys(1)).tolist() == [False]
