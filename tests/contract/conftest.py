"""Executors of one's own, made once for each module of tests."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.executors import OWN


class Kept(dict[str, Any]):
    """Executors that were made, by name; what is no executor of one's own is the name itself."""

    def __missing__(self, name: str) -> Any:
        if name not in OWN:
            return name
        self[name] = OWN[name]()
        return self[name]


@pytest.fixture(scope="module")
def kept() -> Iterator[Kept]:
    """Executors by name: the same for all maps of a module."""
    made = Kept()
    yield made
    for executor in made.values():
        if hasattr(executor, "shutdown"):
            executor.shutdown()
