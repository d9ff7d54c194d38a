"""Random pipelines: whatever is mapped, reduced, cached, pruned or failing, the result is that of plain loops."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.calls import CallLog, record

from gristmill import Node, Pipeline, Store, node
from gristmill.identity.digest import checksum

AXES = ("i", "j")
INPUTS = {"xi": ("i",), "xj": ("j",), "xij": ("i", "j"), "k": ()}
KINDS = ("int", "str", "list", "small array", "large array", "dict")


class RefusedError(Exception):
    """What a function of these pipelines raises."""


@dataclass(frozen=True)
class Spec:
    """One node: what it takes, over which axes it runs, what kind of value it makes."""

    name: str
    parameters: tuple[str, ...]
    axes: tuple[str, ...]
    kind: str
    fails: bool
    cache: bool
    as_list: bool

    def indexed(self, parameter: str, axes: Sequence[str]) -> str:
        """The parameter as the mapspec has it; "" where the function gets all of it."""
        shown = [axis if axis in self.axes else ":" for axis in axes]
        return f"{parameter}[{', '.join(shown)}]" if set(shown) - {":"} else ""


@st.composite
def specs(draw: st.DrawFn) -> tuple[Spec, ...]:
    known: dict[str, tuple[str, ...]] = dict(INPUTS)
    made = []
    for number in range(draw(st.integers(1, 6))):
        parameters = draw(st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=3, unique=True))
        possible = {axis for parameter in parameters for axis in known[parameter]}
        axes = tuple(axis for axis in draw(st.permutations(AXES)) if axis in possible and draw(st.booleans()))
        kind = draw(st.sampled_from(KINDS))
        fails, cache, as_list = draw(st.booleans()), draw(st.integers(0, 4)) > 0, draw(st.booleans())
        made.append(Spec(f"n{number}", tuple(parameters), axes, kind, fails, cache, as_list))
        known[f"n{number}"] = axes
    return tuple(made)


# -- what the functions do


def plain(value: Any) -> Any:
    """A value as nested lists, so that an array and a list of the same elements are the same."""
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return value


def compute(name: str, kind: str, fails: bool, arguments: Sequence[Any]) -> Any:  # noqa: FBT001 - part of the spec
    number = int.from_bytes(checksum(repr((name, plain(list(arguments)))).encode())[:2], "little")
    if fails and number % 4 == 0:
        raise RefusedError(name)
    number %= 7  # few values, so that many calls are equal
    match kind:
        case "int":
            return number
        case "str":
            return "s" * number
        case "list":
            return [number] * (number % 3)
        case "small array":
            return np.arange(3) + number
        case "large array":
            return np.full(9000, number)
        case _:
            return {"n": number, "a": np.arange(number)}


def short(value: Any) -> str:
    return checksum(repr(plain(value)).encode()).hex()


def make_node(spec: Spec, log: str, known: Mapping[str, Sequence[str]]) -> Node:
    name, kind, fails = spec.name, spec.kind, spec.fails

    def call(arguments: Sequence[Any]) -> Any:
        value = compute(name, kind, fails, arguments)
        record(log, name, short(list(arguments)))
        return value

    def one(a: Any) -> Any:
        return call([a])

    def two(a: Any, b: Any) -> Any:
        return call([a, b])

    def three(a: Any, b: Any, c: Any) -> Any:
        return call([a, b, c])

    function: Callable[..., Any] = (one, two, three)[len(spec.parameters) - 1]
    if spec.as_list:
        function.__annotations__.update(dict.fromkeys("abc"[: len(spec.parameters)], list))
    indexed = [text for p in spec.parameters if (text := spec.indexed(p, known[p]))]
    mapspec = f"{', '.join(indexed)} -> {name}[{', '.join(spec.axes)}]" if spec.axes else None
    renames = dict(zip("abc", spec.parameters, strict=False))
    return node(function, output_name=name, mapspec=mapspec, renames=renames, cache=spec.cache)


# -- what plain loops give

MISSING = object()


class Loops:
    """The same pipeline in plain loops."""

    def __init__(self, nodes: Sequence[Spec], inputs: Mapping[str, Any], extents: Mapping[str, int]) -> None:
        self._extents = extents
        self._axes = {**INPUTS, **{spec.name: spec.axes for spec in nodes}}
        self._values: dict[str, dict[tuple[int, ...], Any]] = {}
        for name, axes in INPUTS.items():
            self._values[name] = {index: _at(inputs[name], index) for index in self._indices(axes)}
        self.calls: set[str] = set()
        for spec in nodes:
            self._values[spec.name] = {index: self._call(spec, index) for index in self._indices(spec.axes)}

    def result(self, name: str) -> Any:
        return self._gather(name, {})

    def _indices(self, axes: Sequence[str]) -> list[tuple[int, ...]]:
        return list(itertools.product(*(range(self._extents[axis]) for axis in axes)))

    def _call(self, spec: Spec, index: tuple[int, ...]) -> Any:
        fixed = dict(zip(spec.axes, index, strict=True))
        arguments = [self._gather(parameter, fixed) for parameter in spec.parameters]
        if any(_has_missing(argument) for argument in arguments):
            return MISSING
        try:
            value = compute(spec.name, spec.kind, spec.fails, arguments)
        except RefusedError:
            return MISSING
        self.calls.add(f"{spec.name} {short(arguments)}")
        return value

    def _gather(self, name: str, fixed: Mapping[str, int]) -> Any:
        """An element, or nested lists over the axes that are not fixed."""

        def nested(chosen: tuple[int, ...]) -> Any:
            if len(chosen) == len(self._axes[name]):
                return self._values[name][chosen]
            axis = self._axes[name][len(chosen)]
            if axis in fixed:
                return nested((*chosen, fixed[axis]))
            return [nested((*chosen, k)) for k in range(self._extents[axis])]

        return nested(())


def _at(value: Any, index: tuple[int, ...]) -> Any:
    for k in index:
        value = value[k]
    return value


def _has_missing(value: Any) -> bool:
    return value is MISSING or (isinstance(value, list) and any(map(_has_missing, value)))


def _with_none(value: Any) -> Any:
    if value is MISSING:
        return None
    return [_with_none(item) for item in value] if isinstance(value, list) else plain(value)


# -- the comparison

NUMBERS = st.integers(0, 4)


@st.composite
def inputs_(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, int]]:
    ni, nj = draw(st.integers(0, 4)), draw(st.integers(0, 3))
    given_ = {
        "xi": draw(st.lists(NUMBERS, min_size=ni, max_size=ni)),
        "xj": draw(st.lists(NUMBERS, min_size=nj, max_size=nj)),
        "xij": np.array(draw(st.lists(NUMBERS, min_size=ni * nj, max_size=ni * nj)), dtype=int).reshape(
            ni, nj
        ),
        "k": draw(NUMBERS),
    }
    return given_, {"i": ni, "j": nj}


def check(
    pipeline: Pipeline, nodes: Sequence[Spec], turn: Any, executor: str, log: CallLog, made: set[str]
) -> None:
    (given_, extents), asked = turn
    names = [spec.name for spec in nodes]
    wanted = [name for name, chosen in zip(names, asked, strict=False) if chosen] or names[-1:]
    kept = {name: given_[name] for name in pipeline.inputs}
    result = pipeline.map(kept, output_name=wanted, on_error="continue", map_executor=executor)
    loops = Loops(nodes, given_, extents)
    axes = {spec.name: spec.axes for spec in nodes}
    for name in wanted:
        expected = loops.result(name)
        if axes[name]:
            assert plain(result[name].tolist()) == _with_none(expected), name
        elif expected is not MISSING:
            assert plain(result[name]) == plain(expected), name
    if 0 in extents.values():
        log.take()  # arrays of no elements are told apart by their shapes, which lists do not have
        return
    cached = {spec.name for spec in nodes if spec.cache}
    executed = [call for call in log.take() if call.split()[0] in cached]
    assert len(executed) == len(set(executed))
    assert not made & set(executed)
    assert set(executed) <= loops.calls
    made |= set(executed)


@settings(max_examples=70, suppress_health_check=[HealthCheck.too_slow])
@given(
    nodes=specs(),
    turns=st.lists(st.tuples(inputs_(), st.lists(st.booleans(), max_size=6)), min_size=1, max_size=3),
)
def test_random_pipelines_are_what_loops_are(nodes: tuple[Spec, ...], turns: list[Any]) -> None:
    compare(nodes, turns, ["sequential"])


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(
    nodes=specs(),
    turns=st.lists(st.tuples(inputs_(), st.lists(st.booleans(), max_size=6)), min_size=1, max_size=3),
)
def test_random_pipelines_in_parallel(nodes: tuple[Spec, ...], turns: list[Any]) -> None:
    compare(nodes, turns, ["parallel", "sequential"])


def compare(nodes: tuple[Spec, ...], turns: list[Any], executors: list[str]) -> None:
    known = {**INPUTS, **{spec.name: spec.axes for spec in nodes}}
    with TemporaryDirectory() as directory, Store(Path(directory) / "store") as store:
        log = CallLog(Path(directory) / "calls.log")
        pipeline = Pipeline(
            [make_node(spec, log.path, known) for spec in nodes], store=store, validate_types=False
        )
        made: set[str] = set()
        for turn, executor in zip(turns, itertools.cycle(executors), strict=False):
            check(pipeline, nodes, turn, executor, log, made)
