"""A complete map is asked for again, in a new process: nothing is left to compute."""

from functools import partial

from benchmarks.case import AtMost, Case, Runner
from benchmarks.systems import CHAIN, SCALAR, Step, with_gristmill, with_joblib, with_pipefunc


def _case(name: str, title: str, budget: float, memory: int, steps: tuple[Step, ...]) -> Case:
    complete = partial(with_gristmill, steps=steps)
    file_array = partial(with_pipefunc, steps=steps)
    dumped = partial(with_pipefunc, steps=steps, storage="dict")
    cached = partial(with_joblib, steps=steps)
    return Case(
        name=name,
        title=title,
        items=1_000_000,
        quick_items=2_000,
        budget=AtMost(budget),
        memory_per_item=memory,
        runners=(
            Runner("gristmill", complete, prepare=complete, kind="ours"),
            Runner(
                "pipefunc file_array",
                partial(file_array, resume=True),
                prepare=file_array,
                needs=("pipefunc",),
                share=0.02,
            ),
            Runner(
                "pipefunc dict",
                partial(dumped, resume=True),
                prepare=dumped,
                needs=("pipefunc",),
                share=0.1,
                note="one pickle, written when the map has ended; a killed run leaves nothing",
            ),
            Runner("joblib.Memory", cached, prepare=cached, needs=("joblib",), share=0.01),
        ),
    )


CASES = (
    _case("resumed", "a complete map resumed, one node", 1.5, 64, SCALAR),
    _case("resumed-chain", "a complete map resumed, three nodes", 3.0, 3 * 64, CHAIN),
)
