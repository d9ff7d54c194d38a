"""A fingerprint asked for again is up to date, whatever has changed in the process meanwhile."""

from __future__ import annotations

import functools
import gc
import importlib
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gristmill.identity.fingerprint import fingerprint

HELPERS = """
STEP = 1
TABLE = {"a": [1]}
ARRAY = None
def helper(x, k=1, *, j=2):
    return x + STEP
def other(x):
    return x - STEP
class Box:
    side = 1
    def size(self):
        return self.side
BOX = Box()
REGISTRY = {"h": helper, "o": other}
"""

STEPS = """
import functools
import helpers
from helpers import Box
def f(x):
    return helpers.helper(x) + Box().size() + len(helpers.TABLE) + helpers.BOX.size()
def g(x):
    return helpers.REGISTRY[x](1) + helpers.ARRAY
def late(x):
    return undefined(x)
def make(k):
    table = [k]
    def inner(x):
        return table[0] + k
    def change(value):
        nonlocal k
        k = value
    return inner, change, table
"""


Modules = tuple[Any, Any]


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Modules]:
    (tmp_path / "helpers.py").write_text(HELPERS)
    (tmp_path / "steps.py").write_text(STEPS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield importlib.import_module("steps"), importlib.import_module("helpers")
    del sys.modules["steps"], sys.modules["helpers"]


def replace_helper(helpers: Any) -> None:
    helpers.helper = lambda x: x


def replace_code(helpers: Any) -> None:
    helpers.helper.__code__ = helpers.other.__code__


def replace_defaults(helpers: Any) -> None:
    helpers.helper.__defaults__ = (2,)


def change_keyword_default(helpers: Any) -> None:
    helpers.helper.__kwdefaults__["j"] = 3


def rebind_global(helpers: Any) -> None:
    helpers.STEP = 2


def change_container(helpers: Any) -> None:
    helpers.TABLE["a"].append(2)


def replace_method(helpers: Any) -> None:
    helpers.Box.size = lambda self: 2


def change_class_attribute(helpers: Any) -> None:
    helpers.Box.side = 2


def change_instance(helpers: Any) -> None:
    helpers.BOX.side = 2


CHANGES: list[Callable[[Any], None]] = [
    replace_helper,
    replace_code,
    replace_defaults,
    change_keyword_default,
    rebind_global,
    change_container,
    replace_method,
    change_class_attribute,
    change_instance,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_in_the_process_is_noticed(modules: Modules, change: Callable[[Any], None]) -> None:
    steps, helpers = modules
    before = fingerprint(steps.f)
    assert fingerprint(steps.f) == before
    change(helpers)
    assert fingerprint(steps.f) != before


def test_undoing_a_change_brings_the_fingerprint_back(modules: Modules) -> None:
    steps, helpers = modules
    before, original = fingerprint(steps.f), helpers.helper
    replace_helper(helpers)
    fingerprint(steps.f)
    helpers.helper = original
    assert fingerprint(steps.f) == before


def test_an_edited_and_reloaded_module_is_noticed(modules: Modules, tmp_path: Path) -> None:
    steps, helpers = modules
    before = fingerprint(steps.f)
    (tmp_path / "helpers.py").write_text(HELPERS.replace("x + STEP", "x * STEP"))
    importlib.reload(helpers)
    assert fingerprint(steps.f) != before


def test_an_edited_module_that_is_not_reloaded_runs_the_old_code_and_has_its_fingerprint(
    modules: Modules, tmp_path: Path
) -> None:
    steps, _ = modules
    before = fingerprint(steps.f)
    (tmp_path / "helpers.py").write_text(HELPERS.replace("x + STEP", "x * STEP"))
    assert fingerprint(steps.f) == before


def test_reloading_an_unchanged_module_changes_nothing(modules: Modules) -> None:
    steps, helpers = modules
    before = fingerprint(steps.f)
    importlib.reload(helpers)
    importlib.reload(steps)
    assert fingerprint(steps.f) == before


def test_functions_swapped_in_a_table_are_noticed(modules: Modules) -> None:
    steps, helpers = modules
    before = fingerprint(steps.g)
    helpers.REGISTRY.update(h=helpers.other, o=helpers.helper)
    assert fingerprint(steps.g) != before


def test_an_array_edited_in_place_is_noticed(modules: Modules) -> None:
    steps, helpers = modules
    helpers.ARRAY = np.zeros(10_000)
    before = fingerprint(steps.g)
    helpers.ARRAY[5_000] = 1
    assert fingerprint(steps.g) != before


def test_a_name_defined_later_is_noticed(modules: Modules) -> None:
    steps, _ = modules
    report = fingerprint(steps.late, explain=True)
    assert "undefined" in report.unfollowed[0]
    steps.undefined = lambda x: x
    later = fingerprint(steps.late, explain=True)
    assert later.digest != report.digest
    assert later.unfollowed == ()


def test_a_closure_variable_set_anew_is_noticed(modules: Modules) -> None:
    inner, change, table = modules[0].make(1)
    before = fingerprint(inner)
    change(2)
    after = fingerprint(inner)
    table.append(3)
    assert len({before, after, fingerprint(inner)}) == 3


def test_a_case_registered_later_is_noticed() -> None:
    @functools.singledispatch
    def f(x: object) -> object:
        return x

    before = fingerprint(f)
    f.register(int, lambda x: -x)
    assert fingerprint(f) != before


def test_calling_a_cached_helper_changes_nothing() -> None:
    @functools.lru_cache
    def helper(x: int) -> int:
        return x

    def f(x: int) -> int:
        return helper(x)

    before = fingerprint(f)
    f(1)
    assert fingerprint(f) == before


def test_a_function_is_not_kept_alive_by_its_fingerprint() -> None:
    def make() -> Callable[[int], int]:
        def f(x: int) -> int:
            return x

        return f

    function = make()
    fingerprint(function)
    reference = weakref.ref(function)
    del function
    gc.collect()
    assert reference() is None


def test_a_new_function_at_the_same_address_is_another_function() -> None:
    found = set()
    for i in range(50):
        space: dict[str, Any] = {"__name__": "__main__"}
        exec(f"def f(x): return x + {i}", space)
        found.add(fingerprint(space["f"]))
        del space
        gc.collect(0)  # it is young
    assert len(found) == 50
