"""Large ledgers: a complete map asked for in another order, or with more inputs; what that takes of memory."""

import random
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from benchmarks.case import AtMost, Case, Job, Runner
from benchmarks.systems import CHAIN, SCALAR, WARM_ITEMS, WORKERS, Step, check, with_gristmill, worker_peaks

MILLION = 1_000_000


def _resume(
    job: Job,
    inputs: Sequence[int],
    steps: tuple[Step, ...] = SCALAR,
    executor: Literal["sequential", "parallel"] = "sequential",
) -> None:
    """Map over `inputs`, on a copy of the store that `prepare` has left."""
    from gristmill import Engine, Pipeline, Store, node

    nodes = [node(step.function, output_name=step.output, mapspec=step.mapspec) for step in steps]
    engine = Engine(map_executor=executor, max_workers=WORKERS)
    with Store.temporary() as elsewhere:  # what a first map imports and starts, everybody may have ready
        Pipeline(nodes, store=elsewhere, engine=engine).map({"x": range(10 * WARM_ITEMS)})
    before = worker_peaks()
    copy = job.directory / "copy"
    shutil.copytree(job.directory / "store", copy)
    try:
        with Store(copy) as store:
            pipeline = Pipeline(nodes, store=store, engine=engine)
            with job.timer():
                result = pipeline.map({"x": inputs})
            check(result[steps[-1].output][len(inputs) - 1], steps, inputs[-1])
            job.facts["computed"] = result.stats.computed
    finally:
        shutil.rmtree(copy)
    job.facts["parent B/item"] = job.timer.growth / len(inputs)
    grown = [peak - before.get(process, 0) for process, peak in worker_peaks().items()]
    if executor == "parallel" and grown:
        job.facts["worker MB"] = max(grown) / 1e6


def _in_order(job: Job) -> None:
    _resume(job, range(job.items))


def _shuffled(job: Job) -> None:
    inputs = list(range(job.items))
    random.Random(0).shuffle(inputs)
    _resume(job, inputs)


def _extended(job: Job) -> None:
    _resume(job, range(job.items + job.items // 10))


def _extended_in_workers(job: Job) -> None:
    """Workers look up below what they compute, beside all that is in the ledger."""
    _resume(job, range(job.items + job.items // 10), CHAIN[:2], "parallel")


def _prepare(job: Job, steps: tuple[Step, ...] = SCALAR) -> None:
    Path(job.directory).mkdir(exist_ok=True)
    with_gristmill(job, steps)


_ORDER = Runner("gristmill", _in_order, prepare=_prepare, kind="ours")
_SHUFFLED = Runner("gristmill", _shuffled, prepare=_prepare, kind="ours")
_EXTENDED = Runner("gristmill", _extended, prepare=_prepare, kind="ours")
_WORKERS = Runner("gristmill", _extended_in_workers, prepare=partial(_prepare, steps=CHAIN[:2]), kind="ours")


def _case(name: str, title: str, runner: Runner, *, millions: int, share: int) -> Case:
    """Resume so many millions of items for `share` times what a map in order may cost."""
    return Case(
        name=name,
        title=title,
        items=millions * MILLION,
        quick_items=2_000,
        budget=AtMost(1.5 * share),
        memory_per_item=64 * share,
        long=millions > 1,
        runners=(runner,),
    )


CASES = (
    _case("resumed-shuffled", "a complete map resumed in another order", _SHUFFLED, millions=1, share=2),
    _case("resumed-extended", "a map resumed with a tenth more inputs", _EXTENDED, millions=1, share=2),
    Case(
        name="resumed-workers",
        title=f"a chain of two resumed with a tenth more inputs, {WORKERS} workers",
        items=3 * MILLION,
        quick_items=2_000,
        long=True,
        runners=(_WORKERS,),
    ),
    _case("resumed-10m", "ten million items resumed", _ORDER, millions=10, share=1),
    _case("resumed-10m-shuffled", "ten million items in another order", _SHUFFLED, millions=10, share=2),
    _case("resumed-10m-extended", "ten million items and a tenth more", _EXTENDED, millions=10, share=2),
)
