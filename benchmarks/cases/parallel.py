"""A map of a trivial function on two warm worker processes: what handing items over costs."""

from functools import partial

from benchmarks import functions
from benchmarks.case import AtMost, Case, Job, Runner
from benchmarks.systems import SCALAR, WARM_ITEMS, WORKERS, check, warm_loky, with_gristmill, with_pipefunc

CHUNK = 1_000


def _pipefunc(job: Job) -> None:
    with_pipefunc(job, SCALAR, executor=warm_loky())


def _joblib(job: Job) -> None:
    from joblib import Memory, Parallel, delayed

    cached = Memory(job.directory / "memory", verbose=0).cache(functions.double)
    with Parallel(n_jobs=WORKERS) as parallel:
        parallel(delayed(cached)(x) for x in range(-WARM_ITEMS, 0))
        with job.timer():
            values = parallel(delayed(cached)(x) for x in range(job.items))
    check(values[-1], SCALAR, job.items - 1)


def _submitted(job: Job) -> None:
    executor = warm_loky()
    with job.timer():
        futures = [executor.submit(functions.double, x) for x in range(job.items)]
        values = [future.result() for future in futures]
    check(values[-1], SCALAR, job.items - 1)


def _chunked(job: Job) -> None:
    executor = warm_loky()
    with job.timer():
        values = list(executor.map(functions.double, range(job.items), chunksize=CHUNK))
    check(values[-1], SCALAR, job.items - 1)


CASES = (
    Case(
        name="parallel-scalar",
        title=f"a cold map, int to int, {WORKERS} warm workers",
        items=200_000,
        quick_items=2_000,
        budget=AtMost(4.0),
        runners=(
            Runner("gristmill", partial(with_gristmill, steps=SCALAR, executor="parallel"), kind="ours"),
            Runner("pipefunc file_array", _pipefunc, needs=("pipefunc",), share=0.05),
            Runner("joblib.Parallel + Memory", _joblib, needs=("joblib",), share=0.05),
            Runner("loky submit", _submitted, kind="raw", share=0.1, note="not persisted"),
            Runner("loky map", _chunked, kind="raw", note=f"not persisted; chunks of {CHUNK:,}"),
        ),
    ),
)
