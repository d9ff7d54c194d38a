"""Files and folders whose content is their identity."""

from __future__ import annotations

import os
import pickle
import re
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill.errors import DigestError, InputError
from gristmill.identity.digest import digest, digest_block
from gristmill.identity.files import Dir, File
from gristmill.identity.memo import StatMemo, install_memo, merged

LONG_AGO = 1_000_000_000


@pytest.fixture(autouse=True)
def memo() -> Iterator[StatMemo]:
    fresh = StatMemo()
    before = install_memo(fresh)
    yield fresh
    install_memo(before)


def write(path: Path, content: str, *, age: float | None = LONG_AGO) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    if age is not None:
        os.utime(path, (age, age))
    return path


def test_content_and_base_name_make_a_file(tmp_path: Path) -> None:
    one = write(tmp_path / "a" / "data.csv", "1,2")
    assert digest(File(one)) == digest(File(write(tmp_path / "b" / "data.csv", "1,2")))
    assert digest(File(one)) != digest(File(write(tmp_path / "c" / "data.csv", "1,3")))
    assert digest(File(one)) != digest(File(write(tmp_path / "d" / "data.txt", "1,2")))


def test_without_its_name_a_file_is_its_content(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a.csv", "1"), write(tmp_path / "b.csv", "1")
    assert digest(File(one, name=False)) == digest(File(other, name=False))
    assert digest(File(one, name=False)) != digest(File(one))


def test_a_file_is_neither_its_path_nor_its_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a", "text")
    assert len({digest(File(path)), digest(path), digest(str(path)), digest("text"), digest(b"text")}) == 5


def test_the_way_a_path_is_written_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "folder" / "a", "1")
    monkeypatch.chdir(tmp_path / "folder")
    assert digest(File("a")) == digest(File("../folder/a")) == digest(File(tmp_path / "folder" / "a"))
    assert (
        digest(Dir("."))
        == digest(Dir("../folder"))
        == digest(Dir("../folder/"))
        == digest(Dir(tmp_path / "folder"))
    )


def test_a_file_is_a_path_and_a_value(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "héllo")
    file = File(path)
    assert file.path == path
    assert os.fspath(file) == str(path)
    assert Path(file).name == "a.txt"
    assert file.read_text() == "héllo"
    assert file.read_bytes() == "héllo".encode()
    with file.open("rb") as stream:
        assert stream.read() == "héllo".encode()
    assert file == File(str(path))
    assert hash(file) == hash(File(str(path)))
    assert file != File(path, name=False)
    assert file != Dir(path)
    assert pickle.loads(pickle.dumps(file)) == file
    assert pickle.loads(pickle.dumps(File(path, name=False))) == File(path, name=False)
    assert repr(File("a", name=False)) == "File('a', name=False)"
    with pytest.raises(AttributeError, match="immutable"):
        file.path = path  # type: ignore[misc]


def test_an_edit_is_seen_even_within_the_resolution_of_the_clock(tmp_path: Path) -> None:
    path = tmp_path / "a"
    seen = set()
    for n in range(20):
        write(path, f"{n:04}", age=None)
        seen.add(digest(File(path)))
    assert len(seen) == 20


def test_a_file_written_just_now_is_not_remembered(tmp_path: Path, memo: StatMemo) -> None:
    path = write(tmp_path / "a", "1", age=time.time())
    digest(File(path))
    assert len(memo) == 0


