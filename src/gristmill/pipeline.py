"""The façade `Pipeline`: thin methods over graph, plan, engine and results."""

import inspect
import operator
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from gristmill.background import Background
from gristmill.engine.direct import DirectRun
from gristmill.engine.engine import Engine
from gristmill.engine.faults import OnStoreError
from gristmill.engine.feed import AHEAD, Feed, check_common_space
from gristmill.engine.mapped import MappedOutput
from gristmill.errors import GraphError, InputError
from gristmill.evaluation import Evaluation, Level, OnError
from gristmill.events import Callback
from gristmill.graph import composition
from gristmill.graph.annotations import check_annotations
from gristmill.graph.flattening import flat
from gristmill.graph.graph import Graph
from gristmill.graph.mapping import mapped
from gristmill.graph.nested import Nested, in_graph, nested, with_mappings
from gristmill.graph.node import Node, node
from gristmill.graph.options import check_names
from gristmill.graph.wording import did_you_mean, joined
from gristmill.identity.code.origin import Policy, Versions
from gristmill.identity.memo import Memos
from gristmill.observe.progress import shown
from gristmill.plan.compile import Plan, compile_plan
from gristmill.plan.inputs import WholeInput, is_by_reference
from gristmill.plan.wiring import Kinds
from gristmill.recall import Recall
from gristmill.result import MapResult
from gristmill.storage.elements import SCALARS
from gristmill.store import Store

if TYPE_CHECKING:
    from gristmill.explain.planned import RunPlan
    from gristmill.explain.report import Explanation
    from gristmill.maprun import MapRun
    from gristmill.streaming import ItemStream

Nodes = Node | Callable[..., Any] | tuple[Callable[..., Any], str]

_DEFAULT: Any = object()
_OPTIONS = (
    *("name", "engine", "callbacks", "validate_types"),
    *("versions", "own_modules", "library_modules"),
)
"""What `Pipeline` takes besides the nodes and the store."""


