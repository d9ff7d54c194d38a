"""Files that calls are given and return: kept, put back, never overwritten, never mistaken for others."""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.calls import CallLog, record
from tests.support.programs import run

from gristmill import Dir, File, MapResult, Pipeline, Store, node
from gristmill.errors import DigestError, InputError


@pytest.fixture
def log(tmp_path: Path) -> CallLog:
    return CallLog(tmp_path / "calls.log")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as made:
        yield made


class Scene:
    """A map that writes a file for each number, and one that reads them."""

    def __init__(self, folder: Path, log: CallLog, store: Store, executor: str) -> None:
        self.folder = folder
        self.log = log
        self._executor = executor

        def written(x: int, folder: str, log: str) -> File:
            record(log, "written", x)
            path = Path(folder) / f"{x}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"content {x}")
            return File(path)

        def length(written: File, log: str) -> int:
            record(log, "length", written.path.name)
            return len(written.read_text())

        self.pipeline = Pipeline(
            [node(written, mapspec="x[i] -> written[i]"), node(length, mapspec="written[i] -> length[i]")],
            store=store,
        )

    def map(self, count: int = 3) -> MapResult:
        inputs = {"x": range(count), "folder": str(self.folder), "log": self.log.path}
        outputs = ["written", "length"]
        return self.pipeline.map(inputs, output_name=outputs, map_executor=self._executor, max_workers=2)

    def path(self, x: int) -> Path:
        return self.folder / f"{x}.txt"


@pytest.fixture
def scene(tmp_path: Path, log: CallLog, store: Store, executor: str) -> Scene:
    made = Scene(tmp_path / "out", log, store, executor)
    result = made.map()
    assert result["length"].tolist() == [9, 9, 9]
    assert [file.read_text() for file in result["written"]] == ["content 0", "content 1", "content 2"]
    assert len(made.log.take()) == 6
    return made


def test_a_hit_finds_the_files_where_they_are(scene: Scene) -> None:
    result = scene.map()
    assert scene.log.take() == []
    assert result.stats.computed == 0
    assert result["written"].tolist() == [File(scene.path(x)) for x in range(3)]


def test_a_missing_file_is_put_back(scene: Scene) -> None:
    scene.path(1).unlink()
    scene.map()
    assert scene.log.take() == []
    assert scene.path(1).read_text() == "content 1"
    assert sorted(path.name for path in scene.folder.iterdir()) == ["0.txt", "1.txt", "2.txt"]


def test_a_missing_folder_is_put_back(scene: Scene) -> None:
    shutil.rmtree(scene.folder)
    scene.map()
    assert scene.log.take() == []
    assert [scene.path(x).read_text() for x in range(3)] == ["content 0", "content 1", "content 2"]


def test_permissions_are_put_back(scene: Scene) -> None:
    mode = scene.path(1).stat().st_mode
    scene.path(1).unlink()
    scene.map()
    assert scene.path(1).stat().st_mode == mode
    scene.path(1).write_text("writable")


def test_a_changed_file_makes_its_call_a_miss(scene: Scene) -> None:
    scene.path(1).write_text("an edit")
    scene.map()
    assert scene.log.take() == ["written 1"]  # the content is what it was, so nothing below runs
    assert scene.path(1).read_text() == "content 1"
    scene.map()
    assert scene.log.take() == []


def test_a_file_with_the_same_size_and_time_is_told_apart(scene: Scene) -> None:
    before = scene.path(1).stat()
    scene.path(1).write_text("CONTENT 1")
    os.utime(scene.path(1), ns=(before.st_atime_ns, before.st_mtime_ns))
    scene.map()
    assert scene.log.take() == ["written 1"]


def test_what_stands_in_the_way_is_a_change(scene: Scene) -> None:
    scene.path(1).unlink()
    scene.path(1).symlink_to(scene.folder / "nowhere")
    scene.path(2).unlink()
    scene.path(2).mkdir()
    with pytest.raises(OSError):  # noqa: PT011 - the function itself cannot write there
        scene.map()
    assert scene.path(2).is_dir()


def test_a_lost_copy_is_made_again(scene: Scene, store: Store) -> None:
    scene.path(1).unlink()
    for chunk in (store.location / "chunks").glob("*/*"):
        chunk.unlink()
    scene.map()
    assert scene.log.take() == ["written 1"]
    assert scene.path(1).read_text() == "content 1"


