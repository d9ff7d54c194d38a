"""What a fingerprint says about itself: its parts, what it could not follow, and the versions it counts."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from gristmill.identity.code import origin
from gristmill.identity.fingerprint import CodeReport, Part, fingerprint
from gristmill.identity.types import Digest


def run(source: str) -> Any:
    """Run a program as a notebook would; return its `f`."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(dedent(source), "cell", "exec"), space)
    return space["f"]


def report(source: str, **options: Any) -> CodeReport:
    return fingerprint(run(source), explain=True, **options)


PROGRAM = """
import numpy as np
THRESHOLD = 1
def strip(x): return x
def f(x): return np.sin(strip(x)) + THRESHOLD
"""


def changed(before: CodeReport, after: CodeReport) -> set[str]:
    return {part.name for part in set(before.parts) ^ set(after.parts)}


def test_a_fingerprint_is_a_digest() -> None:
    found = fingerprint(run(PROGRAM))
    assert isinstance(found, Digest)
    assert str(found).startswith("x3:")
    assert report(PROGRAM).digest == found


def test_parts_name_helpers_globals_and_libraries() -> None:
    parts = {(part.kind, part.name): part.location for part in report(PROGRAM).parts}
    assert parts["function", "strip"] == "cell:4"
    assert ("value", "THRESHOLD") in parts
    assert parts["distribution", f"numpy {np.__version__.split('.')[0]}"] == np.__version__


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("THRESHOLD = 1", "THRESHOLD = 2", "THRESHOLD"),
        ("def strip(x): return x", "def strip(x): return -x", "strip"),
        ("+ THRESHOLD", "- THRESHOLD", "f"),
    ],
)
def test_only_the_part_that_changed_has_another_digest(old: str, new: str, name: str) -> None:
    assert changed(report(PROGRAM), report(PROGRAM.replace(old, new))) == {name}


def test_parts_are_frozen_and_in_one_order() -> None:
    found = report(PROGRAM)
    assert found.parts == report(PROGRAM).parts
    with pytest.raises(AttributeError):
        found.parts[0].name = "other"  # type: ignore[misc]
    assert isinstance(found.parts[0], Part)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def f(x): return eval(x)", "`eval`"),
        ("def f(x): exec(x)", "`exec`"),
        ("def f(x): return getattr(x, x.name)()", "`getattr`"),
        ("def f(x): return globals()[x]", "`globals`"),
        ("def f(x): return [eval(y) for y in x]", "`eval`"),
        ("import importlib\ndef f(x): return importlib.import_module(x)", "`importlib.import_module`"),
        ("def f(x):\n  import not_a_module_anywhere as m\n  return m", "not_a_module_anywhere"),
        ("def f(x): return not_defined(x)", "not_defined"),
        ("n = 0\ndef f(x):\n  global n\n  n += 1\n  return n", "`n`"),
        (
            "class C:\n  def __reduce_ex__(s, p): raise TypeError('no')\nc = C()\ndef f(x): return c",
            "`c` (C)",
        ),
        ("import numpy as np\nu = np.frompyfunc(lambda a: a, 1, 1)\ndef f(x): return u(x)", "`u`"),
    ],
)
def test_what_cannot_be_followed_is_listed(source: str, said: str) -> None:
    assert said in " ".join(report(source).unfollowed)


@pytest.mark.parametrize(
    "source",
    [
        PROGRAM,
        "def f(x): return getattr(x, 'name', None)",
        "def f(x):\n  import json\n  return json.loads(x)",
        "import logging\nL = logging.getLogger()\ndef f(x): L.info(x)",
        "import threading\nL = threading.Lock()\ndef f(x):\n  with L: return x",
        "def f(x): return f(x - 1) if x else 0",
        "class C:\n  n: int = 1\n  def m(self): return self.n\ndef f(x): return C().m()",
    ],
)
def test_ordinary_code_is_followed_completely(source: str) -> None:
    assert report(source).unfollowed == ()


def test_a_value_without_a_digest_still_counts_by_what_it_holds() -> None:
    source = """
    import threading
    class Client:
        def __init__(self):
            self.lock, self.retries = threading.Lock(), 3
    client = Client()
    def f(x): return client.retries
    """
    assert report(source).digest != report(source.replace("3", "4")).digest
    assert report(source).unfollowed == ()


def test_a_version_stands_for_the_code() -> None:
    one, two = run("def f(x): return 1"), run("def f(x): return 2")
    assert fingerprint(one, version="1") == fingerprint(two, version="1")
    assert fingerprint(one, version="1") != fingerprint(one, version="2")
    assert fingerprint(one, version="1") != fingerprint(one)


def test_functions_of_one_version_and_different_names_differ() -> None:
    assert fingerprint(np.sin, version="1") != fingerprint(len, version="1")
    assert fingerprint(functools.partial(len), version="1") != fingerprint(len, version="1")


def test_an_unknown_policy_is_an_error() -> None:
    with pytest.raises(ValueError, match="'minor'"):
        fingerprint(len, versions="minor")  # type: ignore[call-overload]


def test_defaults_count_where_they_are_asked_for() -> None:
    one, two = run("def f(x, k=1): return k"), run("def f(x, k=2): return k")
    assert fingerprint(one) == fingerprint(two)
    assert fingerprint(one, defaults=True) != fingerprint(two, defaults=True)


# Distributions, as they would be installed.


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for installed packages on the path; what is known of others is forgotten before and after."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    forget()
    yield folder
    forget()


