"""The identity of values: large arrays and frames, many scalars, small containers and objects."""

from dataclasses import replace

from benchmarks import values
from benchmarks.case import AtMost, Case, SpeedOf
from benchmarks.hashers import (
    DASK,
    DIGEST,
    JOBLIB,
    MAPPED,
    PIPEFUNC,
    XXHASH,
    XXHASH_COLUMNS,
    XXHASH_COPIED,
    Hasher,
    Make,
)

BLOCKS = 16_000_000
"""Bytes of memory for the blocks that a large value is read in."""
MANY, FEW = 1_000_000, 2_000

_ONE_BY_ONE = DIGEST.each()
_INSTANCES = "dataclass instances, for gristmill alone with their class's code"


def _large(name: str, title: str, mib: int, make: Make, hashers: tuple[Hasher, ...], budget: SpeedOf) -> Case:
    """A case of one large value; an item is a MiB of it."""
    return Case(
        name=name,
        title=title,
        items=mib,
        quick_items=4,
        unit="µs/MiB",
        budget=budget,
        memory=BLOCKS,
        runners=tuple(hasher.runner(make) for hasher in hashers),
    )


def _scalars(kind: str, plural: str, make: Make) -> tuple[Case, Case]:
    """Two cases: as a map digests its inputs, and one by one, as everybody else does."""

    def as_bytes(n: int) -> list[bytes]:
        return [repr(value).encode() for value in make(n)]

    others = (
        replace(JOBLIB, share=0.05).each().runner(make),
        replace(DASK, share=0.1).each().runner(make),
        replace(PIPEFUNC, share=0.2).each().runner(make),
        replace(XXHASH, note="of bytes that are ready").each().runner(as_bytes),
    )

    def case(name: str, title: str, budget: float, ours: Hasher) -> Case:
        runners = (ours.runner(make), *others)
        return Case(name, title, items=MANY, quick_items=FEW, runners=runners, budget=AtMost(budget))

    return (
        case(f"hashing-column-{kind}", f"{plural} that are mapped over", 0.4, MAPPED),
        case(f"hashing-{kind}", f"{plural}, one by one", 1.0, _ONE_BY_ONE),
    )


def _compound(
    name: str, title: str, make: Make, budget: AtMost | None = None, ours: Hasher = _ONE_BY_ONE
) -> Case:
    """A case of many small values with parts."""
    peers = (replace(JOBLIB, share=0.2), replace(DASK, share=0.2), PIPEFUNC)
    runners = (ours.runner(make), *(peer.each().runner(make) for peer in peers))
    return Case(name, title, items=20_000, quick_items=200, runners=runners, budget=budget)


CASES = (
    _large(
        "hashing-array",
        "a contiguous float64 array",
        256,
        values.array,
        (DIGEST, JOBLIB, replace(DASK, note="64 bits"), replace(PIPEFUNC, share=1 / 128), XXHASH),
        SpeedOf(XXHASH.system, 0.9),
    ),
    _large(
        "hashing-fortran",
        f"a float64 array of {values.COLUMNS:,} columns in Fortran order",
        256,
        values.fortran,
        (
            replace(DIGEST, note="the digest of the equal array in C order"),
            replace(JOBLIB, note="memory as it lies: the equal array in C order has another hash"),
            replace(DASK, note="memory as it lies: a square array and its transpose have one token"),
            replace(PIPEFUNC, share=1 / 128),
            XXHASH_COPIED,
        ),
        SpeedOf(XXHASH_COPIED.system, 1.0),
    ),
    _large(
        "hashing-frame",
        f"a pandas frame, {values.FRAME_COLUMNS} columns of float64, a million rows",
        80,
        values.frame,
        tuple(
            replace(hasher, needs=(*hasher.needs, "pandas"))
            for hasher in (DIGEST, JOBLIB, DASK, replace(PIPEFUNC, share=1 / 16), XXHASH_COLUMNS)
        ),
        SpeedOf(XXHASH_COLUMNS.system, 0.9),
    ),
    *_scalars("int", "ints", values.ints),
    *_scalars("float", "floats", values.floats),
    *_scalars("str", "short strings", values.texts),
    Case(
        name="hashing-list",
        title="one list of floats",
        items=MANY,
        quick_items=FEW,
        unit="µs/float",
        budget=AtMost(0.35),
        runners=tuple(
            hasher.runner(values.floats) for hasher in (DIGEST, replace(JOBLIB, share=0.2), DASK, PIPEFUNC)
        ),
    ),
    _compound("hashing-dict", "dicts of twenty scalars", values.dicts, AtMost(15)),
    _compound("hashing-nested", "dicts of small containers", values.nested),
    _compound("hashing-dataclass", f"{_INSTANCES}, one by one", values.measurements),
    _compound("hashing-column-dataclass", f"{_INSTANCES}, mapped", values.measurements, ours=MAPPED),
)
