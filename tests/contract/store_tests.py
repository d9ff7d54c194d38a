"""What the engine relies on a store for: one suite, which every back end has to pass.

A back end's test module has a subclass of `StoreTests` that says how it is opened.
"""

import datetime as dt
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from tests.support.programs import ROOT
from tests.support.values import same
from xxhash import xxh3_128_digest

from gristmill.errors import IntegrityError
from gristmill.identity.memo import StatMemo
from gristmill.identity.types import Digest
from gristmill.storage.code_record import CodeRecord
from gristmill.storage.index import MISSING
from gristmill.storage.local import CallBlock, LocalStorage
from gristmill.storage.segment import Provenance

GROUP, OTHER = b"g" * 16, b"h" * 16

VALUES: dict[str, Any] = {
    "int": 7,
    "big int": -(10**40),
    "float": float("-inf"),
    "none": None,
    "bool": True,
    "complex": 1 - 2j,
    "text": "größe \ud800 \0",
    "bytes": b"\0\xff",
    "numpy scalar": np.float32(0.1),
    "time": np.datetime64("2020-01-01"),
    "array": np.arange(6).reshape(2, 3),
    "0-d array": np.array(2.5),
    "empty array": np.zeros((0, 3)),
    "text array": np.array(["a", "bcd"]),
    "large array": np.arange(30_000.0).reshape(3, 100, 100),
    "large big-endian array": np.arange(30_000, dtype=">i4"),
    "large text": "größe" * 50_000,
    "large bytes": bytes(200_000),
    "container": {"a": [1, (2, None)], "b": dt.date(2020, 1, 1)},
    "large container": [f"item {k}" for k in range(20_000)],
}


def key(name: object) -> bytes:
    return xxh3_128_digest(repr(name).encode())


def block(storage: LocalStorage, names: list[Any], *columns: list[Any], group: bytes = GROUP) -> CallBlock:
    """Calls with these names, and a column of values for each output, kept in the store."""
    kept = tuple([storage.keep(value) for value in column] for column in columns)
    digests = tuple(b"".join(key((name, k)) for name in names) for k in range(len(columns)))
    provenance = Provenance("module:function", {"k": ("00ff", "7")}, {"x": b"".join(map(key, names))})
    return CallBlock(group, b"".join(map(key, names)), digests, kept, provenance)


def find(storage: LocalStorage, names: list[Any], group: bytes = GROUP) -> Any:
    return storage.index(group).find(b"".join(map(key, names)))


def read(storage: LocalStorage, names: list[Any], output: int = 0, group: bytes = GROUP) -> list[Any]:
    """The values of calls that are in the store."""
    index = storage.index(group)
    return [storage.value(form) for form in storage.forms(index, find(storage, names, group), output)]


