"""The identity of one large contiguous array; an item is a MiB of it."""

from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from benchmarks.case import Case, Job, Runner, SpeedOf, Timer

ROUNDS = 5


def _hash_with(make: Callable[[], Callable[[Any], object]]) -> Callable[[Job], None]:
    def measure(job: Job) -> None:
        function = make()
        values = np.random.default_rng(0).random(job.items * 2**20 // 8)
        function(values[:1024])
        seconds = []
        for _ in range(ROUNDS):
            with (timer := Timer())():
                function(values)
            seconds.append(timer.seconds)
        job.timer.seconds = median(seconds)

    return measure


def _gristmill() -> Callable[[Any], object]:
    from gristmill import digest

    return digest


def _joblib() -> Callable[[Any], object]:
    from joblib import hash as joblib_hash

    function: Callable[[Any], object] = joblib_hash
    return function


def _xxhash() -> Callable[[Any], object]:
    from xxhash import xxh3_128_digest

    return xxh3_128_digest


CASES = (
    Case(
        name="hashing",
        title="the digest of a contiguous float64 array",
        items=256,
        quick_items=16,
        unit="µs/MiB",
        budget=SpeedOf("xxhash", 0.9),
        runners=(
            Runner("gristmill", _hash_with(_gristmill), kind="ours"),
            Runner("joblib.hash", _hash_with(_joblib), needs=("joblib",)),
            Runner("xxhash", _hash_with(_xxhash), kind="raw", note="xxh3_128 over the buffer"),
        ),
    ),
)