class Pipeline:
    """Functions wired by the names of their parameters and outputs.

    Parameters
    ----------
    nodes
        Nodes, plain functions, `(function, mapspec)` pairs, or other pipelines, whose nodes are taken.
    name
        What messages and records call it.
    engine
        What runs it.
    store
        Where results are kept: a `Store` or a path. By default `$GRISTMILL_STORE`, else `.gristmill`; None keeps
        nothing.
    callbacks
        Told about every run.
    validate_types
        Whether annotations along the edges are checked.
    versions
        How much of the version of an installed distribution counts in the fingerprint of code that calls into it:
        the `"major"` version, the `"exact"` one, or `"ignore"`.
    own_modules
        Modules and packages whose code counts, line by line, although they are installed.
    library_modules
        Modules and packages that count by name and version only, although they are not installed.

    Raises
    ------
    GraphError
        The nodes do not form a graph.
    MapSpecError
        Mapspecs contradict each other.

    Examples
    --------
    >>> def double(x):
    ...     return 2 * x
    >>> def total(double):
    ...     return int(double.sum())
    >>> pipeline = Pipeline([(double, "x[i] -> double[i]"), total], store=None)
    >>> pipeline.map({"x": [1, 2, 3]})["total"]
    12
    """

    def __init__(
        self,
        nodes: "Iterable[Nodes | Pipeline]",
        *,
        name: str | None = None,
        engine: Engine | None = None,
        store: Store | str | os.PathLike[str] | None = _DEFAULT,
        callbacks: Sequence[Callback] = (),
        validate_types: bool = True,
        versions: Versions = "major",
        own_modules: Iterable[str] = (),
        library_modules: Iterable[str] = (),
    ) -> None:
        self.name = name
        self.engine = engine or Engine()
        self.versions = versions
        self.own_modules = check_names("a pipeline", "own_modules", own_modules)
        self.library_modules = check_names("a pipeline", "library_modules", library_modules)
        self._policy = _policy(versions, self.own_modules, self.library_modules)
        self.graph = Graph([_as_node(given, self._policy) for given in _merged(nodes)])
        self.callbacks = tuple(callbacks)
        self.validate_types = validate_types
        self._store = store
        self._opened: Store | None = None
        self._lock = threading.Lock()
        self._recalls: Kinds[Recall] = Kinds()
        self._direct: Kinds[DirectRun] = Kinds()
        whole = flat(self.graph)
        if validate_types:
            check_annotations(whole.graph)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes in topological order."""
        return self.graph.nodes

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names that the caller supplies."""
        return self.graph.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names that the nodes make; `run` and `map` give back those that no node takes, unless told otherwise."""
        return self.graph.outputs

    @property
    def mapspecs(self) -> dict[str, str]:
        """Output name to mapspec, for nodes that are mapped."""
        return {name: str(node.mapspec) for node in self.nodes for name in node.output_names if node.mapspec}

    @property
    def store(self) -> Store | None:
        """Where results are kept; None keeps nothing."""
        if self._store is None:
            return None
        with self._lock:
            if self._opened is None:
                self._opened = self._store if isinstance(self._store, Store) else _open_store(self._store)
            return self._opened

    def with_(self, **changes: Any) -> "Pipeline":
        """Return the same pipeline with other options: all that `Pipeline` takes besides the nodes."""
        for option in changes:
            if option not in (*_OPTIONS, "store"):
                known = ("store", *_OPTIONS)
                raise TypeError(
                    f"with_ has no option {option!r}{did_you_mean(option, known)}; it has {joined(known)}"
                )
        return Pipeline(self.nodes, **{**self._options, **changes})

    def __or__(self, other: object) -> "Pipeline":
        """Return `self.join(other)`."""
        return self.join(other) if isinstance(other, Pipeline | Node) or callable(other) else NotImplemented

    def join(self, *others: "Pipeline | Nodes") -> "Pipeline":
        """Return one pipeline of this one's nodes and those of others, with this one's options.

        Examples
        --------
        >>> first = Pipeline([node(lambda x: x + 1, output_name="y")], store=None)
        >>> second = Pipeline([node(lambda y: 2 * y, output_name="z")], store=None)
        >>> (first | second)("z", x=1)
        4
        """
        return self._with_nodes([self, *others])

    def add(self, *nodes: Nodes) -> "Pipeline":
        """Return the pipeline with more nodes."""
        return self._with_nodes([*self.nodes, *nodes])

    def drop(self, *output_names: str) -> "Pipeline":
        """Return the pipeline without the nodes that make any of `output_names`, which become inputs where needed."""
        return self._with_nodes(composition.dropped(self.graph, output_names))

    def replace(self, *nodes: Nodes) -> "Pipeline":
        """Return the pipeline with `nodes` in the place of those that made the same outputs."""
        new = [_as_node(given, self._policy) for given in nodes]
        return self._with_nodes(composition.replaced(self.graph, new))

    def subpipeline(
        self, inputs: Iterable[str] | None = None, output_names: Iterable[str] | None = None
    ) -> "Pipeline":
        """Return the part that is needed for some outputs, given some inputs.

        Parameters
        ----------
        inputs
            Names that will be supplied: what only makes these is left out.
        output_names
            What is wanted; by default everything that `inputs` lead to.
        """
        given = None if inputs is None else _names(inputs)
        wanted = None if output_names is None else _names(output_names)
        return self._with_nodes(composition.part(self.graph, given, wanted))

    def rename(self, names: Mapping[str, str]) -> "Pipeline":
        """Return the pipeline with other names for inputs and outputs, `{old: new}`; mapspecs follow."""
        return self._with_nodes(composition.renamed(self.graph, names))

    def scope(self, name: str, *, keep: Iterable[str] = ()) -> "Pipeline":
        """Return the pipeline with `name` and a dot before its inputs and outputs, except those to `keep`.

        So pipelines with names in common can be joined. Names that have a dot already stay as they are.

        Examples
        --------
        >>> part = Pipeline([node(lambda x, seed: x + seed, output_name="y")], store=None)
        >>> both = part.scope("a", keep=["seed"]) | part.scope("b", keep=["seed"])
        >>> both.inputs, both.outputs
        (('a.x', 'seed', 'b.x'), ('a.y', 'b.y'))
        """
        return self._with_nodes(composition.scoped(self.graph, name, _names(keep)))

    def bind(self, **values: Any) -> "Pipeline":
        """Return the pipeline with values for some inputs, which are no inputs any more."""
        return self._with_nodes(composition.bound(self.graph, values))

    def unbind(self, *names: str) -> "Pipeline":
        """Return the pipeline in which `names`, or all that is bound, are inputs again."""
        return self._with_nodes(composition.unbound(self.graph, names))

    def add_axis(self, *names: str, axis: str) -> "Pipeline":
        """Return the pipeline mapped over one or several inputs, along one axis of that name.

        Examples
        --------
        >>> Pipeline([node(lambda x: x + 1, output_name="y")], store=None).add_axis("x", axis="i").mapspecs
        {'y': 'x[i] -> y[i]'}
        """
        return self._with_nodes(mapped(self.graph, names, "zip", axis))

    def as_node(
        self,
        *,
        name: str | None = None,
        output_name: str | Sequence[str] | None = None,
        input_mapping: Mapping[str, str] | None = None,
        output_mapping: Mapping[str, str] | None = None,
        map_over: str | Sequence[str] | None = None,
        map_mode: Literal["zip", "product"] = "zip",
        cache: bool = True,
    ) -> Node:
        """Return this pipeline as one node of another one, which runs and keeps what is in it call by call.

        Parameters
        ----------
        name
            What messages call it, and the names of what it makes inside begin with.
        output_name
            Its outputs; all leaves by default.
        input_mapping
            Other names for inputs, as `{outer: inner}`.
        output_mapping
            Other names for outputs, as `{inner: outer}`.
        map_over
            Inputs that are lists in the outer pipeline, for each element of which it is evaluated; outputs are
            lists then. In a map of the outer pipeline, lists may differ in length.
        map_mode
            `"zip"` for lists of one length, `"product"` for all combinations: then outputs are lists in lists.
        cache
            False to run what is in it whenever something that needs it runs, and to keep nothing.

        Raises
        ------
        GraphError, InputError
            A name does not exist.

        Examples
        --------
        >>> clean = Pipeline([node(lambda text: text.strip(), output_name="line")], store=None)
        >>> lines = clean.as_node(
        ...     map_over="text", input_mapping={"texts": "text"}, output_mapping={"line": "lines"}
        ... )
        >>> count = node(lambda lines: len("".join(lines)), output_name="count")
        >>> Pipeline([lines, count], store=None)("count", texts=[" a", "b "])
        2
        """
        made = nested(
            self.graph,
            _evaluated,
            name=name or self.name,
            outputs=output_name,
            map_over=map_over,
            map_mode=map_mode,
        )
        return with_mappings(made, input_mapping or {}, output_mapping or {}).with_(cache=cache)

    def func(self, output_name: str) -> Callable[..., Any]:
        """Return a function of the inputs that an output needs, by name, with a signature that says so.

        Examples
        --------
        >>> double = Pipeline([node(lambda x, k=2: k * x, output_name="y")], store=None).func("y")
        >>> double(x=4), str(inspect.signature(double))
        (8, '(*, x, k=2)')
        """
        graph = self.graph.prune(output_name)
        keyword = inspect.Parameter.KEYWORD_ONLY
        given = [
            inspect.Parameter(name, keyword, default=graph.defaults.get(name, inspect.Parameter.empty))
            for name in graph.inputs
            if name.isidentifier()
        ]

        def call(**inputs: Any) -> Any:
            return self(output_name, **inputs)

        call.__name__ = call.__qualname__ = output_name
        call.__doc__ = f"Evaluate {output_name!r} of {self.name or 'a pipeline'}."
        needed = sorted(given, key=lambda one: one.default is not inspect.Parameter.empty)
        vars(call)["__signature__"] = inspect.Signature(needed)
        return call

    def _with_nodes(self, nodes: "Iterable[Nodes | Pipeline]") -> "Pipeline":
        return Pipeline(nodes, **self._options)

    @property
    def _options(self) -> dict[str, Any]:
        """What `Pipeline` takes besides the nodes."""
        kept = {option: getattr(self, option) for option in _OPTIONS}
        return {**kept, "store": self._store}

    def run(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        output_name: str | Sequence[str] | None = None,
        on_store_error: OnStoreError = "warn",
        record: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """Evaluate once.

        Parameters
        ----------
        inputs
            Values by name; an intermediate among them cuts what is above it.
        output_name
            What is wanted, which prunes the rest; all leaves by default.
        on_store_error
            As for `map`.
        record
            Whether to leave a run record in the store, as every map does.
        **options
            Fields of `Engine` for this run.

        Returns
        -------
        Values by output name; outputs of nodes with mapspecs as numpy arrays.
        """
        engine = _with_options(self.engine, options)
        given = self._checked(inputs or {})
        wanted = output_name if isinstance(output_name, str | None) else tuple(output_name)
        kind = _kind(given, wanted, {**options, "on_store_error": on_store_error})
        is_quiet = not (record or self.callbacks or any(map(is_by_reference, given.values())))
        if self._store is None and is_quiet and (direct := self._direct.find(kind)) is not None:
            return direct.values(given)
        known = {name: WholeInput(name, value) for name, value in given.items()}
        if is_quiet and (recall := self._recalls.find(kind)) is not None and self.store is not None:
            if any(type(value) not in SCALARS for value in given.values()):
                self._offer_files()
            if (recalled := recall.values(known, self.store.storage)) is not None:
                return recalled
        plan = self._compile(self.graph, given, wanted, engine, "node", known.values())
        evaluation = self._evaluation(plan, engine, "node", "raise", on_store_error, record=record)
        if self._store is None and is_quiet and engine.runs_in_line("node") and DirectRun.is_possible(plan):
            direct = DirectRun(plan, given, check_mutation=engine.check_mutation)
            self._direct.remember(kind, direct)
            return direct.values(given)
        plan.identify()
        result = evaluation.run()
        if Recall.is_possible(plan):
            self._recalls.remember(kind, Recall(plan, given))
        return {name: np.asarray(v) if isinstance(v, MappedOutput) else v for name, v in result.items()}

    def __call__(self, output_name: str, /, **inputs: Any) -> Any:
        """Return the value of one output."""
        return self.run(inputs, output_name=output_name)[output_name]

    def map(
        self,
        inputs: Mapping[str, Any],
        *,
        map_over: str | Sequence[str] | None = None,
        map_mode: Literal["zip", "product"] = "zip",
        output_name: str | Sequence[str] | None = None,
        fixed_indices: Mapping[str, int | slice] | None = None,
        on_error: OnError = "raise",
        on_store_error: OnStoreError = "warn",
        progress: bool | None = None,
        **options: Any,
    ) -> MapResult:
        """Evaluate over index spaces: by the nodes' mapspecs, or by giving the whole pipeline an axis.

        Parameters
        ----------
        inputs
            Values by name; those that are mapped are sequences or arrays.
        map_over
            Inputs that the whole pipeline is mapped over.
        map_mode
            `"zip"`: one axis that all of them share; `"product"`: one each.
        output_name
            What is wanted, which prunes the rest; all leaves by default.
        fixed_indices
            For some axes an index or a slice: only that part of the space is computed, and the rest is missing. What
            reduces such an axis is not computed.
        on_error
            `"raise"`: the first exception ends the map and is raised, everything finished is kept. `"continue"`:
            what depends on a failed call is skipped, and `result.errors` says what failed.
        on_store_error
            What to do when the store cannot be written (full, read-only, locked, gone). `"warn"`: say so once, and
            go on; what it does not take is held in a private temporary directory for as long as this process uses
            it. `"raise"`: end the map with a `StoreError`; what was finished is kept. `"ignore"`: go on silently.
        progress
            Whether to show a progress bar; by default only in a terminal, for maps that take a while.
        **options
            Fields of `Engine` for this map.
        """
        plan, engine = self._planned(inputs, map_over, map_mode, output_name, fixed_indices, options)
        evaluation = self._evaluation(plan, engine, "map", on_error, on_store_error, record=True)
        return evaluation.run(callbacks=shown(progress))

    def map_stream(
        self,
        inputs: Mapping[str, Any],
        *,
        ordered: bool = False,
        map_over: str | Sequence[str] | None = None,
        map_mode: Literal["zip", "product"] = "zip",
        output_name: str | Sequence[str] | None = None,
        fixed_indices: Mapping[str, int | slice] | None = None,
        on_error: OnError = "raise",
        on_store_error: OnStoreError = "warn",
        progress: bool | None = None,
        **options: Any,
    ) -> "ItemStream":
        """Evaluate as `map` does, and yield what is made, index by index, as it is completed.

        The map goes on in a thread of its own. If the items are not taken for a while, it waits: about a thousand
        that were computed lie ready at most. What they hold is read when they are taken. Closing the iterator or no
        longer using it cancels the rest; what is done is kept, and found the next time.

        Parameters
        ----------
        inputs, map_over, map_mode, output_name, fixed_indices, on_store_error, progress, **options
            As for `map`.
        ordered
            Whether items come in the order of their indices. While one of them is waited for, others are computed.
        on_error
            `"raise"`: the first exception ends the map; it is raised after the items that were completed before.
            `"continue"`: items of failed calls have an `error`.

        Returns
        -------
        An `Item` for each index of the space that the outputs have in common (those with fewer axes repeat), also of
        what was found; then one with `index=()` for outputs that are not mapped.

        Raises
        ------
        InputError
            Here, and not at the first item, if an input is bad; also if no output has the axes of all others.

        Examples
        --------
        >>> pipeline = Pipeline([node(lambda x: x * x, output_name="y", mapspec="x[i] -> y[i]")], store=None)
        >>> for item in pipeline.map_stream({"x": [1, 2, 3]}, ordered=True):
        ...     print(item.index, item.outputs)
        (0,) {'y': 1}
        (1,) {'y': 4}
        (2,) {'y': 9}
        """
        from gristmill.streaming import ItemStream

        plan, engine = self._planned(inputs, map_over, map_mode, output_name, fixed_indices, options)
        evaluation = self._evaluation(plan, engine, "map", on_error, on_store_error, record=True)
        check_common_space(plan)
        return ItemStream(Background(evaluation, _feed(evaluation, ordered=ordered), shown(progress)))

    def map_async(
        self,
        inputs: Mapping[str, Any],
        *,
        start: bool = True,
        map_over: str | Sequence[str] | None = None,
        map_mode: Literal["zip", "product"] = "zip",
        output_name: str | Sequence[str] | None = None,
        fixed_indices: Mapping[str, int | slice] | None = None,
        on_error: OnError = "raise",
        on_store_error: OnStoreError = "warn",
        progress: bool | None = None,
        **options: Any,
    ) -> "MapRun":
        """Evaluate as `map` does, in the background: in a thread of its own, with an event loop or without.

        A program that ends before the map does ends the map; what is done is kept, and found the next time.

        Parameters
        ----------
        inputs, map_over, map_mode, output_name, fixed_indices, on_error, on_store_error, progress, **options
            As for `map`.
        start
            False to start it later, by `start()`, by waiting for it, or with `launch_maps`.

        Returns
        -------
        What `await`, or its `result()`, gives the result of; `async for` gives its items as `map_stream` does.

        Examples
        --------
        >>> import asyncio
        >>> pipeline = Pipeline([node(lambda x: x * x, output_name="y", mapspec="x[i] -> y[i]")], store=None)
        >>> async def main():
        ...     result = await pipeline.map_async({"x": [1, 2, 3]})
        ...     return result["y"].tolist()
        >>> asyncio.run(main())
        [1, 4, 9]
        """
        from gristmill.maprun import MapRun

        plan, engine = self._planned(inputs, map_over, map_mode, output_name, fixed_indices, options)
        evaluation = self._evaluation(plan, engine, "map", on_error, on_store_error, record=True)
        run = MapRun(evaluation, _feed(evaluation, ordered=False, ahead=None), shown(progress))
        return run.start() if start else run

    def _planned(
        self,
        inputs: Mapping[str, Any],
        map_over: str | Sequence[str] | None,
        map_mode: Literal["zip", "product"],
        output_name: str | Sequence[str] | None,
        fixed_indices: Mapping[str, int | slice] | None,
        options: Mapping[str, Any],
    ) -> tuple[Plan, Engine]:
        """Check what a map was given, and return what is to run on what; nothing runs."""
        engine = _with_options(self.engine, options)
        plan = self._plan_map(inputs, map_over, map_mode, output_name, engine)
        return replace(plan, fixed=_checked_indices(plan, fixed_indices or {})), engine

    def _evaluation(
        self,
        plan: Plan,
        engine: Engine,
        level: Level,
        on_error: OnError,
        on_store_error: OnStoreError,
        *,
        record: bool,
    ) -> Evaluation:
        _check_choice("on_error", on_error, OnError)
        _check_choice("on_store_error", on_store_error, OnStoreError)
        return Evaluation(
            plan, engine, self.store, level, on_error, on_store_error, self.callbacks, self.name, record
        )

    def explain(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        map_over: str | Sequence[str] | None = None,
        map_mode: Literal["zip", "product"] = "zip",
        output_name: str | Sequence[str] | None = None,
    ) -> "Explanation":
        """Say what `map` would find in the store, what it would compute, and why.

        Nothing runs, and nothing is written. The parameters are those of `map`.

        Returns
        -------
        For each node and range of indices: a hit, or a miss with its reason; `print` shows it.
        """
        from gristmill.explain.findings import explain

        plan = self._plan_map(inputs or {}, map_over, map_mode, output_name, self.engine)
        return explain(plan, self.store.look() if self.store else None)

    def plan(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        map_over: str | Sequence[str] | None = None,
        map_mode: Literal["zip", "product"] = "zip",
        output_name: str | Sequence[str] | None = None,
    ) -> "RunPlan":
        """Say what `map` would run, without running it.

        Nothing is written. The parameters are those of `map`.

        Returns
        -------
        The stages, with how many calls of each node are to be computed; `print` shows it.
        """
        from gristmill.explain.planned import outline

        plan = self._plan_map(inputs or {}, map_over, map_mode, output_name, self.engine)
        return outline(plan, self.store.look() if self.store else None)

    def _plan_map(
        self,
        inputs: Mapping[str, Any],
        map_over: str | Sequence[str] | None,
        map_mode: Literal["zip", "product"],
        output_name: str | Sequence[str] | None,
        engine: Engine,
    ) -> Plan:
        if map_over is None and map_mode not in ("zip", "product"):
            raise InputError(f"map_mode is {map_mode!r}; use 'zip' or 'product'")
        graph = self.graph if map_over is None else self.graph.map_over(map_over, map_mode)
        return self._compile(graph, inputs, output_name, engine, "map").identify()

    def _compile(
        self,
        graph: Graph,
        inputs: Mapping[str, Any],
        output_name: str | Sequence[str] | None,
        engine: Engine,
        level: str,
        known: Iterable[WholeInput] = (),
    ) -> Plan:
        self._offer_files()
        self._checked(inputs)
        for what in ("node", "map"):
            for name in engine.specs[what]:
                if name and name not in graph.outputs:
                    raise GraphError(
                        f"{what}_executor names {name!r}, which is no output{did_you_mean(name, graph.outputs)}"
                    )
        wanted = [output_name] if isinstance(output_name, str) else output_name
        executors = partial(engine.spec, level)
        fuse = engine.runs_in_line(level)
        return compile_plan(graph, inputs, wanted, executors=executors, fuse=fuse, known=known)

    def _offer_files(self) -> None:
        """Have what the store remembers of files at hand before inputs are identified."""
        if self.store:
            Memos.current.offer(str(self.store.location), self.store.remembered_files)

    @staticmethod
    def _checked(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        if not isinstance(inputs, Mapping):
            raise InputError(f"inputs is a {type(inputs).__name__}; pass a mapping of names to values")
        return inputs


def _checked_indices(plan: Plan, fixed: Mapping[str, Any]) -> Mapping[str, int | slice]:
    known = tuple(dict.fromkeys(axis for axes in plan.axes.values() for axis in axes))
    for axis, index in fixed.items():
        if axis not in known:
            raise InputError(
                f"fixed_indices has {axis!r}, which is no axis{did_you_mean(axis, known)}; there are {joined(known)}"
            )
        if isinstance(index, bool) or not (isinstance(index, slice) or hasattr(index, "__index__")):
            raise InputError(f"fixed_indices: {axis!r} is {index!r}; use an index or a slice")
    chosen = {axis: one if isinstance(one, slice) else operator.index(one) for axis, one in fixed.items()}
    for name, axes in plan.axes.items():
        for axis, extent in zip(axes, plan.shapes[name], strict=True):
            one = chosen.get(axis)
            if isinstance(one, int) and isinstance(extent, int) and not -extent <= one < extent:
                raise InputError(f"fixed_indices: {axis!r} has length {extent}, so there is no index {one}")
    return chosen


def _feed(evaluation: Evaluation, *, ordered: bool, ahead: int | None = AHEAD) -> Feed:
    with_errors = evaluation.on_error == "continue"
    return Feed(evaluation.plan, ordered=ordered, with_errors=with_errors, ahead=ahead)


def _names(given: Iterable[str]) -> list[str]:
    """Names as a list; a lone string is one name."""
    return [given] if isinstance(given, str) else list(given)


def _policy(versions: Any, own: Sequence[str], libraries: Sequence[str]) -> Policy:
    if versions not in get_args(Versions):
        known = get_args(Versions)
        raise GraphError(
            f"versions is {versions!r}{did_you_mean(versions, known)}; use {joined(known, 'or')}"
        )
    if both := sorted(set(own) & set(libraries)):
        raise GraphError(f"{joined(both)} cannot be among both own_modules and library_modules")
    return Policy(versions, frozenset(own), frozenset(libraries))


def _merged(nodes: Iterable["Nodes | Pipeline"]) -> Iterable[Nodes]:
    for one in nodes:
        if isinstance(one, Pipeline):
            yield from one.nodes
        else:
            yield one


def _evaluated(inner: Nested, inputs: Mapping[str, Any]) -> Any:
    """What a nested pipeline gives outside any other."""
    made = Pipeline([in_graph(inner)], store=None).run(inputs, output_name=inner.outputs)
    values = tuple(made[name] for name in inner.outputs)
    return values[0] if len(values) == 1 else values


def _as_node(given: Any, policy: Policy) -> Node:
    function, mapspec = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    if callable(function):
        made: Node = given if isinstance(given, Node) else node(function, mapspec=mapspec)
        return made if made.policy == policy else replace(made, policy=policy)
    raise GraphError(f"a pipeline has nodes, functions and (function, mapspec) pairs; found {given!r}")


def _check_choice(option: str, given: object, choices: Any) -> None:
    known = get_args(choices)
    if given not in known:
        raise InputError(f"{option} is {given!r}; use {joined(known, 'or')}")


def _open_store(given: Any) -> Store:
    return Store() if given is _DEFAULT else Store(given)


def _kind(
    given: Mapping[str, Any], wanted: str | tuple[str, ...] | None, options: Mapping[str, Any]
) -> tuple[object, ...] | None:
    """All about a run but the values of its inputs; None for one that is not remembered.

    An executor of the user's must not live for as long as the pipeline.
    """
    names = wanted if isinstance(wanted, tuple) else ()
    if any(type(value) not in SCALARS for value in (*names, *options.values())):
        return None
    return (tuple(given), wanted, *options.items())


def _with_options(engine: Engine, options: Mapping[str, Any]) -> Engine:
    if not options:
        return engine
    known = [field.name for field in fields(Engine) if field.init]
    for option in options:
        if option not in known:
            raise TypeError(
                f"there is no option {option!r}{did_you_mean(option, known)}; there are {joined(known)}"
            )
    return replace(engine, **options)
