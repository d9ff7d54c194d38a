"""A run that has been made before is found without an engine, and only then."""

import gc
import shutil
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.calls import CallLog, record

from gristmill import Callback, File, Pipeline, Store, node
from gristmill.engine.engine import Engine
from gristmill.identity.keys import call_key, call_keys

OFFSET = [1]


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def log(tmp_path: Path) -> CallLog:
    return CallLog(tmp_path / "calls.log")


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One item for each engine that has been started."""
    started: list[int] = []
    real = Engine.execute

    def execute(*given: Any, **options: Any) -> Any:
        started.append(1)
        return real(*given, **options)

    monkeypatch.setattr(Engine, "execute", execute)
    return started


def shift(x: Any, log: str) -> Any:
    record(log, "shift")
    return x + OFFSET[0]


def parts(shift: Any, scale: int = 2) -> tuple[Any, Any]:
    return shift * scale, [shift]


def total(low: Any, high: list[Any]) -> Any:
    return low + sum(high)


NODES = [node(shift), node(parts, output_name=("low", "high")), node(total)]


def test_a_run_that_is_made_again_needs_no_engine(location: Path, log: CallLog, engines: list[int]) -> None:
    pipeline = Pipeline(NODES, store=location)
    for _ in range(3):
        assert pipeline.run({"x": 3, "log": log.path}) == {"total": 12}
    assert (len(engines), len(log.take())) == (1, 1)
    assert pipeline.run({"x": 3, "log": log.path, "scale": 3}) == {"total": 16}
    assert pipeline.run({"x": 3, "log": log.path}, output_name=["high", "low"]) == {"high": [4], "low": 8}
    assert pipeline("shift", x=3, log=log.path) == 4
    assert (len(engines), log.take()) == (4, []), "each of these is another kind of run"
    assert pipeline.run({"x": 3, "log": log.path}, output_name=("high", "low")) == {"high": [4], "low": 8}
    assert pipeline("shift", x=3, log=log.path) == 4
    assert (
        pipeline.run({"shift": 5, "log": log.path})
        == pipeline.run({"shift": 5, "log": log.path})
        == {"total": 15}
    )
    assert (len(engines), log.take()) == (5, [])


@pytest.mark.parametrize(
    ("one", "other"), [(1, 2), (1, 1.0), (1, True), (np.arange(3), np.arange(3.0)), ([1], (1,)), ("a", b"a")]
)
def test_another_value_is_another_run(one: Any, other: Any, location: Path) -> None:
    pipeline = Pipeline([node(lambda x: (type(x).__name__, str(x)), output_name="y")], store=location)
    for _ in range(2):
        for value in (one, other):
            assert pipeline.run({"x": value}) == {"y": (type(value).__name__, str(value))}


def test_changed_code_and_what_it_reads_are_noticed(
    location: Path, log: CallLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline(NODES, store=location)
    given = {"x": 3, "log": log.path}
    assert pipeline.run(given) == pipeline.run(given) == {"total": 12}
    OFFSET[0] = 10
    assert pipeline.run(given) == pipeline.run(given) == {"total": 39}
    monkeypatch.setattr(parts, "__code__", (lambda shift, scale=2: (shift, [scale])).__code__)
    assert pipeline.run(given) == pipeline.run(given) == {"total": 15}
    monkeypatch.undo()
    OFFSET[0] = 1
    assert pipeline.run(given) == {"total": 12}
    assert len(log.take()) == 2


def test_defaults_and_bound_values_may_be_changed_in_place(location: Path) -> None:
    weights = [1, 2]

    def weighted(x: int, weights: list[int] = weights) -> list[int]:
        return [x * one for one in weights]

    bound = {"a": 1}
    nodes = [node(weighted), node(lambda weighted, k: (weighted, k), output_name="y", bound={"k": bound})]
    pipeline = Pipeline(nodes, store=location)
    for _ in range(2):
        assert pipeline.run({"x": 2}) == {"y": ([2, 4], {"a": 1})}
    weights.append(3)
    assert pipeline.run({"x": 2}) == {"y": ([2, 4, 6], {"a": 1})}
    bound["b"] = 2
    assert pipeline.run({"x": 2}) == {"y": ([2, 4, 6], {"a": 1, "b": 2})}


def test_what_is_handed_out_is_the_callers_own(location: Path, engines: list[int]) -> None:
    pipeline = Pipeline(
        [node(lambda n: [n], output_name="y"), node(lambda n: np.full(n, n), output_name="z")]
    )
    pipeline = pipeline.with_(store=location)
    for _ in range(3):
        made = pipeline.run({"n": 20_000})
        assert made["y"] == [20_000]
        assert (made["z"] == 20_000).all()
        made["y"].append(1)
        made["z"][:] = 0
    assert len(engines) == 1


def test_what_other_processes_append_is_found(location: Path, engines: list[int], tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(
        "import sys\nfrom gristmill import Pipeline\n\ndef y(x):\n    return -x\n\n"
        "PIPELINE = Pipeline([y], store=sys.argv[1] if __name__ == '__main__' else None)\n"
        "if __name__ == '__main__':\n    print(PIPELINE.run({'x': int(sys.argv[2])}))\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        import other  # type: ignore[import-not-found]

        pipeline = other.PIPELINE.with_(store=location)
        assert pipeline.run({"x": 1}) == {"y": -1}
        command = [sys.executable, str(tmp_path / "other.py"), str(location), "2"]
        assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "{'y': -2}\n"
        assert pipeline.run({"x": 2}) == {"y": -2}
        assert len(engines) == 1
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("other", None)


def test_a_store_that_was_deleted_is_filled_again(location: Path, log: CallLog) -> None:
    pipeline, given = Pipeline(NODES, store=location), {"x": 3, "log": log.path}
    for expected in (1, 0):
        assert pipeline.run(given) == {"total": 12}
        assert len(log.take()) == expected
    shutil.rmtree(location)
    for expected in (1, 0):
        assert pipeline.run(given) == {"total": 12}
        assert len(log.take()) == expected
    with Store(location) as store:
        assert Pipeline(NODES, store=store).run(given) == {"total": 12}
    assert log.take() == []


def test_damage_is_computed_again(location: Path, log: CallLog) -> None:
    def image(log: str) -> Any:
        record(log, "image")
        return np.arange(50_000)

    pipeline = Pipeline([node(image)], store=location)
    for expected in (1, 0):
        assert pipeline.run({"log": log.path})["image"].sum() == 1_249_975_000
        assert len(log.take()) == expected
    (chunk,) = (path for path in (location / "chunks").rglob("*") if path.is_file())
    body = bytearray(chunk.read_bytes())
    body[1000] ^= 1
    chunk.chmod(0o600)
    chunk.write_bytes(body)
    for expected in (1, 0):
        assert pipeline.run({"log": log.path})["image"].sum() == 1_249_975_000
        assert len(log.take()) == expected


def test_files_are_looked_at(location: Path, tmp_path: Path) -> None:
    place = tmp_path / "data"
    made = tmp_path / "made"

    def copy(source: File, target: str) -> File:
        Path(target).write_text(source.path.read_text().upper())
        return File(target)

    pipeline = Pipeline([node(copy)], store=location)
    for text in ("one", "two", "two", "one"):
        place.write_text(text)
        assert (
            pipeline.run({"source": File(place), "target": str(made)})["copy"].path.read_text()
            == text.upper()
        )
        made.unlink()
        assert (
            pipeline.run({"source": File(place), "target": str(made)})["copy"].path.read_text()
            == text.upper()
        )


def test_an_output_of_a_map_in_the_place_of_a_value(location: Path) -> None:
    half = node(lambda x: x / 2, output_name="half", mapspec="x[i] -> half[i]")
    mapped = Pipeline([half], store=location).map({"x": [2, 4]})["half"]
    pipeline = Pipeline([node(lambda v: (type(v).__name__, sum(v)), output_name="y")], store=location)
    for _ in range(2):
        assert pipeline.run({"v": [1.0, 2.0]}) == {"y": ("list", 3.0)}
        assert pipeline.run({"v": mapped}) == {"y": ("ndarray", 3.0)}
        assert pipeline.run({"v": np.array([1.0, 2.0])}) == {"y": ("ndarray", 3.0)}


@dataclass
class Counted:
    """A value whose identity is asked for."""

    value: int
    asked: int = 0

    def __digest__(self) -> object:
        self.asked += 1
        return self.value


def test_an_input_is_identified_once(location: Path) -> None:
    pipeline = Pipeline([node(lambda x: x.value, output_name="y")], store=location)
    for value in (1, 2, 2):
        one = Counted(value)
        assert pipeline.run({"x": one}) == {"y": value}
        assert one.asked == 1


class Told(Callback):
    def __init__(self) -> None:
        self.runs = 0

    def on_run_start(self, _event: Any) -> None:
        self.runs += 1


def test_callbacks_and_records_know_of_every_run(location: Path, log: CallLog) -> None:
    told = Told()
    pipeline, given = Pipeline(NODES, store=location, callbacks=[told]), {"x": 3, "log": log.path}
    for _ in range(3):
        pipeline.run(given)
    assert told.runs == 3
    with Store(location) as store:
        silent = Pipeline(NODES, store=store)
        for _ in range(3):
            silent.run(given, record=True)
        assert len(store.runs()) == 3


@pytest.mark.parametrize("stored", [True, False])
def test_an_executor_of_the_users_is_not_held(stored: bool, location: Path) -> None:  # noqa: FBT001 - a parameter
    pipeline = Pipeline([node(lambda x: -x, output_name="y")], store=location if stored else None)
    with ThreadPoolExecutor(1) as executor:
        assert pipeline.run({"x": 1}, node_executor=executor) == {"y": -1}
    there = weakref.ref(executor)
    del executor
    gc.collect()
    assert there() is None
    assert pipeline.run({"x": 1}) == {"y": -1}


def test_bad_input_is_an_error_every_time(location: Path, log: CallLog) -> None:
    pipeline, given = Pipeline(NODES, store=location), {"x": 3, "log": log.path}
    pipeline.run(given)
    pipeline.run(given)
    for wrong in ({"x": 3}, {**given, "nope": 1}, {**given, "x": iter(())}):
        with pytest.raises((ValueError, TypeError)):
            pipeline.run(wrong)
    with pytest.raises(TypeError, match="no option"):
        pipeline.run(given, nope=1)
    with pytest.raises(ValueError, match="on_store_error"):
        pipeline.run(given, on_store_error="nope")  # type: ignore[arg-type]
    assert pipeline.run(given, node_executor={"total": "threaded"}) == {"total": 12}


def test_the_key_of_one_call_is_that_of_many() -> None:
    prefix, columns = bytes(range(16)), [bytes([k]) * 16 for k in range(5)]
    for n in range(6):
        assert call_key(prefix, columns[:n]) == call_keys(prefix, columns[:n], 1)
