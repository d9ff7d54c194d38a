"""Random edits of a program: never a stale value, and exactly the predicted calls are executed.

A small package is generated, and then edited: bodies, helpers, classes, globals, constants, inputs, how it is
run. A model knows which definitions each node can reach and which calls have been made of it in that form.
"""

import functools
import importlib
import itertools
import json
import os
import re
import sys
import traceback
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.support.calls import CallLog
from tests.support.programs import Program, running

from gristmill import Pipeline, Store
from gristmill.engine import batches

# -- what the program is made of

PACKAGE = "edited"

TOOLS = """\
import zlib

import numpy as np
from tests.support.calls import record


def weigh(value):
    if isinstance(value, np.ndarray):
        value = value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, set):
        value = sorted(value)
    return zlib.crc32(repr(value).encode()) % 4


def number(value):
    if isinstance(value, np.ndarray):
        return value.sum().item()
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return sum(map(number, value))
    return len(str(value)) if value is None or isinstance(value, str) else value
"""
"""Never edited: every type of value becomes a small number, with many values that become the same one."""

HEAD = f"""\
import functools
from dataclasses import dataclass

import numpy as np
from {PACKAGE}.tools import number, record, weigh
"""

NUMBERS = ("0", "1", "True", "1.0", "2", "2.0", "False", "0.0", "-0.0")

ALIKE = (
    ("[1, 2]", "[2, 1]", "[1, True]", "[1, 2.0]", "[[1], 2]"),
    ("{'a': 1, 'b': [2]}", "{'b': [2], 'a': 1}", "{'a': True, 'b': [2]}", "{'a': 1, 'b': [2.0]}"),
    ("{1, 2}", "{1, 3}"),
    ("bytearray(b'ab')", "bytearray(b'ba')"),
    ("np.array([1, 2, 3])", "np.array([1, 2, 4])"),
    ("np.array([[1, 2], [3, 4]])", "np.array([[1, 3], [2, 4]])"),
    ("np.arange(5000)", "np.where(np.arange(5000) == 2500, 7, np.arange(5000))"),
)
"""Groups of values that can be changed into each other in place."""

VALUES = (
    *("1", "True", "1.0", "'1'", "b'1'", "None", "-0.0", "0.0", "1.5 + 2j", "(1, 2)", "range(3)"),
    *("np.int64(1)", "np.array([1, 2, 3], dtype=np.int32)", "np.array([1.0, 2.0, 3.0])"),
    *itertools.chain.from_iterable(ALIKE),
)
"""Of globals and class attributes; no two are the same value."""

SPELLINGS = {
    "[1, 2]": "list((1, 2))",
    "{1, 2}": "{2, 1}",
    "{'a': 1, 'b': [2]}": "dict(a=1, b=[2])",
    "range(3)": "range(0, 3)",
    "np.array([1, 2, 3])": "np.array([1, 9, 2, 9, 3])[::2]",
    "np.array([[1, 2], [3, 4]])": "np.array([[1, 2], [3, 4]], order='F')",
    "1": "2 - 1",
}
"""The same value, written otherwise."""

FORMS = (
    *("total % 5", "[total % 5]", "str(total % 5)", "np.full(3, total % 5)", "np.full(9000, total % 3)"),
    *("{'total': total % 5}", "(total % 3, None)", "bool(total % 2)", "total % 3 if total % 2 else None"),
    *("(total + weigh(L0)) % 5", "(total % 3, repr(L0)[:3])"),
)
"""What a node returns."""

DECORATORS = ("", "@d0", "@functools.lru_cache(maxsize=None, typed=True)")

CALLABLES = (
    *("functools.partial(h0, step=2)", "functools.partial(h0, step=True)", "functools.partial(h0, extra=2)"),
    *("adder(1)", "adder(True)", "adder([1, 2])", "adder([2, 1])", "adder(np.arange(3))", "h2"),
    *("K0(1).use", "K0(True).use", "K1(1).use", "lambda x: x % 3", "lambda x: x % 3.0"),
)

