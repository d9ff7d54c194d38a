"""Fixtures of what other libraries do, too."""

import pytest


@pytest.fixture(params=["sequential", "parallel"])
def executor(request: pytest.FixtureRequest) -> str:
    """Each executor in turn."""
    return str(request.param)
