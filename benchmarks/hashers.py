"""The identity of values, as each system takes it. Everything heavy is imported by the process that measures it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

from benchmarks.case import Job, Kind, Runner, Timer

ROUNDS = 5

Hash = Callable[[Any], object]
Make = Callable[[int], Any]
"""Makes what is hashed, of as many items as asked for."""


@dataclass(frozen=True)
class Hasher:
    """One system's way to identify a value, whatever the value is."""

    system: str
    load: Callable[[], Hash]
    """Imports what is needed and returns the function."""
    kind: Kind = "peer"
    needs: tuple[str, ...] = ()
    share: float = 1.0
    note: str = ""

    def each(self) -> Self:
        """The same for every item of a list, one after the other."""
        return replace(self, load=partial(_each, self.load))

    def runner(self, make: Make) -> Runner:
        """Hash what `make` makes."""
        measure = partial(_measure, load=self.load, make=make)
        return Runner(
            self.system, measure, kind=self.kind, needs=self.needs, share=self.share, note=self.note
        )


def _each(load: Callable[[], Hash]) -> Hash:
    function = load()

    def hash_each(values: Iterable[Any]) -> object:
        found = None
        for value in values:
            found = function(value)
        return found

    return hash_each


def _measure(job: Job, load: Callable[[], Hash], make: Make) -> None:
    """Hash one value again and again; only then another one, whose making would hide growth of memory."""
    function, value = load(), make(job.items)
    function(make(1))
    timers = [Timer() for _ in range(ROUNDS)]
    with timers[0]():
        found = function(value)
    for timer in timers[1:]:
        with timer():
            again = function(value)
        if again != found:
            raise AssertionError("the same value has two hashes")
        del again
    if function(make(job.items + 1)) == found:
        raise AssertionError("two values have the same hash")
    job.timer.seconds = min(timer.seconds for timer in timers)  # the rest is what others did meanwhile
    job.timer.growth = sum(timer.growth for timer in timers)


def _digest() -> Hash:
    from gristmill import digest

    return digest


def _mapped() -> Hash:
    from gristmill.plan.inputs import MappedInput

    return lambda values: MappedInput("x", (len(values),), values).digests


def _joblib() -> Hash:
    from joblib import hash as joblib_hash

    function: Hash = joblib_hash
    return function


def _dask() -> Hash:
    from dask.tokenize import tokenize

    function: Hash = tokenize
    return function


def _pipefunc() -> Hash:
    import pickle
    from hashlib import md5

    from pipefunc.cache import to_hashable

    return lambda value: md5(pickle.dumps(to_hashable(value))).digest()


def _xxhash() -> Hash:
    from xxhash import xxh3_128_digest

    return xxh3_128_digest


def _xxhash_copied() -> Hash:
    import numpy as np
    from xxhash import xxh3_128_digest

    return lambda array: xxh3_128_digest(np.ascontiguousarray(array).data)


def _xxhash_columns() -> Hash:
    from xxhash import xxh3_128_digest

    return lambda frame: [xxh3_128_digest(column.to_numpy()) for _, column in frame.items()]


DIGEST = Hasher("gristmill.digest", _digest, kind="ours")
MAPPED = Hasher("gristmill, mapped", _mapped, kind="ours", note="as what a map is given")
JOBLIB = Hasher("joblib.hash", _joblib, needs=("joblib",))
DASK = Hasher("dask tokenize", _dask, needs=("dask",))
PIPEFUNC = Hasher(
    "pipefunc to_hashable",
    _pipefunc,
    needs=("pipefunc",),
    note="a hashable, no digest yet: pickled and hashed as by its DiskCache",
)
XXHASH = Hasher("xxhash", _xxhash, kind="raw", note="xxh3_128 over the buffer")
XXHASH_COPIED = Hasher("copy + xxhash", _xxhash_copied, kind="raw", note="of a C-ordered copy")
XXHASH_COLUMNS = Hasher("xxhash", _xxhash_columns, kind="raw", note="xxh3_128 over each column's buffer")