OBJECTS = ("K0(1)", "K0(1.0)", "K1(1)", "K2(1)", "K2(True)")

TABLES = (
    *("{'a': h0, 'b': h1}", "{'a': h1, 'b': h0}", "{'b': h1, 'a': h0}"),
    *("{'a': C0, 'b': h1}", "{'a': C0, 'b': h3}"),
)

CALLS = (
    *("h0(x)", "h1(x)", "h2(x)", "h3(x)", "h3(x, step=2)", "h3(x, extra=True)", "sum(h1(k) for k in [x, 1])"),
    *("max(map(h2, [x]))", "K0(1).use(x)", "K1(True).use(x)", "K2(1).use(x)", "K2.of(x)"),
    *("C0(x)", "C1(x)", "O0.use(x)", "T0['a'](x)"),
)
READS = (
    *("weigh(G0)", "weigh(G1)", "sum(weigh(G2) for _ in range(2))", "(lambda: weigh(G0))()"),
    *("(1 if isinstance(G1, list) else 0)", "len(repr(G2)) % 2"),
)
PLAIN = (
    *NUMBERS,
    *("x * 2", "x * 2.0", "sum(k * 1 for k in range(3))", "sum(k * True for k in range(3))", "len(f'{x}!')"),
    *("(lambda k, j=1: k + j)(x)", "(lambda k, j=1.0: k + j)(x)", "weigh((1, 1))", "weigh((1, True))"),
    *("weigh(1)", "weigh(True)", "weigh('1')", "weigh(-0.0)", "weigh(0.0)", "weigh(None)", "weigh(...)"),
)

FUNCTION = """\
{value}
def {name}(x, step={numbers[0]}, *, extra={numbers[1]}):
    total = x * step + extra + weigh({name!r})
    TERMS
    return total % 7 + {numbers[2]}
"""
DECORATOR = """\
def {name}(function):
    @functools.wraps(function)
    def wrapper(x, **options):
        total = function(x, **options) + {numbers[0]} + weigh({name!r})
        TERMS
        return total
    return wrapper
"""
FACTORY = """\
def {name}(n):
    def inner(x):
        total = x + weigh(n) + {numbers[0]}
        TERMS
        return total % 7
    return inner
"""
CLASS = """\
class {name}:
    size = {value}
    def __init__(self, start={numbers[0]}):
        self.start = start
    def use(self, x):
        total = x + self.start + weigh(self.size) + {numbers[1]}
        TERMS
        return total % 7
"""
SUBCLASS = """\
class {name}(K0):
    size = {value}
    def use(self, x):
        total = super().use(x) + {numbers[0]}
        TERMS
        return total
"""
DATACLASS = """\
@dataclass
class {name}:
    start: float = {numbers[0]}
    size = {value}
    def use(self, x):
        return x + self.start + weigh(self.size)
    @staticmethod
    def of(x):
        total = x + {numbers[1]}
        TERMS
        return total % 7
"""
GLOBAL = "{name} = {value}"
NODE = """\
def {name}(<parameters>, log, scale_{name}={numbers[0]}):
    IMPORTS
    record(log, {name!r}, repr([<arguments>, scale_{name}]))
    x = number([<arguments>]) * scale_{name} % 11
    total = x + {numbers[1]}
    TERMS
    return {value}
"""

TEMPLATES = {
    **dict.fromkeys(("h0", "h1", "h2", "h3"), (FUNCTION, DECORATORS)),
    "d0": (DECORATOR, ("",)),
    "adder": (FACTORY, ("",)),
    "K0": (CLASS, VALUES),
    "K1": (SUBCLASS, VALUES),
    "K2": (DATACLASS, VALUES),
    **dict.fromkeys(("G0", "G1", "G2"), (GLOBAL, VALUES)),
    **dict.fromkeys(("C0", "C1"), (GLOBAL, CALLABLES)),
    "O0": (GLOBAL, OBJECTS),
    "T0": (GLOBAL, TABLES),
}
"""Everything in the module of helpers, and with what its gap `value` is filled."""