def test_a_file_at_rest_is_read_once(tmp_path: Path, memo: StatMemo, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a", "1")
    first = digest(File(path))
    assert len(memo) == 1
    monkeypatch.setattr("gristmill.identity.files._read", None)
    assert digest(File(path)) == first
    assert digest([File(path, name=False)]) == digest([File(path, name=False)])


def test_an_edit_that_keeps_size_and_time_is_seen(tmp_path: Path) -> None:
    path = write(tmp_path / "a", "1")
    first = digest(File(path))
    assert digest(File(write(path, "2"))) != first


def test_a_file_put_in_place_of_another_is_seen(tmp_path: Path) -> None:
    path, other = write(tmp_path / "a", "1"), write(tmp_path / "b", "2")
    first = digest(File(path))
    other.replace(path)
    assert digest(File(path)) != first


def test_a_memo_survives_as_bytes(tmp_path: Path, memo: StatMemo, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [File(write(tmp_path / str(n), str(n))) for n in range(10)]
    before = digest_block(files)
    kept, count = memo.added(0)
    assert count == 10
    assert memo.added(count) == (b"", 10)
    loaded = StatMemo()
    loaded.offer("elsewhere", lambda: [kept[:56], kept[56:]])
    loaded.offer("elsewhere", lambda: [kept])
    install_memo(loaded)
    monkeypatch.setattr("gristmill.identity.files._read", None)
    assert digest_block(files) == before == b"".join(map(digest, files))


def test_a_torn_memo_is_refused() -> None:
    with pytest.raises(ValueError, match="57 bytes"):
        StatMemo().load(bytes(57))


def test_an_offer_is_taken_once_and_only_when_needed(tmp_path: Path, memo: StatMemo) -> None:
    asked: list[int] = []

    def load() -> list[bytes]:
        asked.append(1)
        return []

    memo.offer("store", load)
    assert asked == []
    for name in "ab":
        digest(File(write(tmp_path / name, name)))
    memo.offer("store", load)
    digest(File(write(tmp_path / "c", "c")))
    assert asked == [1]


def test_an_offer_keeps_nobody_alive(tmp_path: Path, memo: StatMemo) -> None:
    class Owner:
        def load(self) -> list[bytes]:
            return [bytes(57)]

    owner = Owner()
    alive = weakref.ref(owner)
    memo.offer("store", owner.load)
    del owner
    assert alive() is None
    assert digest(File(write(tmp_path / "a", "a")))


def test_merged_memos_know_the_last_state_of_each_file(tmp_path: Path, memo: StatMemo) -> None:
    paths = [write(tmp_path / name, name) for name in "ab"]
    digest_block([File(path) for path in paths])
    write(paths[0], "c")
    digest(File(paths[0]))
    block, count = memo.added(0)
    assert count == 3
    assert merged([block[:56], block[56:]]) == block[112:] + block[56:112]


def test_a_file_larger_than_a_block_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(bytes(3_000_000))
    first = digest(File(path))
    path.write_bytes(bytes(2_999_999) + b"x")
    assert digest(File(path)) != first


@pytest.mark.parametrize("kind", [File, Dir])
def test_a_missing_path_is_named(kind: type[File | Dir], tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(FileNotFoundError, match=re.escape(str(missing))):
        digest(kind(missing))
    with pytest.raises(InputError, match=re.escape(str(missing))):
        digest_block([1, kind(missing)])


def test_a_folder_is_no_file_and_a_file_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder; pass Dir\("):
        digest(File(tmp_path))
    with pytest.raises(InputError, match=r"is no folder; pass File\("):
        digest(Dir(write(tmp_path / "a", "1")))


def test_what_has_no_content_that_stays_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="no regular file"):
        digest(File(pipe))
    with pytest.raises(DigestError, match="neither a file nor a folder"):
        digest(Dir(tmp_path))


def tree(root: Path) -> Path:
    write(root / "a", "1")
    write(root / "sub" / "b", "2")
    (root / "empty").mkdir()
    return root


def test_a_folder_is_everything_in_it_and_its_name(tmp_path: Path) -> None:
    one, other = tree(tmp_path / "x" / "data"), tree(tmp_path / "y" / "data")
    renamed = tree(tmp_path / "y" / "other")
    assert digest(Dir(one)) == digest(Dir(other))
    assert digest(Dir(one)) != digest(Dir(renamed))
    assert digest(Dir(one, name=False)) == digest(Dir(renamed, name=False))


@pytest.mark.parametrize(
    "change",
    [
        lambda root: write(root / "sub" / "b", "3"),
        lambda root: (root / "sub" / "b").rename(root / "sub" / "c"),
        lambda root: (root / "sub" / "b").rename(root / "b"),
        lambda root: (root / "empty").rmdir(),
        lambda root: (root / "empty2").mkdir(),
        lambda root: write(root / "new", ""),
        lambda root: (root / "dangling").symlink_to("nowhere"),
    ],
)
def test_any_change_in_a_folder_counts(change: object, tmp_path: Path) -> None:
    root = tree(tmp_path / "data")
    before = digest(Dir(root))
    assert callable(change)
    change(root)
    assert digest(Dir(root)) != before


def test_links_in_a_folder_are_followed_and_may_loop(tmp_path: Path) -> None:
    target = write(tmp_path / "target", "1")
    root = tree(tmp_path / "data")
    (root / "link").symlink_to(target)
    (root / "loop").symlink_to(root)
    before = digest(Dir(root))
    assert digest(Dir(root)) == before
    write(target, "2")
    assert digest(Dir(root)) != before


def test_names_that_are_no_text_are_names(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/\xff.bin"
    with open(odd, "wb") as stream:  # noqa: PTH123 - a name in bytes
        stream.write(b"1")
    assert digest(File(os.fsdecode(odd))) != digest(File(os.fsdecode(odd), name=False))
    assert digest(Dir(tmp_path)) == digest(Dir(tmp_path))
