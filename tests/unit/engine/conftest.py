"""Fixtures of the engine's tests."""

from pathlib import Path

import pytest
from tests.support.calls import CallLog


@pytest.fixture(params=["sequential", "threaded", "parallel"])
def executor(request: pytest.FixtureRequest) -> str:
    """Each executor in turn."""
    return str(request.param)


@pytest.fixture
def log(tmp_path: Path) -> CallLog:
    """A log for the calls of one test."""
    return CallLog(tmp_path / "calls.log")