RANKS = {"d0": 0, "K0": 0, "adder": 0, "C0": 2, "C1": 2, "O0": 2, "T0": 3}
"""What is needed when the module is imported comes first; 1 is the rank of the others."""

NODES = ("n0", "n1", "n2", "n3")
LOCAL = "L0"
"""A global of the nodes' own module."""

INPUTS: dict[str, tuple[str, ...]] = {"x": ("i",), "y": ("j",), "k": ()}


class Looks(NamedTuple):
    """How a definition is written, which never counts."""

    docstring: str = ""
    comment: str = ""
    annotated: bool = False
    broken: bool = False
    respelt: bool = False

    def lines(self, text: str) -> Iterator[str]:
        """The lines of a definition, written like that."""
        for line in filter(str.strip, text.splitlines()):
            code = line.lstrip()
            indent = line[: -len(code)]
            shown = line
            if self.annotated and code.startswith("def "):
                shown = line.removesuffix(":") + " -> object:"
            if self.broken and code.startswith("total += "):
                shown = f"{indent}total += (\n\n{indent}  {code.removeprefix('total += ')}\n{indent})"
            if self.comment:
                yield f"{indent}# {self.comment}\n\n"
                shown += f"  # {self.comment}"
            yield shown
            if self.docstring and code.startswith(("def ", "class ")):
                yield f'{indent}    """{self.docstring}"""'


@dataclass(frozen=True)
class Piece:
    """One definition: a template, and what fills its gaps."""

    name: str
    template: str
    numbers: tuple[str, ...]
    value: str
    terms: tuple[str, ...]
    looks: Looks

    def text(self) -> str:
        """What counts: the definition without its looks."""
        terms = self.terms if self.name in NODES else map(_guarded, self.terms)
        text = self.template.format(name=self.name, numbers=self.numbers, value=self.value)
        return re.sub("^( *)TERMS\n", lambda found: _added(found[1], terms), text, flags=re.MULTILINE)

    def source(self) -> str:
        """The definition as it is written."""
        spelt = SPELLINGS.get(self.value, self.value) if self.looks.respelt else self.value
        return "\n".join(self.looks.lines(replace(self, value=spelt).text())) + "\n\n"


def _guarded(term: str) -> str:
    """A call that ends, whatever calls whatever."""
    half = re.sub(r"\bx\b", "x // 2", term)
    return f"({half} if x > 3 else 0)" if term in CALLS else term


def _added(indent: str, terms: Iterable[str]) -> str:
    return "".join(f"{indent}total += {term}\n" for term in terms)