def forget() -> None:
    """Forget which distributions there are: a process does not expect them to change under it."""
    for remembered in vars(origin).values():
        if hasattr(remembered, "cache_clear"):
            remembered.cache_clear()


def install(
    folder: Path, name: str, version: str, body: str = "def g(x): return 1", requires: str = ""
) -> None:
    for old in folder.glob(f"{name}-*"):
        (old / "METADATA").unlink()
        old.rmdir()
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "__init__.py").write_text(body)
    (folder / f"{name}-{version}.dist-info").mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requires}"] if requires else []
    (folder / f"{name}-{version}.dist-info" / "METADATA").write_text("\n".join(lines) + "\n")
    forget()


USES = "import {0}\ndef f(x): return {0}.g(x)"


@pytest.mark.parametrize(
    ("policy", "keeps"),
    [("major", (True, True, False)), ("exact", (False, False, False)), ("ignore", (True, True, True))],
)
def test_a_policy_says_which_releases_of_a_library_count(
    installed: Path, policy: Any, keeps: tuple[bool, bool, bool]
) -> None:
    name = f"lib_{policy}"
    install(installed, name, "1.2.3")
    f = run(USES.format(name))

    def with_version(version: str) -> Digest:
        install(installed, name, version)
        return fingerprint(run(USES.format(name)), versions=policy)

    before = fingerprint(f, versions=policy)
    assert tuple(with_version(version) == before for version in ("1.2.4", "1.3.0", "2.0.0")) == keeps


def test_the_code_of_a_library_does_not_count(installed: Path) -> None:
    install(installed, "lib_code", "1.0")
    before = fingerprint(run(USES.format("lib_code")))
    install(installed, "lib_code", "1.0", "def g(x): return 22222")
    del sys.modules["lib_code"]
    assert fingerprint(run(USES.format("lib_code"))) == before


def test_every_version_is_shown_whatever_counts(installed: Path) -> None:
    install(installed, "lib_shown", "1.2.3")
    for policy, name in (("major", "lib_shown 1"), ("exact", "lib_shown 1.2.3"), ("ignore", "lib_shown")):
        parts = report(USES.format("lib_shown"), versions=policy).parts
        assert (name, "1.2.3") in {
            (part.name, part.location) for part in parts if part.kind == "distribution"
        }


def test_a_node_of_an_installed_library_is_its_name_and_version(installed: Path) -> None:
    install(installed, "lib_node", "1.0", "def h(x): return 1\ndef g(x): return h(x)")
    import lib_node  # type: ignore[import-not-found]

    names = {part.name for part in fingerprint(lib_node.g, explain=True).parts}
    assert names == {"lib_node.g", "lib_node 1"}


def test_an_installed_package_that_builds_on_this_one_is_the_users_own(installed: Path) -> None:
    install(installed, "lib_own", "1.0", "def h(x): return 1\ndef g(x): return h(x)", "gristmill>=0.1")
    import lib_own  # type: ignore[import-not-found]

    before = fingerprint(lib_own.g)
    lib_own.h = run("def f(x): return 2")
    assert fingerprint(lib_own.g) != before


def test_an_installed_package_can_be_called_the_users_own(installed: Path) -> None:
    install(installed, "lib_mine", "1.0")
    f = run(USES.format("lib_mine"))
    named, followed = fingerprint(f), fingerprint(f, own_modules=["lib_mine"])
    del sys.modules["lib_mine"]
    install(installed, "lib_mine", "1.0", "def g(x): return 22222")
    again = run(USES.format("lib_mine"))
    assert fingerprint(again) == named
    assert fingerprint(again, own_modules=["lib_mine"]) != followed


def test_what_the_user_puts_into_a_library_counts_at_once(installed: Path) -> None:
    install(installed, "lib_patched", "1.0")
    f = run(USES.format("lib_patched"))
    before = fingerprint(f)
    f.__globals__["lib_patched"].g = run("def f(x): return 2")
    assert fingerprint(f) != before


def test_a_module_of_the_users_can_be_called_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    forget()
    (tmp_path / "tools_big.py").write_text("def g(x): return 1")
    before = fingerprint(run(USES.format("tools_big")), library_modules=["tools_big"])
    del sys.modules["tools_big"]
    (tmp_path / "tools_big.py").write_text("def g(x): return 22222")
    after = run(USES.format("tools_big"))
    assert fingerprint(after, library_modules=["tools_big"]) == before
    assert fingerprint(after) != fingerprint(after, library_modules=["tools_big"])
    del sys.modules["tools_big"]


def test_parts_of_a_package_may_be_listed_apart_from_it() -> None:
    policy = origin.Policy(own=frozenset({"numpy.mine"}), libraries=frozenset({"tests"}))
    found = {
        name: policy.origin(name).value for name in ("numpy", "numpy.mine.x", "numpy.mines", "tests.support")
    }
    assert found == {
        "numpy": "library",
        "numpy.mine.x": "own",
        "numpy.mines": "library",
        "tests.support": "library",
    }


def test_what_changed_besides_an_upgraded_library_is_told_apart(installed: Path) -> None:
    install(installed, "lib_upgraded", "1.0")
    source = USES.format("lib_upgraded") + "\ndef h(x): return {}\nk = f\ndef f(x): return k(x) + h(x)"
    before = report(source.format(1)).parts
    install(installed, "lib_upgraded", "2.0")
    after, edited = report(source.format(1)).parts, report(source.format(2)).parts
    assert [part.name for part in set(after) - set(before)] == ["lib_upgraded 2"]
    assert {part.name.rpartition(".")[2] for part in set(edited) - set(before)} == {"h", "lib_upgraded 2"}
