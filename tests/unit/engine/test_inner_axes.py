"""Axes that calls make: dense and ragged, mapped over, reduced, found again, healed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.calls import CallLog, record

from gristmill import MappedOutput, Pipeline, Store, node
from gristmill.errors import GristmillError, InputError, RaggedError


@pytest.fixture
def log(tmp_path: Path) -> CallLog:
    return CallLog(tmp_path / "calls.log")


def words(text: str) -> list[str]:
    return text.split()


def upper(word: str) -> str:
    return word.upper()


WORDS = node(words, output_name="word", mapspec="text[i] -> word[i, *j]")
UPPER = node(upper, mapspec="word[i, j] -> upper[i, j]")


def test_one_call_makes_an_axis(executor: str) -> None:
    def load(n: int) -> list[Any]:
        return [k * 1.5 for k in range(n)]

    nodes = [
        node(load, output_name="x", mapspec="... -> x[i]"),
        node(lambda x: x + 1, output_name="y", mapspec="x[i] -> y[i]"),
        node(lambda y: float(y.sum()), output_name="total"),
    ]
    result = Pipeline(nodes).map({"n": 3}, map_executor=executor, output_name=["x", "y", "total"])
    assert (result["x"].tolist(), result["y"].tolist(), result["total"]) == (
        [0.0, 1.5, 3.0],
        [1.0, 2.5, 4.0],
        7.5,
    )
    assert (result["x"].shape, result["x"].axes, result["x"].dtype) == ((3,), ("i",), np.float64)


def test_one_call_makes_several_axes_of_several_outputs(executor: str) -> None:
    def load() -> tuple[Any, list[list[str]]]:
        return np.arange(24.0).reshape(2, 3, 4), [["a", "b", "c"], ["d", "e", "f"]]

    nodes = [
        node(load, output_name=("x", "y"), mapspec="... -> x[i, j], y[i, j]"),
        node(lambda x, y: f"{y}{x.sum():.0f}", output_name="z", mapspec="x[i, j], y[i, j] -> z[i, j]"),
        node(lambda z: "".join(z), output_name="row", mapspec="z[i, :] -> row[i]"),
    ]
    result = Pipeline(nodes).map({}, map_executor=executor, output_name=["x", "z", "row"])
    assert result["x"].shape == (2, 3, 4)
    assert result["z"].tolist() == [["a6", "b22", "c38"], ["d54", "e70", "f86"]]
    assert result["row"].tolist() == ["a6b22c38", "d54e70f86"]


def test_each_call_makes_an_axis_of_one_length(executor: str) -> None:
    def powers(x: int) -> tuple[int, ...]:
        return x, x**2, x**3

    nodes = [
        node(powers, output_name="y", mapspec="x[i] -> y[i, j]"),
        node(lambda y, k: y * k, output_name="z", mapspec="y[i, j], k[j] -> z[i, j]"),
        node(lambda z: int(z.sum()), output_name="s", mapspec="z[:, j] -> s[j]"),
    ]
    result = Pipeline(nodes).map(
        {"x": [1, 2], "k": [1, 10, 100]}, map_executor=executor, output_name=["z", "s"]
    )
    assert np.asarray(result["z"]).tolist() == [[1, 10, 100], [2, 40, 800]]
    assert result["s"].tolist() == [3, 50, 900]


def test_a_generator_may_make_it(executor: str) -> None:
    def count(n: int) -> Any:
        yield from range(n)

    counted = node(count, output_name="x", mapspec="... -> x[i]")
    assert Pipeline([counted]).map({"n": 3}, map_executor=executor)["x"].tolist() == [0, 1, 2]


def test_a_ragged_axis_is_mapped_and_reduced(executor: str) -> None:
    def line(upper: Any) -> str:
        return "-".join(upper)

    def whole(upper: Any) -> tuple[str, tuple[int, ...], list[list[str]]]:
        return str(upper.dtype), upper.shape, [row.tolist() for row in upper]

    def nested(upper: list[list[str]]) -> list[list[str]]:
        return upper

    def lazily(upper: MappedOutput) -> list[Any]:
        return [upper.shape, upper[2, 1], upper[0].tolist(), upper.tolist()]

    lines = node(line, mapspec="upper[i, :] -> line[i]")
    pipeline = Pipeline([WORDS, UPPER, lines, whole, nested, lazily])
    names = ["upper", "line", "whole", "nested", "lazily"]
    result = pipeline.map({"text": ["a b c", "", "d e"]}, map_executor=executor, output_name=names)
    expected = [["A", "B", "C"], [], ["D", "E"]]
    assert result["upper"].tolist() == expected
    assert result["line"].tolist() == ["A-B-C", "", "D-E"]
    assert result["whole"] == ("object", (3,), expected)
    assert result["nested"] == expected
    assert result["lazily"] == [(3,), "E", expected[0], expected]


def test_a_ragged_output_is_indexed_axis_by_axis(executor: str) -> None:
    result = Pipeline([WORDS]).map({"text": ["a b c", "", "d e"]}, map_executor=executor)["word"]
    assert (result[0, 2], result[2, -1], result[0].tolist(), result[1].tolist()) == (
        "c",
        "e",
        ["a", "b", "c"],
        [],
    )
    assert [row.tolist() for row in result[1:]] == [[], ["d", "e"]]
    assert result[0, 1:].tolist() == ["b", "c"]
    assert [row.tolist() for row in np.asarray(result)] == [["a", "b", "c"], [], ["d", "e"]]
    assert (result.shape, result.dtype, len(result)) == ((3,), object, 3)
    for wrong in (3, (1, 0), (0, 3), (slice(None), -1), (slice(None), slice(0, 1)), (0, 0, 0)):
        with pytest.raises(IndexError):
            result[wrong]
    with pytest.raises(GristmillError, match="ragged"):
        _ = result.zarr
    with pytest.raises(GristmillError, match="ragged"):
        result.masked()


def test_ragged_below_ragged_and_products_with_it(executor: str) -> None:
    letters = node(lambda word: list(word), output_name="letter", mapspec="word[i, j] -> letter[i, j, *k]")
    times = node(
        lambda letter, n: letter * n, output_name="m", mapspec="letter[i, j, k], n[b] -> m[i, j, k, b]"
    )
    back = node(lambda m: m, output_name="back", mapspec="m[i, j, :, :] -> back[i, j]")
    pipeline = Pipeline([WORDS, letters, times, back])
    given = {"text": ["ab c", "", "d"], "n": [1, 2]}
    result = pipeline.map(given, map_executor=executor, output_name=["letter", "m", "back"])
    assert result["letter"].tolist() == [[["a", "b"], ["c"]], [], [["d"]]]
    assert result["m"].tolist() == [[[["a", "aa"], ["b", "bb"]], [["c", "cc"]]], [], [[["d", "dd"]]]]
    assert [[inner.tolist() for inner in row] for row in result["back"].tolist()] == result["m"].tolist()


def test_two_ragged_outputs_of_one_length_are_zipped_and_others_refused(executor: str) -> None:
    lengths = node(
        lambda text: [len(w) for w in text.split()], output_name="size", mapspec="text[i] -> size[i, *j]"
    )
    sizes = node(lambda text, n: list(range(n)), output_name="size", mapspec="text[i], n[i] -> size[i, *j]")
    both = node(
        lambda word, size: f"{word}{size}", output_name="b", mapspec="word[i, j], size[i, j] -> b[i, j]"
    )
    texts = {"text": ["aa b", "ccc"]}
    assert Pipeline([WORDS, lengths, both]).map(texts, map_executor=executor)["b"].tolist() == [
        ["aa2", "b1"],
        ["ccc3"],
    ]
    with pytest.raises(
        InputError, match=r"'size' and 'word' are zipped .*ragged axis 'j' at \(1,\).* length 2 .* 1"
    ):
        Pipeline([WORDS, sizes, both]).map({**texts, "n": [2, 2]}, map_executor=executor)


def test_lengths_that_differ_have_to_be_declared(executor: str) -> None:
    dense = node(words, output_name="word", mapspec="text[i] -> word[i, j]")
    with pytest.raises(
        RaggedError, match=r"2 elements along 'j' at index \(0,\), and 1 at \(1,\).*word\[i, \*j\]"
    ):
        Pipeline([dense]).map({"text": ["a b", "c"]}, map_executor=executor)


@pytest.mark.parametrize("returned", ["text", {"a": 1}, 3, {1, 2}])
def test_what_is_no_sequence_fails_its_call(returned: Any, executor: str) -> None:
    spread = node(lambda: returned, output_name="x", mapspec="... -> x[i]")
    with pytest.raises(InputError, match=r"what .* returned is spread over"):
        Pipeline([spread]).map({}, map_executor=executor)


def test_outputs_of_one_call_have_one_length(executor: str) -> None:
    spread = node(lambda: ([1, 2], [1]), output_name=("x", "y"), mapspec="... -> x[i], y[i]")
    with pytest.raises(InputError, match="have to be the same"):
        Pipeline([spread]).map({}, map_executor=executor)


def test_only_what_is_new_is_computed(log: CallLog, executor: str) -> None:
    path = log.path

    def split(text: str) -> list[str]:
        record(path, "split", text)
        return text.split("+")

    def double(part: str) -> str:
        record(path, "double", part)
        return 2 * part

    def joined(double: Any) -> str:
        record(path, "joined", *double)
        return "".join(double)

    nodes = [
        node(split, output_name="part", mapspec="text[i] -> part[i, *j]"),
        node(double, mapspec="part[i, j] -> double[i, j]"),
        node(joined, mapspec="double[i, :] -> joined[i]"),
    ]
    pipeline = Pipeline(nodes)
    pipeline.map({"text": ["a+b", "c"]}, map_executor=executor)
    assert len(log.take()) == 2 + 3 + 2
    again = pipeline.map({"text": ["a+b", "c"]}, map_executor=executor)
    assert (log.take(), again.stats.computed, again.stats.cached) == ([], 0, 7)
    pipeline.map({"text": ["a+b+d", "c", "b"]}, map_executor=executor)
    expected = ["double d", "joined aa bb dd", "joined bb", "split a+b+d", "split b"]
    assert log.take() == expected


def test_what_a_failed_call_would_have_made_is_missing(executor: str) -> None:
    def picky(text: str) -> list[str]:
        if not text:
            raise ValueError("nothing")
        return text.split()

    nodes = [
        node(picky, output_name="word", mapspec="text[i] -> word[i, *j]"),
        UPPER,
        node(lambda upper: "".join(upper), output_name="line", mapspec="upper[i, :] -> line[i]"),
        node(lambda upper: len(upper), output_name="count"),
        node(lambda upper: [len(row) for row in upper], output_name="rest", errors="drop"),
    ]
    names = ["upper", "line", "count", "rest"]
    result = Pipeline(nodes).map(
        {"text": ["a b", "", "c"]}, on_error="continue", map_executor=executor, output_name=names
    )
    assert result["line"].tolist() == ["AB", None, "C"]
    assert [row.tolist() for row in result["upper"].missing] == [[False, False], [True], [False]]
    assert result["rest"] == [2, 0, 1]
    assert [type(one.error) for one in result.errors] == [ValueError]
    with pytest.raises(GristmillError, match="no value"):
        result["count"]


def test_large_elements_are_chunks_of_their_own(tmp_path: Path, executor: str) -> None:
    def frames(x: int) -> Any:
        return np.full((3, 20_000), float(x)) + np.arange(3)[:, None]

    def peak(frame: Any) -> float:
        return float(frame.max())

    with Store(tmp_path / "store") as store:
        nodes = [
            node(frames, output_name="frame", mapspec="x[i] -> frame[i, j]"),
            node(peak, mapspec="frame[i, j] -> peak[i, j]"),
        ]
        pipeline = Pipeline(nodes, store=store)
        result = pipeline.map({"x": [10, 20]}, map_executor=executor, output_name=["frame", "peak"])
        assert np.asarray(result["peak"]).tolist() == [[10, 11, 12], [20, 21, 22]]
        assert result["frame"].shape == (2, 3, 20_000)
        assert len([path for path in (store.location / "chunks").rglob("*") if path.is_file()]) == 6
        assert result["frame"].zarr.chunks == (1, 1, 20_000)


def test_elements_that_are_lost_are_made_again(tmp_path: Path, log: CallLog, executor: str) -> None:
    path = log.path

    def frames(x: int) -> Any:
        record(path, "frames", x)
        return np.full((3, 20_000), float(x)) + np.arange(3)[:, None]

    def peak(frame: Any, k: int) -> float:
        return float(frame.max()) * k

    nodes = [
        node(frames, output_name="frame", mapspec="x[i] -> frame[i, j]"),
        node(peak, mapspec="frame[i, j] -> peak[i, j]"),
    ]
    with Store(tmp_path / "store") as store:
        Pipeline(nodes, store=store).map({"x": [10, 20], "k": 1}, map_executor=executor)
        log.take()
        for chunk in (store.location / "chunks").rglob("*"):
            if chunk.is_file() and np.frombuffer(chunk.read_bytes()[:8])[0] == 21.0:
                chunk.unlink()
    with Store(tmp_path / "store") as store:
        pipeline = Pipeline(nodes, store=store)
        result = pipeline.map({"x": [10, 20], "k": 2}, map_executor=executor, output_name=["frame", "peak"])
        assert np.asarray(result["peak"]).tolist() == [[20, 22, 24], [40, 42, 44]]
        assert log.take() == ["frames 20"]
        chosen = next(
            chunk
            for chunk in (store.location / "chunks").rglob("*")
            if chunk.is_file() and np.frombuffer(chunk.read_bytes()[:8])[0] == 11.0
        )
        chosen.unlink()
        assert result["frame"][0, 1][0] == 11.0
        assert log.take() == ["frames 10"]


def test_no_call_makes_no_element(executor: str) -> None:
    lines = node(lambda upper: len(upper), output_name="count")
    result = Pipeline([WORDS, UPPER, lines]).map(
        {"text": []}, map_executor=executor, output_name=["upper", "count"]
    )
    assert (result["upper"].tolist(), result["count"]) == ([], 0)
    none = node(list, output_name="x", mapspec="... -> x[i]")
    assert Pipeline([none]).map({}, map_executor=executor)["x"].tolist() == []


def test_it_is_passed_on_by_reference(executor: str) -> None:
    made = Pipeline([WORDS]).map({"text": ["a b", "c"]}, map_executor=executor)["word"]
    lines = node(lambda word: " ".join(word), output_name="line", mapspec="word[i, :] -> line[i]")
    total = node(lambda word: sum(map(len, word)), output_name="total")
    result = Pipeline([UPPER, lines, total]).map({"word": made}, map_executor=executor)
    assert (result["upper"].tolist(), result["line"].tolist()) == ([["A", "B"], ["C"]], ["a b", "c"])
    whole = Pipeline([WORDS, UPPER, lines, total])
    assert whole.map({"text": ["a b", "c"]}, map_executor=executor).stats.computed == 0


def test_explain_says_that_nobody_can_count_yet() -> None:
    pipeline = Pipeline([WORDS, UPPER])
    assert "says how many calls there are" in str(pipeline.explain({"text": ["a b"]})["upper"])
    assert "i=? × j=?" in str(pipeline.plan({"text": ["a b"]}))
    pipeline.map({"text": ["a b"]})
    assert pipeline.explain({"text": ["a b"]}).hits == 3
    assert pipeline.plan({"text": ["a b"]}).compute == 0


def test_run_gives_arrays() -> None:
    counts = node(lambda n: list(range(n)), output_name="x", mapspec="... -> x[i]")
    total = node(lambda x: int(x.sum()), output_name="total")
    found = Pipeline([counts, total]).run({"n": 4}, output_name=["x", "total"])
    assert (found["x"].tolist(), found["total"]) == ([0, 1, 2, 3], 6)


def test_a_record_names_the_elements_too(tmp_path: Path, log: CallLog, executor: str) -> None:
    path = log.path

    def twice(x: int) -> list[int]:
        record(path, "twice", x)
        return [x, 10 * x]

    nodes = [
        node(twice, output_name="y", mapspec="x[i] -> y[i, j]"),
        node(lambda y: y + 1, output_name="z", mapspec="y[i, j] -> z[i, j]"),
    ]
    with Store(tmp_path / "store") as store:
        pipeline = Pipeline(nodes, store=store)
        made = pipeline.map({"x": [1, 2]}, map_executor=executor, output_name=["y", "z"])
        loaded = store.load(made.run_id)
        assert (loaded["y"].tolist(), loaded["z"].tolist()) == ([[1, 10], [2, 20]], [[2, 11], [3, 21]])
        del made, loaded
        store.gc(keep_runs=1)
        assert store.verify().ok
        log.take()
        again = pipeline.map({"x": [1, 2]}, map_executor=executor)
        assert (again.stats.computed, log.take()) == (0, [])


def test_a_ragged_output_is_loaded_as_what_it_is(executor: str) -> None:
    pipeline = Pipeline([WORDS, UPPER])
    made = pipeline.map({"text": ["a b", "c"]}, map_executor=executor)
    assert pipeline.store is not None
    loaded = pipeline.store.load(made.run_id)
    assert list(loaded) == list(made)
    for name in made:
        assert loaded[name].tolist() == made[name].tolist()


def test_a_ragged_axis_of_one_call_has_one_length(executor: str) -> None:
    pipeline = Pipeline(
        [
            node(lambda text: text.split(), output_name="word", mapspec="... -> word[*j]"),
            node(len, output_name="size", mapspec="word[j] -> size[j]", renames={"obj": "word"}),
            node(lambda size: size.sum(), output_name="sum"),
        ]
    )
    result = pipeline.map({"text": "a bcd ef"}, output_name=["word", "sum"], map_executor=executor)
    assert (result["word"].tolist(), int(result["sum"])) == (["a", "bcd", "ef"], 6)
    assert pipeline.map({"text": ""}, map_executor=executor)["sum"] == 0


def test_the_last_of_several_may_have_nothing_below_it(executor: str) -> None:
    pipeline = Pipeline(
        [
            node(lambda text: text.split(), output_name="word", mapspec="text[i] -> word[i, *j]"),
            node(
                lambda word: list(word.strip("-")),
                output_name="letter",
                mapspec="word[i, j] -> letter[i, j, *k]",
            ),
            node(
                str.upper,
                output_name="upper",
                mapspec="letter[i, j, k] -> upper[i, j, k]",
                renames={"self": "letter"},
            ),
            node(lambda upper: "".join(upper), output_name="back", mapspec="upper[i, j, :] -> back[i, j]"),
            node(lambda back: "/".join(back), output_name="line", mapspec="back[i, :] -> line[i]"),
        ]
    )
    given_ = {"text": ["ab -", "- -", "", "c d -", "-"]}
    result = pipeline.map(given_, map_executor=executor, output_name=["back", "line"])
    assert result["back"].tolist() == [["AB", ""], ["", ""], [], ["C", "D", ""], [""]]
    assert result["line"].tolist() == ["AB/", "/", "", "C/D/", ""]