@functools.cache
def names_in(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\b[A-Za-z]\w*\b", text))


@dataclass(frozen=True)
class Spec:
    """One node: what it takes, over which axes it runs, and how it refers to the helpers."""

    name: str
    parameters: tuple[str, ...]
    axes: tuple[str, ...]
    style: str

    def template(self, known: Mapping[str, Sequence[str]]) -> str:
        shown = [f"{p}: list" if set(known[p]) - set(self.axes) else p for p in self.parameters]
        template = NODE.replace("<parameters>", ", ".join(shown))
        return template.replace("<arguments>", ", ".join(self.parameters))

    def mapspec(self, known: Mapping[str, Sequence[str]]) -> str | None:
        indexed = []
        for parameter in self.parameters:
            shown = [axis if axis in self.axes else ":" for axis in known[parameter]]
            if set(shown) - {":"}:
                indexed.append(f"{parameter}[{', '.join(shown)}]")
        return f"{', '.join(indexed)} -> {self.name}[{', '.join(self.axes)}]" if self.axes else None

    def refer(self, source: str) -> str:
        """Let the node's source refer to the helpers in the way of this node."""
        names = "|".join(sorted(names_in(source) & TEMPLATES.keys()))
        if self.style == "module" and names:
            source = re.sub(rf"\b({names})\b", r"helpers.\1", source)
        inside = self.style == "inside" and names
        imports = f"from {PACKAGE}.helpers import {names.replace('|', ', ')}" if inside else ""
        return source.replace("IMPORTS", imports)


@dataclass(frozen=True)
class Source:
    """The program at some moment; an edit makes another one."""

    specs: tuple[Spec, ...]
    pieces: Mapping[str, Piece]
    order: tuple[str, ...]
    """The order of definitions in their files."""

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: FBT001 - hypothesis shows it with this
        printer.text("\n" + "\n".join(self.files().values()))

    def axes(self) -> dict[str, tuple[str, ...]]:
        return {**INPUTS, **{spec.name: spec.axes for spec in self.specs}}

    def needed(self, wanted: Iterable[str]) -> list[Spec]:
        """The nodes that make what is wanted, in an order in which they can run."""
        found = set(wanted)
        for spec in reversed(self.specs):
            found |= set(spec.parameters) if spec.name in found else set()
        return [spec for spec in self.specs if spec.name in found]

    def files(self) -> dict[str, str]:
        """The text of each module, in the order in which they are imported."""
        helpers = [self.pieces[name].source() for name in self._ordered() if name in TEMPLATES]
        specs = {spec.name: spec for spec in self.specs}
        written = {name: self.pieces[name].source() for name in self.order if name in {LOCAL, *specs}}
        used = set().union(
            *(names_in(t) for n, t in written.items() if n in specs and specs[n].style == "name")
        )
        jobs = [specs[n].refer(text) if n in specs else text for n, text in written.items()]
        names = "".join(f"from {PACKAGE}.helpers import {name}\n" for name in sorted(used & TEMPLATES.keys()))
        known = self.axes()
        listed = [f"({name}, {specs[name].mapspec(known)!r})" for name in self.order if name in specs]
        tail = f"NODES = [{', '.join(listed)}]\n".replace(", None)", ")")
        return {
            "helpers": "".join([HEAD, *helpers]),
            "jobs": "".join([HEAD, f"from {PACKAGE} import helpers\n", names, *jobs, tail]),
        }

    def plain(self) -> dict[str, Any]:
        """Everything in one namespace, without gristmill and without a log."""
        texts = [self.pieces[name].text().replace("IMPORTS", "") for name in self._ordered()]
        head = "\n".join(HEAD.splitlines()[:-1])
        space: dict[str, Any] = {"__name__": __name__}
        exec("\n".join([head, TOOLS, *texts]), space)
        space["record"] = lambda *_: None
        return space

    def meaning(self, name: str) -> frozenset[str]:
        """The text of every definition that can be reached from one."""
        return frozenset(self.pieces[one].text() for one in self.reach(name))

    def reach(self, name: str) -> set[str]:
        """The names of these definitions."""
        found, work = {name}, [name]
        while work:
            new = (names_in(self.pieces[work.pop()].text()) & {*TEMPLATES, LOCAL}) - found
            found |= new
            work += new
        return found

    def _ordered(self) -> list[str]:
        return sorted(filter(self.pieces.__contains__, self.order), key=lambda name: RANKS.get(name, 1))


# -- what plain Python gives, and what has been called


class Model:
    """The calls that have been made so far, of whatever version of the program."""

    def __init__(self) -> None:
        self._made: set[tuple[object, ...]] = set()

    def predict(
        self, source: Source, given: Mapping[str, Any], wanted: Sequence[str]
    ) -> tuple[dict[str, Any], list[str]]:
        """Return what is wanted, and the calls that have not been made before."""
        space, axes = source.plain(), source.axes()
        extents = {"i": len(given["x"]), "j": len(given["y"])}
        values: dict[str, Any] = dict(given)
        new: list[str] = []

        def evaluate(
            spec: Spec, meaning: frozenset[str], left: Sequence[str], index: Mapping[str, int]
        ) -> Any:
            if left:
                indices = ({**index, left[0]: k} for k in range(extents[left[0]]))
                return [evaluate(spec, meaning, left[1:], one) for one in indices]
            arguments = [delivered(values[name], axes[name], index) for name in spec.parameters]
            words = f"{spec.name} {[*arguments, space[spec.name].__defaults__[0]]!r}"
            shapes = tuple(extents[axis] for p in spec.parameters for axis in axes[p] if axis not in index)
            if (call := (spec.name, meaning, words, shapes)) not in self._made:
                self._made.add(call)
                new.append(words)
            return space[spec.name](*arguments, log="")

        for spec in source.needed(wanted):
            values[spec.name] = evaluate(spec, source.meaning(spec.name), spec.axes, {})
        return {name: repr(values[name]) for name in wanted}, sorted(new)


def delivered(value: Any, axes: Sequence[str], index: Mapping[str, int]) -> Any:
    """What a call gets of a value: an element, or nested lists over the axes that the call does not fix."""
    if not axes:
        return value
    if axes[0] in index:
        return delivered(value[index[axes[0]]], axes[1:], index)
    return [delivered(one, axes[1:], index) for one in value]


# -- running it


class How(NamedTuple):
    """Where and how the program runs next."""

    place: str = "reload"
    """The program is reloaded, imported anew into this process, or run by a process that has never seen it."""
    executor: str = "sequential"
    workers: int = 1
    batch: int = batches.MAX_ITEMS
    """How many indices a batch has at most."""


def play(store: Store, given: Mapping[str, Any], wanted: Sequence[str], how: How) -> dict[str, Any]:
    """Run the program as this process has it; return the results as text, and how many calls that took."""
    jobs = importlib.import_module(f"{PACKAGE}.jobs")
    pipeline = Pipeline(jobs.NODES, store=store)
    needed = {name: given[name] for name in pipeline.inputs if name in given}
    with mock.patch.object(batches, "MAX_ITEMS", how.batch):
        result = pipeline.map(
            needed, output_name=list(wanted), map_executor=how.executor, max_workers=how.workers
        )
    mapped = {name for name, mapspec in pipeline.mapspecs.items() if mapspec}
    values = {name: result[name].tolist() if name in mapped else result[name] for name in wanted}
    return {
        "values": {name: repr(value) for name, value in values.items()},
        "computed": result.stats.computed,
    }


def serve() -> None:
    """Answer each request in a process of its own, forked before the program was imported."""
    for name in ("zarr", "numpy.ma", "gristmill.storage.ledger", "gristmill.observe.progress"):
        importlib.import_module(name)  # here, rather than in each of them
    for line in sys.stdin:
        if os.fork():
            os.wait()
            continue
        request = json.loads(line)
        sys.path.insert(0, request["directory"])
        try:
            with Store(request["store"]) as store:
                answer = play(store, request["given"], request["wanted"], How(*request["how"]))
        except Exception:  # noqa: BLE001 - the other process shows it
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)  # noqa: T201 - the answer
        os._exit(0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    script = tmp_path_factory.mktemp("server") / "serve.py"
    script.write_text(f"from {__name__} import serve\n\nserve()\n")
    with running(script, store=script.parent / "store") as program:
        yield program


def ask(server: Program, request: Mapping[str, Any]) -> dict[str, Any]:
    assert server.process.stdin is not None
    server.process.stdin.write(f"{json.dumps(request)}\n")
    server.process.stdin.flush()
    answer: dict[str, Any] = json.loads(server.line())
    return answer


CLOCK = itertools.count()


class Package:
    """The program on disk, and as this process has it."""

    def __init__(self, directory: Path) -> None:
        self._folder = directory / PACKAGE
        self._folder.mkdir()
        self._written: dict[str, str] = {}
        self._loaded: dict[str, str] = {}
        self.write({"__init__": "", "tools": TOOLS})

    def write(self, files: Mapping[str, str]) -> None:
        """Write the modules that are not on disk like that."""
        for name, text in files.items():
            if self._written.get(name) != text:
                path = self._folder / f"{name}.py"
                path.write_text(text)
                # Python takes a file of the same size and second for unchanged, and its compiled form for current.
                os.utime(path, (0, next(CLOCK)))
                self._written[name] = text

    def load(self, place: str) -> None:
        """Bring this process up to date; a module is reloaded if it, or one that it imports from, has changed."""
        importlib.invalidate_caches()
        modules = list(self._written)
        if place == "import" or not self._loaded:
            forget()
        else:
            changed = (n for n, name in enumerate(modules) if self._loaded[name] != self._written[name])
            for name in modules[next(changed, len(modules)) :]:
                importlib.reload(sys.modules[f"{PACKAGE}.{name}"])
        importlib.import_module(f"{PACKAGE}.jobs")
        self._loaded = dict(self._written)

    def change_in_place(self, name: str, value: str, files: Mapping[str, str]) -> None:
        """Give a live global another content, and write what amounts to the same, as far as it is loaded."""
        if self._loaded != self._written:
            return
        helpers = sys.modules[f"{PACKAGE}.helpers"]
        assign(getattr(helpers, name), eval(value, {"np": np}))
        for one in vars(helpers).values():
            if hasattr(one, "cache_clear"):
                one.cache_clear()
        self.write(files)
        self._loaded = dict(self._written)


def assign(live: Any, value: Any) -> None:
    """Make a mutable object equal to another."""
    if isinstance(live, dict | set):
        live.clear()
        live.update(value)
    else:
        live[:] = value


def forget() -> None:
    """Let the program be imported anew."""
    for name in list(sys.modules):
        if name.partition(".")[0] == PACKAGE:
            del sys.modules[name]


# -- random programs and edits

TERMS = st.one_of(*map(st.sampled_from, (CALLS, READS, PLAIN)))
LOOKS = st.builds(
    Looks,
    docstring=st.sampled_from(["", "Words.", "Other words."]),
    comment=st.sampled_from(["", "a note", "total = 0"]),
    annotated=st.booleans(),
    broken=st.booleans(),
    respelt=st.booleans(),
)
ELEMENTS = st.one_of(st.integers(-3, 12), st.sampled_from([True, False, 1.0, 2.5, -0.0]))
LISTS = st.lists(ELEMENTS, max_size=5)
WHICH = st.integers(0, 999)
NAMES = (*TEMPLATES, LOCAL, *NODES)
WITH_TERMS = tuple(name for name in NAMES if name in NODES or "TERMS" in TEMPLATES.get(name, ("",))[0])
WITH_VALUES = tuple(name for name in NAMES if name not in {"d0", "adder"})
GLOBALS = ("G0", "G1", "G2")


def values_of(name: str) -> Sequence[str]:
    """What may fill the gap `value` of a definition."""
    if name in NODES:
        return FORMS
    return VALUES if name == LOCAL else TEMPLATES[name][1]


@st.composite
def sources(draw: st.DrawFn) -> Source:
    known = dict(INPUTS)
    specs = []
    for name in NODES[: draw(st.integers(2, len(NODES)))]:
        parameters = draw(st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=2, unique=True))
        possible = sorted({axis for parameter in parameters for axis in known[parameter]})
        axes = tuple(axis for axis in draw(st.permutations(possible)) if draw(st.integers(0, 3)))
        specs.append(Spec(name, tuple(parameters), axes, draw(st.sampled_from(["name", "module", "inside"]))))
        known[name] = axes
    templates = {name: template for name, (template, _) in TEMPLATES.items()}
    templates |= {LOCAL: GLOBAL, **{spec.name: spec.template(known) for spec in specs}}
    pieces = {}
    for name, template in templates.items():
        numbers = tuple(draw(st.lists(st.sampled_from(NUMBERS), min_size=3, max_size=3)))
        terms = tuple(draw(st.lists(TERMS, min_size=1, max_size=3))) if name in WITH_TERMS else ()
        pieces[name] = Piece(name, template, numbers, draw(st.sampled_from(values_of(name))), terms, Looks())
    return Source(tuple(specs), pieces, tuple(draw(st.permutations(NAMES))))


