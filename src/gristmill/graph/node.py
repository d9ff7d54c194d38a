"""Nodes: a function with the names of its parameters and outputs, and how it takes part in a graph.

A node is an immutable value that can still be called as the plain function. Knows nothing of other nodes,
storage or execution; what it says about caching or errors is for those who execute it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import WRAPPER_ASSIGNMENTS, cached_property
from inspect import signature
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Unpack, overload

from gristmill.errors import GraphError
from gristmill.graph import options as check
from gristmill.graph.mapspec import MapSpec
from gristmill.graph.names import Names
from gristmill.graph.options import ABSENT, Errors, NodeOptions
from gristmill.graph.portable import Portable, located, place_of
from gristmill.graph.retry import ONCE, Retry
from gristmill.graph.signature import Signature, annotations, is_async
from gristmill.graph.wording import joined, title
from gristmill.identity.code.origin import Policy

if TYPE_CHECKING:
    from gristmill.identity.digest import Digest
    from gristmill.identity.fingerprint import CodeReport

NAME_OPTIONS = frozenset({"output_name", "renames", "scope"})


# Compared by identity: defaults may be arrays, for which == gives no truth value.
@dataclass(frozen=True, eq=False, repr=False)
class Node:
    """A function in a graph, made by `node` and changed by `with_`.

    Calling it calls the function, with the function's own parameter names. In the graph a parameter may have
    another name (`renames`, `scope`), a value of its own (`bound`) or another default (`defaults`).

    Examples
    --------
    >>> @node(output_name="y", renames={"x": "a"}, bound={"k": 3})
    ... def scale(x, k):
    ...     return x * k
    >>> scale
    <Node scale(a) -> y>
    >>> scale(2, k=10)
    20
    >>> scale.parameters, scale.output_names, dict(scale.bound)
    (('a',), ('y',), {'k': 3})
    """

    function: Callable[..., Any]
    signature: Signature
    names: Names
    mapspec: MapSpec | None = None
    """In graph names."""
    own_defaults: Mapping[str, object] = field(default_factory=dict)
    """Defaults given to `node`, by the function's own parameter names."""
    own_bound: Mapping[str, object] = field(default_factory=dict)
    """Bound values by the function's own parameter names."""
    cache: bool = True
    version: str | None = None
    writable: bool = False
    errors: Errors = "skip"
    output_picker: Callable[[Any, str], object] | None = None
    post_execution_hook: Callable[..., object] | None = None
    ignore_globals: tuple[str, ...] = ()
    own_private: tuple[str, ...] = ()
    """Parameters that no record shows, by the function's own names."""
    own_reduce: str | None = None
    """The function's own parameter that gets lists of elements, or of partial results, in a tree reduction."""
    fan_in: int = 64
    axis: str | None = None
    initial: object = ABSENT
    retries: Retry = ONCE
    """How often a call is tried."""
    timeout: float | None = None
    """Seconds that a call may take."""
    path: tuple[str, ...] = ()
    """Names of the nested pipelines that it is in, the outermost first."""
    policy: Policy = field(default_factory=Policy)
    """What of other people's code counts; a pipeline sets it for its nodes."""

    def __post_init__(self) -> None:
        _check_mapspec(self)
        # Set past the frozen __setattr__, so that help(), inspect and doctest see the function.
        for name in WRAPPER_ASSIGNMENTS:
            if hasattr(self.function, name) and name != "__annotations__":
                vars(self)[name] = getattr(self.function, name)
        vars(self)["__wrapped__"] = self.function

    # -- what it is

    @property
    def name(self) -> str:
        """What messages call it: the function's qualified name."""
        return title(self.function)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Graph names of what it makes, in order."""
        return self.names.outputs

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Graph names of what comes from the graph, in the function's order; bound ones are left out."""
        return tuple(name for name in self.names.parameters if name not in self.bound)

    @cached_property
    def bound(self) -> Mapping[str, object]:
        """Values that this node alone has, by graph name."""
        return MappingProxyType({self.names.graph(own): value for own, value in self.own_bound.items()})

    @cached_property
    def defaults(self) -> Mapping[str, object]:
        """Values of parameters that nobody supplies, by graph name."""
        merged = {**self.signature.defaults, **self.own_defaults}
        graph = {self.names.graph(own): value for own, value in merged.items()}
        return MappingProxyType({name: graph[name] for name in self.parameters if name in graph})

    @property
    def private(self) -> tuple[str, ...]:
        """Graph names of parameters whose values are never written to records as text."""
        return tuple(map(self.names.graph, self.own_private))

    @property
    def reduce(self) -> str | None:
        """The graph's name of what a tree reduction reduces."""
        return None if self.own_reduce is None else self.names.graph(self.own_reduce)

    @cached_property
    def is_async(self) -> bool:
        """Whether calling it gives a coroutine."""
        return is_async(self.function)

    @cached_property
    def annotations(self) -> Mapping[str, Any]:
        """Resolved type hints by the function's own parameter names, and `"return"`."""
        return MappingProxyType(annotations(self.function))

    @property
    def fingerprint(self) -> "Digest":
        """Identity of the code, as it is now."""
        return self.code.digest

    @property
    def code(self) -> "CodeReport":
        """Identity of the code, as it is now, with what it was made from and what could not be followed."""
        from gristmill.identity.fingerprint import fingerprint

        return fingerprint(
            self.function,
            version=self._versioned,
            ignore_globals=self.ignore_globals,
            versions=self.policy.versions,
            own_modules=self.policy.own,
            library_modules=self.policy.libraries,
            explain=True,
        )

    @property
    def _versioned(self) -> str | None:
        """The version that stands for the code; a lambda has no name, and goes by those of its outputs."""
        if self.version is None or "<lambda>" not in self.name:
            return self.version
        return f"{self.version} of {', '.join(self.names.own_outputs)}"

    def own_name(self, name: str) -> str:
        """The function's own name of the parameter that the graph calls `name`.

        Examples
        --------
        >>> node(lambda x: x, output_name="y", renames={"x": "a"}).own_name("a")
        'x'
        """
        return self.names.own(name)

    def __digest__(self) -> object:
        # Who calls this node depends on the function in it, or on the version that stands for it.
        if self.version is None:
            return self.function
        return (self.__module__, getattr(self.function, "__qualname__", self.output_names), self.version)

    # -- calling it

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, with its own parameter names; then its hook."""
        if self.post_execution_hook is None:
            return self.function(*args, **kwargs)
        given = signature(self.function).bind(*args, **kwargs)
        given.apply_defaults()
        if self.is_async:
            return self._finish_async(self.function(*args, **kwargs), given.arguments)
        result = self.function(*args, **kwargs)
        self.post_execution_hook(self, result, given.arguments)
        return result

    async def _finish_async(self, coroutine: Any, kwargs: dict[str, Any]) -> Any:
        result = await coroutine
        if self.post_execution_hook is not None:
            self.post_execution_hook(self, result, kwargs)
        return result

    def arguments(self, own: Mapping[str, object]) -> tuple[list[object], dict[str, object]]:
        """Positional and keyword arguments for the function, from values by its own parameter names.

        Examples
        --------
        >>> node(divmod, output_name=("quotient", "rest")).arguments({"x": 7, "y": 3})
        ([7, 3], {})
        """
        first = self.signature.positional_only
        return [own[name] for name in first], {name: own[name] for name in own if name not in first}

    def split(self, result: Any) -> tuple[object, ...]:
        """What one call returned as one value for each output, in the order of `output_names`.

        Raises
        ------
        GraphError
            If there are several outputs and the function did not return that many.

        Examples
        --------
        >>> node(divmod, output_name=("quotient", "rest")).split(divmod(7, 3))
        (2, 1)
        """
        own = self.names.own_outputs
        if self.output_picker is not None:
            return tuple(self.output_picker(result, name) for name in own)
        if len(own) == 1:
            return (result,)
        if isinstance(result, Collection) and not isinstance(result, (str, bytes, Mapping, AbstractSet)):
            values = tuple(result)
            if len(values) == len(own):
                return values
            found = f"{len(values)} values"
        else:
            found = type(result).__name__
        raise GraphError(
            f"{self.name} has {len(own)} outputs {joined(own)} but returned {found}; "
            "return a tuple with one value for each, or give output_picker=",
        )

    # -- changing and sending it

    def with_(self, **changes: Unpack[NodeOptions]) -> "Node":
        """The same node with other options, which are those of `node`; names in the mapspec follow renames.

        Examples
        --------
        >>> double = node(lambda x: 2 * x, output_name="y", mapspec="x[i] -> y[i]")
        >>> double.with_(renames={"x": "a"}, output_name="b")
        <Node <lambda>(a) -> b, 'a[i] -> b[i]'>
        """
        return _declared(self.function, dict(changes), self)

    def renamed(self, names: Mapping[str, str]) -> "Node":
        """The same node with other graph names; names it does not have are ignored.

        Examples
        --------
        >>> node(lambda x: x, output_name="y").renamed({"y": "z", "q": "r"})
        <Node <lambda>(x) -> z>
        """
        new = self.names.renamed(names)
        return replace(self, names=new, mapspec=_follow(self.mapspec, self.names, new))

    def portable(self) -> Portable:
        """The plain function, packed to be pickled; unpickling gives the function."""
        return Portable(self.function)

    def __reduce__(self) -> str | tuple[object, ...]:
        place = place_of(self.function)
        if place is not None and located(*place) is self:
            return place[1]
        state = {name: vars(self)[name] for name in self.__dataclass_fields__}
        return _restored, (self.portable(), _plain_mappings(state))

    def __repr__(self) -> str:
        spec = f", {str(self.mapspec)!r}" if self.mapspec else ""
        return f"<Node {self.name}({', '.join(self.parameters)}) -> {', '.join(self.output_names)}{spec}>"


def _plain_mappings(state: dict[str, Any]) -> dict[str, Any]:
    # A mapping proxy cannot be pickled.
    plain = {
        name: dict(value) if isinstance(value, MappingProxyType) else value for name, value in state.items()
    }
    return {name: value for name, value in plain.items() if name != "function"}


def _restored(function: Callable[..., Any], state: dict[str, Any]) -> Node:
    return Node(function, **state)


@overload
def node(func: Callable[..., Any], **options: Unpack[NodeOptions]) -> Node: ...
@overload
def node(func: None = None, **options: Unpack[NodeOptions]) -> Callable[[Callable[..., Any]], Node]: ...
def node(
    func: Callable[..., Any] | None = None,
    *,
    output_name: str | tuple[str, ...] | None = None,
    mapspec: str | MapSpec | None = None,
    renames: Mapping[str, str] | None = None,
    defaults: Mapping[str, object] | None = None,
    bound: Mapping[str, object] | None = None,
    scope: str | None = None,
    cache: bool = True,
    version: str | None = None,
    writable: bool = False,
    errors: Errors = "skip",
    output_picker: Callable[[Any, str], object] | None = None,
    post_execution_hook: Callable[..., object] | None = None,
    ignore_globals: Iterable[str] = (),
    private: Iterable[str] = (),
    reduce: str | None = None,
    fan_in: int = 64,
    axis: str | None = None,
    initial: object = ABSENT,
    retries: int | Retry = 0,
    timeout: float | None = None,
) -> Node | Callable[[Callable[..., Any]], Node]:
    """Make a node of a function, class, partial, bound method or callable instance; also as a decorator.

    Parameters
    ----------
    func
        What to call. Its parameter names wire the graph.
    output_name
        What the result is called: by default as the function; a tuple for several, which the function returns
        as a tuple, or as anything that `output_picker` takes apart.
    mapspec
        The axes it is mapped over, like `"x[i], y[j] -> z[i, j]"`.
    renames
        Graph names for parameters or outputs, by the function's own.
    defaults
        Values of parameters that nobody supplies, besides the function's own defaults.
    bound
        Values of parameters that never come from the graph.
    scope
        Put before every name that has no dot: `"a"` makes `a.x` of `x`.
    cache
        False to run whenever something that needs it runs, and to keep nothing.
    version
        Stands for the code: the result is kept until this string changes.
    writable
        True to get private copies of array arguments rather than read-only views.
    errors
        What a reduction does when elements failed: `"skip"` itself, `"drop"` them and take the rest, or `"pass"`:
        take an `ItemError` in the place of each. What it makes of errors is not kept, and made anew in each run.
    output_picker
        `output_picker(result, name)` takes one named output out of a result.
    post_execution_hook
        `post_execution_hook(node, result, kwargs)` is called after each real execution, where it ran.
    ignore_globals
        Globals of the function that do not count as code.
    private
        Parameters whose values are never written to records as text.
    reduce
        The mapped output (or list) that is reduced level by level: the function combines a list of elements into one
        of the same kind, and then lists of what it made. Partial results are kept like any other.
    fan_in
        How many elements, or partial results, one call of a tree reduction combines at most.
    axis
        The axis that a tree reduction goes along, where there are several.
    initial
        What a tree reduction of nothing gives.
    retries
        How often a call that fails is tried again, each time with arguments of its own; or a `Retry`, which says how
        long to wait in between, and after which exceptions.
    timeout
        Seconds that one call may take; then it fails with `ItemTimeoutError`. A worker process is replaced, a
        coroutine is cancelled, and a thread, which cannot be ended, is left alone and what it returns disregarded.

    Raises
    ------
    GraphError
        If an option does not fit the function.
    MapSpecError
        If the mapspec cannot be read, or names what the function does not have.

    Examples
    --------
    >>> @node(output_name="y", mapspec="x[i] -> y[i]")
    ... def double(x):
    ...     return 2 * x
    >>> double(4), double
    (8, <Node double(x) -> y, 'x[i] -> y[i]'>)
    """
    given = dict(locals())
    function = given.pop("func")
    if function is None:
        return lambda later: _declared(later, given)
    if isinstance(function, Node):
        usual = signature(node).parameters
        return function.with_(
            **{name: value for name, value in given.items() if value is not usual[name].default}
        )
    return _declared(function, given)


def _declared(function: Callable[..., Any], given: Mapping[str, Any], base: Node | None = None) -> Node:
    """A node from options as given; those not in `given` are as in `base`."""
    owner = title(function)
    signature = base.signature if base else Signature.of(function)
    names = _names(function, signature, given, base)
    given = dict(given)
    if (reduce := check.check_option(owner, "reduce", given.pop("reduce", None))) is not None:
        names, given["own_reduce"] = _reduced(owner, names, reduce)
    fields: dict[str, Any] = {"function": function, "signature": signature, "names": names}
    if base:
        fields["mapspec"] = _follow(base.mapspec, base.names, names)
    for option in given.keys() - NAME_OPTIONS:
        name, value = _field(owner, names, option, given[option])
        fields[name] = value
    return replace(base, **fields) if base else Node(**fields)


def _names(
    function: Callable[..., Any],
    signature: Signature,
    given: Mapping[str, Any],
    base: Node | None,
) -> Names:
    owner = title(function)
    output_name = given.get("output_name")
    names = base.names if base else Names.of(owner, signature.parameters, ())
    if output_name is not None:
        names = names.with_outputs(check.check_output_name(owner, output_name))
    elif base is None:
        names = names.with_outputs((_default_output(function),))
    if "renames" in given:
        names = names.with_renames(check.check_mapping(owner, "renames", given["renames"]))
    if "scope" in given:
        names = names.with_scope(given["scope"])
    return names.checked()


def _reduced(owner: str, names: Names, reduce: str) -> tuple[Names, str]:
    """Names in which some parameter is called `reduce`, by default the first one; and its own name."""
    if reduce not in names.parameters:
        if not names.parameters:
            raise GraphError(f"{owner} has no parameter that could get the elements of {reduce!r}")
        names = names.renamed({names.parameters[0]: reduce}).checked()
    return names, names.own(reduce)


def _default_output(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", "")
    if isinstance(name, str) and name.isidentifier():
        return name
    raise GraphError(f"{title(function)} has no name of its own to call its output by; give output_name=")


def _field(owner: str, names: Names, option: str, given: Any) -> tuple[str, object]:
    """The node's field that an option sets, and its checked value."""
    if option == "mapspec":
        return option, _in_graph_names(check.check_mapspec(owner, given), names)
    if option == "own_reduce":
        return option, given
    if option in {"defaults", "bound"}:
        values = check.check_mapping(owner, option, given)
        return f"own_{option}", MappingProxyType({names.own(name): value for name, value in values.items()})
    if option == "private":
        return "own_private", tuple(names.own(name) for name in check.check_names(owner, option, given))
    return option, check.check_option(owner, option, given)


