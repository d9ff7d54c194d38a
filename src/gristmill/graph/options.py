"""What `node` accepts besides a function, and the checks of each option by itself.

Knows neither functions nor nodes; what depends on a function's parameters is checked in `node`.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, TypedDict, get_args

from gristmill.errors import GraphError
from gristmill.graph.mapspec import MapSpec
from gristmill.graph.names import check_name
from gristmill.graph.retry import Retry, check_retries, check_timeout
from gristmill.graph.wording import did_you_mean, joined

Errors = Literal["skip", "drop", "pass"]
"""What a reduction does with failed elements: skip itself, drop them, or take an error in the place of each."""


class Absent:
    """What `initial` is where it is not given; None is a value."""

    def __repr__(self) -> str:
        return "<not given>"


ABSENT = Absent()


class NodeOptions(TypedDict, total=False):
    """The keyword parameters of `node`."""

    output_name: str | tuple[str, ...] | None
    mapspec: str | MapSpec | None
    renames: Mapping[str, str] | None
    defaults: Mapping[str, object] | None
    bound: Mapping[str, object] | None
    scope: str | None
    cache: bool
    version: str | None
    writable: bool
    errors: Errors
    output_picker: Callable[[Any, str], object] | None
    post_execution_hook: Callable[..., object] | None
    ignore_globals: Iterable[str]
    private: Iterable[str]
    reduce: str | None
    fan_in: int
    axis: str | None
    initial: object
    retries: int | Retry
    timeout: float | None


def check_output_name(owner: str, given: Any) -> tuple[str, ...]:
    """One or several output names as a tuple."""
    if isinstance(given, str):
        return (check_name(owner, "output_name", given),)
    if not isinstance(given, (tuple, list)) or len(given) <= 1:
        # A tuple of one could mean a result that is a tuple of one: two meanings, so neither.
        one = f"; for one output write {given[0]!r}" if isinstance(given, (tuple, list)) and given else ""
        raise GraphError(
            f"output_name of {owner} is {given!r}; use a name, or a tuple of two or more{one}",
        )
    names = tuple(check_name(owner, "an output_name", name) for name in given)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise GraphError(f"output_name of {owner} has {joined(twice)} twice; give each output its own name")
    return names


def check_mapspec(owner: str, given: Any) -> MapSpec | None:
    """A mapspec, read if it is text."""
    if given is None or isinstance(given, MapSpec):
        return given
    if isinstance(given, str):
        return MapSpec.parse(given)
    raise GraphError(f"mapspec of {owner} is {given!r}; use text like 'x[i] -> y[i]', or None")


def check_names(owner: str, option: str, given: Any) -> tuple[str, ...]:
    """Several names; a lone string would be read letter by letter."""
    if isinstance(given, Iterable) and not isinstance(given, (str, bytes)):
        names = tuple(given)
        if all(isinstance(name, str) for name in names):
            return names
    alone = f"({given!r},)" if isinstance(given, str) else "('name',)"
    raise GraphError(f"{option} of {owner} is {given!r}; use a tuple of names like {alone}")


def check_mapping(owner: str, option: str, given: Any) -> Mapping[str, Any]:
    """A mapping from parameters; None is an empty one."""
    if given is None:
        return {}
    if isinstance(given, Mapping) and all(isinstance(name, str) for name in given):
        return given
    raise GraphError(f"{option} of {owner} is {given!r}; use a mapping like {{'x': ...}}")


def check_option(owner: str, option: str, given: Any) -> Any:
    """The value of an option that does not depend on the function.

    Raises
    ------
    GraphError
        If it is not what the option takes.
    TypeError
        If there is no such option.
    """
    if option not in CHECKS:
        known = tuple(NodeOptions.__annotations__)
        raise TypeError(
            f"a node has no option {option!r}{did_you_mean(option, known)}; it has {joined(known)}"
        )
    return CHECKS[option](owner, option, given)


def _check_flag(owner: str, option: str, given: Any) -> bool:
    """A bool; 0 and 1 are more likely a mistake than a choice."""
    if isinstance(given, bool):
        return given
    raise GraphError(f"{option} of {owner} is {given!r}; use True or False")


def _check_version(owner: str, option: str, given: Any) -> str | None:
    if given is None or (isinstance(given, str) and given):
        return given
    raise GraphError(f"{option} of {owner} is {given!r}; use a string like '2', or None to follow the code")


def _check_reduce(owner: str, option: str, given: Any) -> str | None:
    if given is None or (isinstance(given, str) and given):
        return given
    raise GraphError(f"{option} of {owner} is {given!r}; use a name, or None")


def _check_fan_in(owner: str, option: str, given: Any) -> int:
    if isinstance(given, int) and not isinstance(given, bool) and given >= 2:
        return given
    raise GraphError(f"{option} of {owner} is {given!r}; use a number of elements, 2 or more")


def _any_value(_owner: str, _option: str, given: Any) -> object:
    return given


def _check_errors(owner: str, option: str, given: Any) -> str:
    known: tuple[str, ...] = get_args(Errors)
    if given in known:
        return str(given)
    hint = did_you_mean(given, known)
    raise GraphError(f"{option} of {owner} is {given!r}{hint}; use {joined(known, 'or')}")


def _check_callable(owner: str, option: str, given: Any) -> object:
    if given is None or callable(given):
        return given
    form = "(node, result, kwargs)" if option == "post_execution_hook" else "(result, name)"
    raise GraphError(f"{option} of {owner} is {given!r}; use a function of {form}, or None")


CHECKS: Mapping[str, Callable[[str, str, Any], object]] = MappingProxyType(
    {
        "cache": _check_flag,
        "writable": _check_flag,
        "version": _check_version,
        "errors": _check_errors,
        "output_picker": _check_callable,
        "post_execution_hook": _check_callable,
        "ignore_globals": check_names,
        "reduce": _check_reduce,
        "axis": _check_reduce,
        "fan_in": _check_fan_in,
        "initial": _any_value,
        "retries": check_retries,
        "timeout": check_timeout,
    },
)
"""The options that stand for themselves, each with its check `(owner, option, given)`."""