class Edits(RuleBasedStateMachine):
    """One store, one program, and a sequence of edits.

    Parameters
    ----------
    server
        What runs the program in processes that have never seen it.
    ways
        How it is run: some of these, in turn.
    """

    def __init__(self, server: Program, ways: Sequence[How]) -> None:
        super().__init__()
        self.server = server
        self.ways = ways
        self.temporary = TemporaryDirectory()
        self.directory = Path(self.temporary.name)
        self.package = Package(self.directory)
        self.store = Store(self.directory / "store")
        self.log = CallLog(self.directory / "calls.log")
        self.model = Model()
        self.given: dict[str, Any] = {"log": self.log.path}
        self.wanted: set[str] = set()
        self.history: list[tuple[Source, dict[str, Any]]] = []
        self.hows = itertools.cycle([How()])
        sys.path.insert(0, str(self.directory))

    @initialize(
        source=sources(), x=LISTS, y=LISTS, which=st.lists(st.integers(0, 99), min_size=1, max_size=8)
    )
    def start(self, source: Source, x: list[Any], y: list[Any], which: list[int]) -> None:
        self.source = source
        self.given |= {"x": x, "y": y, "k": 1}
        self.hows = itertools.cycle([self.ways[n % len(self.ways)] for n in which])

    # -- edits of what counts

    @rule(which=WHICH, at=st.integers(0, 3), term=TERMS)
    def put_a_term(self, which: int, at: int, term: str) -> None:
        piece = self.pick(WITH_TERMS, which)
        self.edit(piece, terms=(*piece.terms[:at], term, *piece.terms[at + 1 :]))

    @rule(which=WHICH, at=st.integers(0, 3))
    def drop_a_term(self, which: int, at: int) -> None:
        piece = self.pick(WITH_TERMS, which)
        at %= max(1, len(piece.terms))
        self.edit(piece, terms=piece.terms[:at] + piece.terms[at + 1 :])

    @rule(which=WHICH, at=st.integers(0, 2), number=st.sampled_from(NUMBERS))
    def change_a_number(self, which: int, at: int, number: str) -> None:
        piece = self.pick(WITH_TERMS, which)
        self.edit(piece, numbers=(*piece.numbers[:at], number, *piece.numbers[at + 1 :]))

    @rule(which=WHICH, value=WHICH)
    def change_a_value(self, which: int, value: int) -> None:
        piece = self.pick(WITH_VALUES, which)
        choices = [choice for choice in values_of(piece.name) if choice != piece.value]
        self.edit(piece, value=choices[value % len(choices)])

    @rule(which=WHICH, value=WHICH)
    def change_a_global_in_place(self, which: int, value: int) -> None:
        piece = self.pick(GLOBALS, which)
        group = next((group for group in ALIKE if piece.value in group), ())
        choices = [choice for choice in group if choice != piece.value]
        if choices:
            new = choices[value % len(choices)]
            self.edit(piece, value=new)
            self.package.change_in_place(piece.name, new, self.source.files())
        else:
            self.edit(piece, value=ALIKE[value % len(ALIKE)][0])

    @rule(back=st.integers(0, 20), inputs=st.booleans())
    def go_back(self, back: int, inputs: bool) -> None:  # noqa: FBT001 - a drawn value
        earlier = self.history[:-1] or self.history
        self.source, given = earlier[-1 - back % len(earlier)]
        if inputs:
            self.given = given

    # -- edits of what does not

    @rule(which=WHICH, everything=st.booleans(), looks=LOOKS, order=st.permutations(NAMES))
    def write_otherwise(self, which: int, everything: bool, looks: Looks, order: list[str]) -> None:  # noqa: FBT001
        one = self.pick(NAMES, which)
        for piece in self.source.pieces.values() if everything else (one,):
            self.edit(piece, looks=looks)
        self.source = replace(self.source, order=tuple(order) if everything else self.source.order)

    # -- edits of inputs, and of what is asked for

    @rule(name=st.sampled_from("xy"), at=st.integers(0, 8), cut=st.integers(0, 2), new=LISTS)
    def splice(self, name: str, at: int, cut: int, new: list[Any]) -> None:
        before = self.given[name]
        self.given = {**self.given, name: [*before[:at], *new, *before[at + cut :]][:8]}

    @rule(chance=st.randoms(use_true_random=False), k=ELEMENTS, wanted=st.sets(st.sampled_from(NODES)))
    def reorder(self, chance: Any, k: Any, wanted: set[str]) -> None:
        shuffled = {name: chance.sample(self.given[name], len(self.given[name])) for name in "xy"}
        self.given = {**self.given, **shuffled, "k": k}
        self.wanted = wanted

    # -- and what must hold after each of them

    @invariant()
    def cached_equals_uncached(self) -> None:
        names = [spec.name for spec in self.source.specs]
        wanted = [name for name in names if name in self.wanted] or names
        how = next(self.hows)
        files = self.source.files()
        note(f"{how}, {wanted} of {self.given}")
        expected, new = self.model.predict(self.source, self.given, wanted)
        self.package.write(files)
        answer = self.play(wanted, how)
        assert answer["values"] == expected
        assert (taken := self.log.take()) == new, (
            Counter(taken) - Counter(new),
            Counter(new) - Counter(taken),
        )
        assert answer["computed"] == len(new)
        self.history.append((self.source, self.given))

    def play(self, wanted: Sequence[str], how: How) -> dict[str, Any]:
        if how.place != "fresh":
            self.package.load(how.place)
            return play(self.store, self.given, wanted, how)
        request = {"directory": str(self.directory), "store": str(self.directory / "store")}
        answer = ask(self.server, {**request, "given": self.given, "wanted": wanted, "how": how})
        assert "error" not in answer, answer["error"]
        return answer

    def pick(self, names: Collection[str], which: int) -> Piece:
        """Return one of the definitions, mostly one that counts for a node."""
        counting = set().union(*(self.source.reach(spec.name) for spec in self.source.specs))
        there = [name for name in names if name in self.source.pieces]
        chosen = [name for name in there if name in counting] if which % 4 else there
        return self.source.pieces[(chosen or there)[which % len(chosen or there)]]

    def edit(self, piece: Piece, **changes: Any) -> None:
        new = replace(piece, **changes)
        self.source = replace(self.source, pieces={**self.source.pieces, piece.name: new})
        note(new.source())

    def teardown(self) -> None:
        sys.path.remove(str(self.directory))
        forget()
        self.store.close()
        self.temporary.cleanup()


def machine(places: Sequence[str], executors: Sequence[str], server: Program) -> type[Edits]:
    sizes = (batches.MAX_ITEMS, 1, 2)
    ways = [How(*one) for one in itertools.product(places, executors, (1, 2), sizes)]

    class EditsInTheseWays(Edits):
        def __init__(self) -> None:
            super().__init__(server, ways)

    return EditsInTheseWays


def steps(examples: int, count: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=count,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


def test_edits_between_runs(server: Program) -> None:
    places = ("reload", "reload", "reload", "import", "fresh")
    run_state_machine_as_test(machine(places, ["sequential", "auto"], server), settings=steps(16, 12))


def test_edits_between_parallel_runs(server: Program) -> None:
    places = ("reload", "import")
    run_state_machine_as_test(machine(places, ["parallel", "sequential"], server), settings=steps(7, 10))


@pytest.mark.slow
def test_many_edits(server: Program) -> None:
    places, executors = ("reload", "import", "fresh"), ("parallel", "sequential", "auto")
    run_state_machine_as_test(machine(places, executors, server), settings=steps(400, 25))