def test_a_damaged_copy_is_not_put_back(scene: Scene, store: Store) -> None:
    for x in range(3):
        scene.path(x).unlink()
    for chunk in (store.location / "chunks").glob("*/*"):
        chunk.chmod(0o600)
        chunk.write_bytes(b"damaged!!")
    scene.map()
    assert sorted(scene.log.take()) == ["written 0", "written 1", "written 2"]
    assert [scene.path(x).read_text() for x in range(3)] == ["content 0", "content 1", "content 2"]
    scene.path(0).unlink()
    scene.map()
    assert scene.log.take() == []
    assert scene.path(0).read_text() == "content 0"


def test_explain_says_that_a_file_was_changed_and_touches_nothing(scene: Scene) -> None:
    scene.path(0).unlink()
    scene.path(1).write_text("an edit")
    inputs = {"x": range(3), "folder": str(scene.folder), "log": scene.log.path}
    text = str(scene.pipeline.explain(inputs))
    assert "a file that it returned has been changed" in text
    assert not scene.path(0).exists()
    assert scene.path(1).read_text() == "an edit"
    scene.map()
    assert scene.log.take() == ["written 1"]


# -- files inside other values, folders


def test_files_inside_containers_are_kept(tmp_path: Path, store: Store, executor: str) -> None:
    def pair(x: int, folder: str) -> dict[str, Any]:
        path = Path(folder) / f"{x}"
        path.write_text(str(x))
        return {"n": x, "files": [File(path), (File(path),)]}

    def maybe(x: int, folder: str) -> File | None:
        path = Path(folder) / f"maybe{x}"
        path.write_text(str(x))
        return File(path) if x else None

    pipeline = Pipeline(
        [node(pair, mapspec="x[i] -> pair[i]"), node(maybe, mapspec="x[i] -> maybe[i]")], store=store
    )
    (tmp_path / "out").mkdir()
    inputs = {"x": [0, 1, 2], "folder": str(tmp_path / "out")}
    first = pipeline.map(inputs, map_executor=executor)
    shutil.rmtree(tmp_path / "out")
    again = pipeline.map(inputs, map_executor=executor)
    assert again.stats.computed == 0
    assert again["pair"].tolist() == first["pair"].tolist()
    assert again["maybe"].tolist() == first["maybe"].tolist()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0", "1", "2", "maybe1", "maybe2"]


@pytest.fixture
def tree(tmp_path: Path, store: Store, executor: str, log: CallLog) -> Any:
    def built(name: str, folder: str, log: str) -> Dir:
        record(log, "built", name)
        root = Path(folder) / name
        (root / "inner" / "empty").mkdir(parents=True, exist_ok=True)
        (root / "a.txt").write_text("a")
        (root / "inner" / "b.txt").write_text("b")
        return Dir(root)

    pipeline = Pipeline([built], store=store, engine=None)

    def run() -> list[str]:
        made = pipeline.run(
            {"name": "tree", "folder": str(tmp_path), "log": log.path}, node_executor=executor
        )
        assert made["built"] == Dir(tmp_path / "tree")
        return log.take()

    return run


def test_a_folder_is_put_back(tree: Any, tmp_path: Path) -> None:
    assert tree() == ["built tree"]
    assert tree() == []
    shutil.rmtree(tmp_path / "tree")
    assert tree() == []
    assert (tmp_path / "tree" / "inner" / "b.txt").read_text() == "b"
    assert (tmp_path / "tree" / "inner" / "empty").is_dir()
    (tmp_path / "tree" / "a.txt").unlink()
    assert tree() == []
    assert (tmp_path / "tree" / "a.txt").read_text() == "a"


@pytest.mark.parametrize("edit", ["changed", "added", "removed and added"])
def test_a_changed_folder_is_a_miss(edit: str, tree: Any, tmp_path: Path) -> None:
    tree()
    root = tmp_path / "tree"
    if edit == "changed":
        (root / "inner" / "b.txt").write_text("c")
    else:
        (root / "inner" / "new.txt").write_text("c")
        if edit != "added":
            (root / "a.txt").unlink()
    assert not [call for call in tree() if call != "built tree"]


def test_a_folder_with_a_link_to_nothing_cannot_be_kept(tmp_path: Path, store: Store) -> None:
    def built(folder: str) -> Dir:
        Path(folder, "link").symlink_to("nowhere")
        return Dir(folder)

    (tmp_path / "d").mkdir()
    with pytest.raises(DigestError, match="link to nothing"):
        Pipeline([built], store=store).run({"folder": str(tmp_path / "d")})