def _in_graph_names(spec: MapSpec | None, names: Names) -> MapSpec | None:
    """A spec as written, where local names may stand for graph names."""
    if spec is None or names.scope is None:
        return spec
    return spec.renamed(
        dict(zip(names.local_parameters, names.parameters, strict=True)),
        dict(zip(names.local_outputs, names.outputs, strict=True)),
    )


def _follow(spec: MapSpec | None, old: Names, new: Names) -> MapSpec | None:
    """A node's spec after its names have changed."""
    if spec is None or old == new:
        return spec
    inputs = spec.renamed(dict(zip(old.parameters, new.parameters, strict=True)), {}).inputs
    made = spec.outputs[0]
    return MapSpec(inputs, tuple(replace(made, name=name) for name in new.outputs))


def _check_mapspec(node: Node) -> None:
    spec = node.mapspec
    if spec is None:
        return
    known = node.names.parameters
    for array in spec.inputs:
        if array.name not in known:
            what = f"{node.name} has no parameter {array.name!r}{node.names.hint(array.name)}"
            spec.refuse(array.name, f"{what}; it has {joined(known)}")
        if array.axes and array.name in node.bound:
            spec.refuse(
                array.name,
                f"{array.name!r} is bound to one value in {node.name}; map it or bind it, not both",
            )
    made = tuple(array.name for array in spec.outputs)
    if sorted(made) != sorted(node.output_names):
        wrong = next((name for name in made if name not in node.output_names), made[0])
        spec.refuse(
            wrong, f"{node.name} makes {joined(node.output_names)}, the mapspec {joined(made)}; use the same"
        )
