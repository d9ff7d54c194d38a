"""A map of a trivial function, one item after another, every result persisted."""

from functools import partial

from benchmarks.case import AtMost, Case, Runner
from benchmarks.systems import (
    CHAIN,
    CONTAINER,
    SCALAR,
    Step,
    bare_loop,
    with_gristmill,
    with_joblib,
    with_pipefunc,
)


def _case(
    name: str, title: str, budget: float, steps: tuple[Step, ...], items: int = 200_000, part: float = 1.0
) -> Case:
    """A case; peers that would take all day get a part of the items."""
    return Case(
        name=name,
        title=title,
        items=items,
        quick_items=2_000,
        budget=AtMost(budget),
        runners=(
            Runner("gristmill", partial(with_gristmill, steps=steps), kind="ours"),
            Runner(
                "pipefunc file_array",
                partial(with_pipefunc, steps=steps),
                needs=("pipefunc",),
                share=0.1 * part,
            ),
            Runner("joblib.Memory", partial(with_joblib, steps=steps), needs=("joblib",), share=0.05 * part),
            Runner(
                "pipefunc dict, in memory",
                partial(with_pipefunc, steps=steps, storage="dict", persisted=False),
                kind="raw",
                needs=("pipefunc",),
                share=0.5 * part,
                note="not persisted",
            ),
            Runner("bare loop", partial(bare_loop, steps=steps), kind="raw", note="not persisted"),
        ),
    )


CASES = (
    _case("cold-scalar", "a cold sequential map, int to int", 4.0, SCALAR),
    _case("cold-container", "a cold sequential map, int to small dict", 12.0, CONTAINER),
    _case("cold-chain", "a cold sequential map of three nodes, int to int", 10.0, CHAIN, 1_000_000, 0.1),
)
