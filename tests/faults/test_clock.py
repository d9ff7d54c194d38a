"""The clock jumps, by years, forth and back: what was found is found, what is new is kept, what is in use stays."""

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gristmill import Pipeline, Store, node

YEAR = 365 * 86400
JUMPS = (10 * YEAR, -10 * YEAR, 0)


class Clock:
    """The wall clock, some seconds off; what measures durations goes on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.off = 0
        now, now_ns = time.time, time.time_ns
        monkeypatch.setattr(time, "time", lambda: now() + self.off)
        monkeypatch.setattr(time, "time_ns", lambda: now_ns() + self.off * 10**9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def image(x: int) -> Any:
    return np.full(10_000, x)


def total(image: Any) -> int:
    return int(image[:, 0].sum())


NODES = [node(image, mapspec="x[i] -> image[i]"), node(total)]


def test_what_was_found_is_found_and_what_is_new_is_kept(tmp_path: Path, clock: Clock) -> None:
    for count, clock.off in enumerate((0, *JUMPS), 10):
        for new in (11 if count == 10 else 2, 0):  # an index and the total
            with Store(tmp_path / "store") as store:
                result = Pipeline(NODES, store=store).map({"x": range(count)}, map_executor="sequential")
                assert result["total"] == sum(range(count))
                assert result.stats.computed == new
    with Store(tmp_path / "store") as store:
        assert store.verify().damaged == []
        assert len(store.runs()) == 8


@pytest.mark.parametrize("off", JUMPS)
@pytest.mark.parametrize("later", JUMPS)
def test_what_is_in_use_is_not_collected(off: int, later: int, tmp_path: Path, clock: Clock) -> None:
    clock.off = off
    with Store(tmp_path / "store") as store, Store(tmp_path / "store") as other:
        result = Pipeline(NODES[:1], store=store).map({"x": range(20)}, map_executor="sequential")
        clock.off = later
        other.gc(older_than=timedelta(days=1))
        assert [array[0] for array in result["image"]] == list(range(20))
        assert other.verify().damaged == []
        again = Pipeline(NODES[:1], store=other).map({"x": range(20)}, map_executor="sequential")
        assert again.stats.computed == 0