def test_a_file_that_was_not_written_is_an_error(tmp_path: Path, store: Store, executor: str) -> None:
    def missing(path: str) -> File:
        return File(path)

    with pytest.raises(InputError, match="there is no file"):
        Pipeline([missing], store=store).run({"path": str(tmp_path / "none")}, node_executor=executor)


# -- files that change while a call reads them


@pytest.mark.parametrize("where", ["mapped", "whole", "nested", "returned", "reduced"])
def test_a_file_that_changes_during_a_call_keeps_no_result(
    where: str, tmp_path: Path, store: Store, executor: str
) -> None:
    path = tmp_path / "data.txt"
    path.write_text("before")
    stop = tmp_path / "stop"

    def read(source: Any, stop: str) -> str:
        file = source
        while isinstance(file, list) or hasattr(file, "ravel"):
            file = file[0]
        text: str = file.read_text()
        if not Path(stop).exists():
            file.path.write_text("after!")
        return text

    def handed(name: str) -> File:
        return File(name)

    nodes: list[Any] = [node(read, output_name="text")]
    inputs: dict[str, Any] = {"stop": str(stop), "source": File(path)}
    if where == "mapped":
        nodes = [node(read, output_name="text", mapspec="source[i] -> text[i]")]
        inputs["source"] = [File(path)]
    elif where == "nested":
        inputs["source"] = [[File(path)]]
    elif where != "whole":
        mapped = where == "reduced"
        nodes.append(node(handed, output_name="source", mapspec="name[i] -> source[i]" if mapped else None))
        inputs = {"stop": str(stop), "name": [str(path)] if mapped else str(path)}
    pipeline = Pipeline(nodes, store=store)
    with pytest.raises(InputError, match=r"a file in the argument 'source' changed while read ran"):
        pipeline.map(inputs, map_executor=executor)
    stop.touch()
    path.write_text("before")
    result = pipeline.map(inputs, map_executor=executor)["text"]
    assert (result if isinstance(result, str) else result.tolist()) in ("before", ["before"])
    path.write_text("third")
    result = pipeline.map(inputs, map_executor=executor)["text"]
    assert (result if isinstance(result, str) else result.tolist()) in ("third", ["third"])


# -- what is remembered of files between processes

PROGRAM = """
import os, sys
from pathlib import Path
from gristmill import File, Pipeline, node
from gristmill.identity import files

read = []
before = files._read
files._read = lambda path: read.append(path) or before(path)

def size(file):
    return file.path.stat().st_size

if __name__ == "__main__":
    paths = sorted(Path(sys.argv[1]).iterdir())
    pipeline = Pipeline([node(size, mapspec="file[i] -> size[i]")])
    result = pipeline.map({"file": [File(path) for path in paths]}, map_executor=sys.argv[2])
    print(len(read), result.stats.computed, sum(result["size"].tolist()))
"""


def test_files_at_rest_are_read_by_the_first_process_only(tmp_path: Path, default_store: Path) -> None:
    script, folder = tmp_path / "job.py", tmp_path / "data"
    script.write_text(PROGRAM)
    folder.mkdir()
    for n in range(50):
        (folder / f"{n:02}").write_text("x" * n)
        os.utime(folder / f"{n:02}", (1e9, 1e9))
    assert run(script, folder, "sequential", store=default_store).split() == ["50", "50", "1225"]
    for added in range(18):  # more rows than are kept
        (folder / f"a{added:02}").write_text("yy")
        os.utime(folder / f"a{added:02}", (1e9, 1e9))
        assert run(script, folder, "sequential", store=default_store).split()[:2] == ["1", "1"]
    assert run(script, folder, "sequential", store=default_store).split() == ["0", "0", "1261"]
    (folder / "07").write_text("edited")
    assert run(script, folder, "sequential", store=default_store).split()[1:] == ["1", "1260"]


def test_a_damaged_memo_is_as_good_as_none(tmp_path: Path, default_store: Path) -> None:
    script, folder = tmp_path / "job.py", tmp_path / "data"
    script.write_text(PROGRAM)
    folder.mkdir()
    (folder / "a").write_text("xyz")
    os.utime(folder / "a", (1e9, 1e9))
    assert run(script, folder, "sequential", store=default_store).split() == ["1", "1", "3"]
    with contextlib.closing(sqlite3.connect(default_store / "ledger" / "cache.db")) as connection:
        with connection:
            changed = connection.execute(
                "UPDATE Cache SET value = x'00' WHERE substr(key, 1, 1) = x'66'"
            ).rowcount
        assert changed == 1
    assert run(script, folder, "sequential", store=default_store).split() == ["1", "0", "3"]
