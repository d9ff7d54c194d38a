"""Plain functions, without a pipeline: mapped over iterables."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from gristmill.engine.engine import Engine
from gristmill.engine.specs import Specs
from gristmill.errors import InputError
from gristmill.evaluation import OnError
from gristmill.graph.axes import fresh
from gristmill.graph.node import Node, node
from gristmill.pipeline import Pipeline
from gristmill.store import Store


def parallel_map(
    function: Callable[..., Any],
    *iterables: Iterable[Any],
    executor: Specs = "auto",
    max_workers: int | None = None,
    on_error: OnError = "raise",
    store: Store | str | os.PathLike[str] | None = None,
) -> list[Any]:
    """Call a function for each element of an iterable, or of several side by side, as `map` does; several at once.

    Parameters
    ----------
    function
        What is called: a function, also a local one or a lambda, a coroutine function, a class or a `Node`. Its
        parameters need names: one with `*args`, or a builtin that does not tell, has to be wrapped in a lambda.
    *iterables
        For its first parameters, in order; of equal length. They are read to their end first.
    executor
        What runs the calls; see `Engine`.
    max_workers
        How many calls run at once.
    on_error
        `"raise"`: the first exception is raised. `"continue"`: there is an `ItemError` in the place of each call that
        failed: no function returns one by chance, as it may None.
    store
        Where results are kept, as for `Pipeline`; by default nowhere. With one, calls that were made before are found.

    Returns
    -------
    What the calls returned, in the order of their arguments.

    Raises
    ------
    InputError
        Iterables differ in length; the message names the parameters.

    Examples
    --------
    >>> parallel_map(pow, [1, 2, 3], [2, 2, 2])
    [1, 4, 9]
    """
    if not iterables:
        raise TypeError("parallel_map needs a function and at least one iterable")
    made = function if isinstance(function, Node) else node(function, output_name="result")
    if len(made.output_names) > 1:
        raise InputError(
            f"{made.name} has {len(made.output_names)} outputs; give parallel_map the function itself"
        )
    names = made.parameters[: len(iterables)]
    if len(names) < len(iterables):
        raise InputError(
            f"there are {len(iterables)} iterables, but {made.name} has only {len(names)} parameters"
        )
    output = fresh("result", set(made.parameters))
    axis = fresh("i", {output, *made.parameters})
    spec = f"{', '.join(f'{name}[{axis}]' for name in names)} -> {output}[{axis}]"
    mapped = made.with_(output_name=output, mapspec=spec)
    engine = Engine(map_executor=executor, max_workers=max_workers)
    pipeline = Pipeline([mapped], engine=engine, store=store)
    given = {name: _elements(one) for name, one in zip(names, iterables, strict=True)}
    result = pipeline.map(given, on_error=on_error, progress=False)
    values: list[Any] = result[output].tolist()
    for error in result.errors:
        values[error.index[0]] = error
    return values


def _elements(given: Iterable[Any]) -> "Sequence[Any] | np.ndarray[Any, Any]":
    """What an iterable yields, read to its end unless it can be indexed."""
    if isinstance(given, list | tuple | range) or (isinstance(given, np.ndarray) and given.ndim == 1):
        return given
    return list(given)