class StoreTests:
    """The suite; `place` is where a test has its store."""

    opening: str
    """A program that opens the store at `place` as `storage`."""

    def open(self, place: Path) -> LocalStorage:
        """Return a new handle on the store at `place`, made if there is none."""
        raise NotImplementedError

    def lose(self, storage: LocalStorage, form: Any) -> None:
        """Have the store lose the bytes behind a stored form."""
        raise NotImplementedError

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return tmp_path / "store"

    @pytest.fixture
    def storage(self, place: Path) -> Iterator[LocalStorage]:
        made = self.open(place)
        yield made
        made.close()

    @pytest.fixture
    def other(self, storage: LocalStorage, place: Path) -> Iterator[LocalStorage]:
        """A second handle, as another process has one."""
        made = self.open(place)
        yield made
        made.close()

    # -- values

    @pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
    def test_a_value_comes_back_exactly(self, value: Any, storage: LocalStorage, other: LocalStorage) -> None:
        storage.append([block(storage, ["a"], [value])])
        for handle in (storage, other):
            (found,) = read(handle, ["a"])
            assert same(found, value)

    def test_values_of_many_types_in_one_column(self, storage: LocalStorage, other: LocalStorage) -> None:
        names, values = list(VALUES), list(VALUES.values())
        storage.append([block(storage, names, values, values[::-1])])
        for handle in (storage, other):
            assert same(read(handle, names, 0), values)
            assert same(read(handle, names[::-1], 1), values)

    def test_a_value_is_private(self, storage: LocalStorage) -> None:
        storage.append([block(storage, ["a", "b"], [np.arange(3), [1]])])
        for found in read(storage, ["a", "b"]):
            found[0] = 99
        assert same(read(storage, ["a", "b"]), [np.arange(3), [1]])

    def test_equal_large_values_are_kept_once(self, storage: LocalStorage) -> None:
        value = VALUES["large array"]
        first = storage.keep(value)
        written = storage.bytes_written
        assert storage.keep(value.copy()) == first
        assert storage.bytes_written == written > 0

    @pytest.mark.parametrize("name", ["large array", "large text", "large container"])
    def test_lost_bytes_are_noticed_and_can_be_kept_again(
        self, name: str, storage: LocalStorage, other: LocalStorage
    ) -> None:
        form = storage.keep(VALUES[name])
        self.lose(storage, form)
        for handle in (storage, other):
            with pytest.raises(IntegrityError):
                handle.value(form)
            with pytest.raises(IntegrityError):
                handle.check(form)
        assert other.keep(VALUES[name]) == form
        storage.check(form)
        assert same(storage.value(form), VALUES[name])

    def test_numbers_are_read_as_one_array(self, storage: LocalStorage) -> None:
        storage.append([block(storage, ["a", "b"], [1, 2], [0.5, 1.5])])
        storage.append([block(storage, ["c"], [3], [2.5])])
        index, locators = storage.index(GROUP), find(storage, ["c", "a", "b"])
        assert same(storage.array(index, locators, 0), np.array([3, 1, 2]))
        assert same(storage.array(index, locators, 1), np.array([2.5, 0.5, 1.5]))

    # -- looking up

    def test_an_empty_store_has_nothing(self, storage: LocalStorage) -> None:
        assert find(storage, ["a", "b"]).tolist() == [MISSING, MISSING]
        assert find(storage, []).tolist() == []
        assert storage.descriptions(key("place")) == {}
        assert storage.remembered_files() == []
        assert storage.append([]) == []

    def test_what_is_appended_is_found_in_any_order(self, storage: LocalStorage) -> None:
        for start in range(0, 100, 10):
            names = list(range(start, start + 10))
            storage.append([block(storage, names, names)])
        for order in (range(100), range(99, -1, -1), [5, 5, 95, 40], [*range(50, 60), *range(10)]):
            assert read(storage, list(order)) == list(order)
        assert (find(storage, [100, 3, "3"]) == MISSING).tolist() == [True, False, True]

    def test_groups_are_apart(self, storage: LocalStorage, other: LocalStorage) -> None:
        storage.append([block(storage, ["a"], [1]), block(storage, ["a", "b"], [2, 3], group=OTHER)])
        for handle in (storage, other):
            assert (read(handle, ["a"]), read(handle, ["a", "b"], group=OTHER)) == ([1], [2, 3])
            assert find(handle, ["b"]).tolist() == [MISSING]

    def test_the_first_of_two_equal_calls_holds(self, storage: LocalStorage, other: LocalStorage) -> None:
        storage.append([block(storage, ["a"], ["first"])])
        storage.append([block(storage, ["b", "a"], ["b", "second"])])
        for handle in (storage, other):
            assert read(handle, ["a", "b"]) == ["first", "b"]

    def test_digests_come_back(self, storage: LocalStorage, other: LocalStorage) -> None:
        storage.append([block(storage, ["a", "b", "c"], [1, 2, 3], [4, 5, 6])])
        for handle in (storage, other):
            for output in (0, 1):
                found = handle.digests(handle.index(GROUP), find(handle, ["c", "a"]), output)
                assert found.tobytes() == key(("c", output)) + key(("a", output))

    def test_what_the_calls_were_given_comes_back(self, storage: LocalStorage, other: LocalStorage) -> None:
        made = block(storage, ["a", "b"], [1, 2])
        (segment,) = storage.append([made])
        for handle in (storage, other):
            assert handle.provenance(handle.index(GROUP), segment) == made.provenance

    def test_a_large_segment(self, storage: LocalStorage, other: LocalStorage) -> None:
        names = list(range(50_000))
        storage.append([block(storage, names, names)])
        assert read(other, names[::-1]) == names[::-1]

    # -- several handles

    def test_a_handle_sees_what_another_appended_once_it_refreshes(
        self, storage: LocalStorage, other: LocalStorage
    ) -> None:
        assert find(other, ["a"]).tolist() == [MISSING]
        other.refresh()
        assert not other.refresh()
        storage.append([block(storage, ["a"], [1])])
        epoch = other.epoch
        assert other.refresh()
        assert other.epoch > epoch
        assert read(other, ["a"]) == [1]
        assert not other.refresh()

    def test_a_handle_sees_its_own_calls_at_once(self, storage: LocalStorage) -> None:
        find(storage, ["a"])
        epoch = storage.epoch
        storage.append([block(storage, ["a"], [1])])
        assert (read(storage, ["a"]), storage.epoch > epoch) == ([1], True)
        storage.refresh()
        assert read(storage, ["a"]) == [1]

    def test_places_mean_the_same_in_every_handle(self, storage: LocalStorage, other: LocalStorage) -> None:
        for name in "abc":
            storage.append([block(storage, [name, name * 2], [name, name * 2])])
        rows = storage.index(GROUP).portable(find(storage, ["b", "cc", "x"]))
        locators = other.index(GROUP).locators(rows)
        assert locators[2] == MISSING
        assert other.forms(other.index(GROUP), locators[:2], 0) == ["b", "cc"]

    def test_another_process_finds_everything_and_adds_to_it(
        self, storage: LocalStorage, place: Path
    ) -> None:
        storage.append([block(storage, ["mine"], [[1, 2]])])
        self.run(
            place,
            """
            assert read(storage, ["mine"]) == [[1, 2]]
            storage.append([block(storage, ["theirs"], [VALUES["large array"]])])
            storage.close()
            """,
        )
        storage.refresh()
        assert same(read(storage, ["theirs"]), [VALUES["large array"]])

    def test_many_processes_lose_nothing(self, storage: LocalStorage, place: Path) -> None:
        program = """
            for k in range(10):
                names = [(sys.argv[2], k, n) for n in range(5)]
                storage.append([block(storage, names, names)])
            """
        running = [self.start(place, program, str(name)) for name in range(3)]
        assert [process.wait() for process in running] == [0, 0, 0]
        storage.refresh()
        names = [(str(name), k, n) for name in range(3) for k in range(10) for n in range(5)]
        assert read(storage, names) == names

    # -- taking back

    def test_calls_whose_bytes_are_lost_can_be_taken_back(
        self, storage: LocalStorage, other: LocalStorage, place: Path
    ) -> None:
        arrays = [np.full(20_000, float(k)) for k in range(3)]
        storage.append([block(storage, ["a", "b", "c"], arrays)])
        assert (find(other, ["a", "b", "c"]) != MISSING).all()
        storage.quarantine(storage.index(GROUP), find(storage, ["b"]), 0)
        other.refresh()
        again = self.open(place)
        for handle in (storage, other, again):
            assert (find(handle, ["a", "b", "c"]) == MISSING).tolist() == [False, True, False]
            assert handle.index(GROUP).lost(key("b")) == ["damaged"]
            assert same(read(handle, ["c", "a"]), [arrays[2], arrays[0]])
        other.append([block(other, ["b"], [arrays[1]])])
        storage.refresh()
        assert same(read(storage, ["a", "b", "c"]), arrays)
        again.close()

    def test_calls_can_be_taken_back_for_another_reason(
        self, storage: LocalStorage, other: LocalStorage
    ) -> None:
        storage.append([block(storage, ["a", "b"], [1, 2])])
        storage.take_back(storage.index(GROUP), find(storage, ["a"]), "edited")
        for handle in (storage, other):
            assert (find(handle, ["a", "b"]) == MISSING).tolist() == [True, False]
            assert handle.index(GROUP).lost(key("a") + key("b")) == ["edited", ""]

    def test_segments_with_another_number_of_outputs_are_not_found(self, storage: LocalStorage) -> None:
        storage.append([block(storage, ["a"], [1], [2]), block(storage, ["b"], [1])])
        storage.index(GROUP, 2)
        assert (find(storage, ["a", "b"]) == MISSING).tolist() == [False, True]
        storage.refresh()
        assert (find(storage, ["a", "b"]) == MISSING).tolist() == [False, True]

    # -- records

    def test_code_records_come_back_whatever_they_are_named(
        self, storage: LocalStorage, other: LocalStorage
    ) -> None:
        for k, name in enumerate(("m:f", "größe:☃", "a/b/../c:\0", "n" * 300, "M:F", "\ud800:f")):
            record = CodeRecord(name, (name,), Digest(key(name)), "3.11", {name: "value"}, (), float(k))
            storage.describe(record, key(("group", name)))
            storage.describe(record, key(("group", name)))
            assert other.descriptions(record.place) == {key(("group", name)): record}

    def test_hashes_of_files_come_back(
        self, storage: LocalStorage, other: LocalStorage, tmp_path: Path
    ) -> None:
        memo = StatMemo()
        states = []
        for k in range(40):
            (tmp_path / f"file{k}").write_bytes(bytes(k))
            states.append((tmp_path / f"file{k}").stat())
            memo.put(states[-1], key(k))
            storage.remember_files(memo)
        again = StatMemo()
        for known in other.remembered_files():
            again.load(known)
        assert [again.get(state) for state in states] == [key(k) for k in range(40)]

    # -- opening

    def test_a_store_is_what_it_was_when_it_is_opened_again(self, storage: LocalStorage, place: Path) -> None:
        values = list(VALUES.values())
        storage.append([block(storage, list(VALUES), values)])
        storage.close()
        again = self.open(place)
        assert same(read(again, list(VALUES)), values)
        again.close()

    def test_a_handle_may_be_used_after_it_was_closed(self, storage: LocalStorage) -> None:
        storage.append([block(storage, ["a"], [VALUES["large array"]])])
        storage.close()
        storage.close()
        assert same(read(storage, ["a"]), [VALUES["large array"]])
        storage.append([block(storage, ["b"], [VALUES["large container"]])])
        assert same(read(storage, ["b"]), [VALUES["large container"]])

    @pytest.mark.parametrize("name", ["ünïcode ☃", "with space", "a'b\"c%41?#", "new\nline", "d" * 250])
    def test_odd_places(self, name: str, tmp_path: Path) -> None:
        for _ in range(2):
            storage = self.open(tmp_path / name)
            storage.append([block(storage, ["a"], [VALUES["large array"]])])
            assert same(read(storage, ["a"]), [VALUES["large array"]])
            storage.close()

    # -- programs

    def start(self, place: Path, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start a program that has opened the store as `storage`."""
        header = """
            import sys
            from tests.contract.store_tests import VALUES, block, find, read
            place = sys.argv[1]
            """
        text = "".join(map(dedent, (header, self.opening, program)))
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        return subprocess.Popen(
            [sys.executable, "-c", text, str(place), *arguments], env={**os.environ, "PYTHONPATH": path}
        )

    def run(self, place: Path, program: str) -> None:
        """Run such a program to its end."""
        assert self.start(place, program).wait() == 0
