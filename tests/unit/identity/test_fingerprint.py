"""Each row of the table "must change / must not change" in the design of identity, in separate processes."""

# ruff: noqa: E501 - a program of a few statements is easier to compare on one line.

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

import pytest

RUNNER = """
import importlib, json, os, sys

def answer(job):
    sys.path.insert(0, job["root"])
    for name in job["first"]:
        importlib.import_module(name)
    module = importlib.import_module(job["module"])
    from gristmill.identity.fingerprint import fingerprint
    report = fingerprint(eval(job["target"], vars(module)), explain=True, **job["options"])
    return {
        "digest": str(report.digest),
        "parts": [[p.kind, p.name, p.location, str(p.digest)] for p in report.parts],
        "unfollowed": list(report.unfollowed),
    }

def isolated(job):
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            result = answer(job)
        except BaseException as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        with os.fdopen(write, "w") as pipe:
            json.dump(result, pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        result = json.load(pipe)
    os.wait()
    return result

import gristmill.identity.fingerprint, gristmill.identity.digest
json.dump([isolated(job) for job in json.load(sys.stdin)], sys.stdout)
"""


@dataclass(frozen=True)
class Variant:
    """A program on disk and what to fingerprint in it."""

    source: str | Mapping[str, str]
    target: str = "f"
    module: str = "pkg.steps"
    options: Mapping[str, object] = field(default_factory=dict)
    first: Sequence[str] = ()

    def write(self, root: Path) -> dict[str, object]:
        """Write the program under `root`; return the runner's job."""
        files = {"steps.py": self.source} if isinstance(self.source, str) else self.source
        for name, text in {"__init__.py": "", **files}.items():
            path = root / "pkg" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text))
        return {
            "root": str(root),
            "module": self.module,
            "target": self.target,
            "options": dict(self.options),
            "first": list(self.first),
        }


@dataclass(frozen=True)
class Report:
    """What a process said about a variant."""

    digest: str
    parts: tuple[tuple[str, ...], ...]
    unfollowed: tuple[str, ...]


def reports(variants: Sequence[Variant], root: Path, seed: int = 0) -> list[Report]:
    """Fingerprint each variant in a process of its own."""
    jobs = [variant.write(root / f"program {seed} {i}") for i, variant in enumerate(variants)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUNNER],
        input=json.dumps(jobs),
        env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    failed = [
        (variant, answer) for variant, answer in zip(variants, answers, strict=True) if "error" in answer
    ]
    assert not failed, failed
    return [
        Report(answer["digest"], tuple(map(tuple, answer["parts"])), tuple(answer["unfollowed"]))
        for answer in answers
    ]


Row = tuple[str, Variant | str | Mapping[str, str], Variant | str | Mapping[str, str]]

HELPERS = "from pkg.text import strip\ndef f(x): return strip(x)"


def same(source: str | Mapping[str, str], *targets: str) -> tuple[Variant, Variant]:
    """The same program, asked for two things."""
    before, after = targets
    return Variant(source, before), Variant(source, after)


CHANGES: list[Row] = [
    ("the body", "def f(x): return x + 1", "def f(x): return x + 2"),
    ("an operator", "def f(x): return x + 1", "def f(x): return x - 1"),
    ("a comparison", "def f(x): return x < 1", "def f(x): return x <= 1"),
    ("a method's name", "def f(x): return x.lower()", "def f(x): return x.upper()"),
    ("a condition's sense", "def f(x): return 1 if x else 2", "def f(x): return 1 if not x else 2"),
    ("the order of statements", "def f(x):\n a(x); b(x)", "def f(x):\n b(x); a(x)"),
    ("a constant's type: 1 to True", "def f(x): return [x, 1]", "def f(x): return [x, True]"),
    ("a constant's type: 1 to 1.0", "def f(x): return [x, 1]", "def f(x): return [x, 1.0]"),
    ("a constant's type: str to bytes", "def f(x): return [x, 'a']", "def f(x): return [x, b'a']"),
    ("a constant inside a tuple", "def f(x): return x in (1, 2)", "def f(x): return x in (1, 2.0)"),
    ("a constant inside a set", "def f(x): return x in {1, 2}", "def f(x): return x in {1, 3}"),
    ("the sign of zero", "def f(x): return [x, 0.0]", "def f(x): return [x, -0.0]"),
    ("the sign of a complex zero", "def f(x): return [x, 0j]", "def f(x): return [x, -0j]"),
    ("an order of parameters", "def f(x, y): return 1", "def f(y, x): return 1"),
    ("a parameter's kind", "def f(x, y): return 1", "def f(x, *, y): return 1"),
    ("a positional-only parameter", "def f(x, y): return 1", "def f(x, /, y): return 1"),
    ("args and kwargs", "def f(*a): return 1", "def f(**a): return 1"),
    ("a generator", "def f(x): return [x]", "def f(x): yield x"),
    ("a coroutine", "def f(x): return x", "async def f(x): return x"),
    ("an async generator", "async def f(x): return x", "async def f(x): yield x"),
    (
        "where an exception is caught",
        "def f(x):\n  try: return x()\n  except KeyError: return 1",
        "def f(x):\n  try: return x()\n  except ValueError: return 1",
    ),
    (
        "what a handler covers",
        "def f(x):\n  y = x()\n  try: z = y()\n  except KeyError: z = 1\n  return z",
        "def f(x):\n  try:\n    y = x()\n    z = y()\n  except KeyError: z = 1\n  return z",
    ),
    ("a comprehension", "def f(x): return [y + 1 for y in x]", "def f(x): return [y + 2 for y in x]"),
    ("a comprehension's kind", "def f(x): return [y for y in x]", "def f(x): return {y for y in x}"),
    ("a walrus", "def f(x): return (y := x + 1) * y", "def f(x): return (y := x + 2) * y"),
    (
        "a match",
        "def f(x):\n  match x:\n    case [a]: return a",
        "def f(x):\n  match x:\n    case [a, _]: return a",
    ),
    ("an f-string", "def f(x): return f'{x:.2f}'", "def f(x): return f'{x:.3f}'"),
    (
        "a nested function",
        "def f(x):\n  def g(): return 1\n  return g()",
        "def f(x):\n  def g(): return 2\n  return g()",
    ),
    (
        "a nested function's default",
        "def f(x):\n  def g(a=1): return a\n  return g()",
        "def f(x):\n  def g(a=2): return a\n  return g()",
    ),
    (
        "a nested class",
        "def f(x):\n  class C:\n    a = 1\n  return C",
        "def f(x):\n  class C:\n    a = 2\n  return C",
    ),
    (
        "a nonlocal",
        "def f(x):\n  n = 0\n  def g():\n    nonlocal n\n    n += 1\n  g()\n  return n",
        "def f(x):\n  n = 0\n  def g():\n    n = 1\n  g()\n  return n",
    ),
    # Helpers.
    ("a helper", "def g(x): return 1\ndef f(x): return g(x)", "def g(x): return 2\ndef f(x): return g(x)"),
    (
        "a helper defined below",
        "def f(x): return g(x)\ndef g(x): return 1",
        "def f(x): return g(x)\ndef g(x): return 2",
    ),
    (
        "a helper of a helper",
        "def h(x): return 1\ndef g(x): return h(x)\ndef f(x): return g(x)",
        "def h(x): return 2\ndef g(x): return h(x)\ndef f(x): return g(x)",
    ),
    (
        "a helper in another module",
        {"steps.py": HELPERS, "text.py": "def strip(x): return x.strip()"},
        {"steps.py": HELPERS, "text.py": "def strip(x): return x.lstrip()"},
    ),
    (
        "a helper reached through its module",
        {
            "steps.py": "from pkg import text\ndef f(x): return text.strip(x)",
            "text.py": "def strip(x): return 1",
        },
        {
            "steps.py": "from pkg import text\ndef f(x): return text.strip(x)",
            "text.py": "def strip(x): return 2",
        },
    ),
    (
        "a helper reached through its package",
        {
            "steps.py": "import pkg.a.b\ndef f(x): return pkg.a.b.g(x)",
            "a/__init__.py": "",
            "a/b.py": "def g(x): return 1",
        },
        {
            "steps.py": "import pkg.a.b\ndef f(x): return pkg.a.b.g(x)",
            "a/__init__.py": "",
            "a/b.py": "def g(x): return 2",
        },
    ),
    (
        "a helper imported in the body",
        {"steps.py": "def f(x):\n  from pkg.text import g\n  return g(x)", "text.py": "def g(x): return 1"},
        {"steps.py": "def f(x):\n  from pkg.text import g\n  return g(x)", "text.py": "def g(x): return 2"},
    ),
    (
        "a helper imported relatively in the body",
        {"steps.py": "def f(x):\n  from .text import g\n  return g(x)", "text.py": "def g(x): return 1"},
        {"steps.py": "def f(x):\n  from .text import g\n  return g(x)", "text.py": "def g(x): return 2"},
    ),
    (
        "a helper of a module imported in the body",
        {"steps.py": "def f(x):\n  import pkg.text as t\n  return t.g(x)", "text.py": "def g(x): return 1"},
        {"steps.py": "def f(x):\n  import pkg.text as t\n  return t.g(x)", "text.py": "def g(x): return 2"},
    ),
    (
        "a helper of a submodule imported in the body",
        {"steps.py": "def f(x):\n  import pkg.text\n  return pkg.text.g(x)", "text.py": "def g(x): return 1"},
        {"steps.py": "def f(x):\n  import pkg.text\n  return pkg.text.g(x)", "text.py": "def g(x): return 2"},
    ),
    (
        "a helper of a module that a nested function imports from its parent",
        {
            "steps.py": "def f(x):\n  from pkg import text\n  return [text.g(y) for y in x]",
            "text.py": "def g(x): return 1",
        },
        {
            "steps.py": "def f(x):\n  from pkg import text\n  return [text.g(y) for y in x]",
            "text.py": "def g(x): return 2",
        },
    ),
    (
        "a helper used only in a comprehension",
        "def g(x): return 1\ndef f(x): return [g(y) for y in x]",
        "def g(x): return 2\ndef f(x): return [g(y) for y in x]",
    ),
    (
        "a helper used only in a nested lambda",
        "def g(x): return 1\ndef f(x): return sorted(x, key=lambda y: g(y))",
        "def g(x): return 2\ndef f(x): return sorted(x, key=lambda y: g(y))",
    ),
    (
        "a helper defined under a condition",
        "import sys\nif sys:\n  def g(x): return 1\nelse:\n  def g(x): return 0\ndef f(x): return g(x)",
        "import sys\nif not sys:\n  def g(x): return 1\nelse:\n  def g(x): return 0\ndef f(x): return g(x)",
    ),
    (
        "a helper's default",
        "def g(x, k=1): return k\ndef f(x): return g(x)",
        "def g(x, k=2): return k\ndef f(x): return g(x)",
    ),
    (
        "a helper's keyword default",
        "def g(x, *, k=1): return k\ndef f(x): return g(x)",
        "def g(x, *, k=2): return k\ndef f(x): return g(x)",
    ),
    (
        "the default a recursive function calls itself with",
        "def f(x, k=1): return k if x else f(1)",
        "def f(x, k=2): return k if x else f(1)",
    ),
    (
        "a helper in a mutual recursion",
        "def f(x): return g(x)\ndef g(x): return x and f(x - 1)",
        "def f(x): return g(x)\ndef g(x): return x or f(x - 1)",
    ),
    (
        "a table of helpers",
        "def g(x): return 1\nT = {'g': g}\ndef f(x): return T[x]",
        "def g(x): return 2\nT = {'g': g}\ndef f(x): return T[x]",
    ),
    (
        "a table's order of equal closures",
        "def m(k): return lambda x: k\na, b = m(1), m(2)\nT = {'a': a, 'b': b}\ndef f(x): return T[x]",
        "def m(k): return lambda x: k\na, b = m(1), m(2)\nT = {'a': b, 'b': a}\ndef f(x): return T[x]",
    ),
    (
        "a table that its own entries use",
        "def g(x): return T\nT = [g, 1]\ndef f(x): return T[x]",
        "def g(x): return T\nT = [g, 2]\ndef f(x): return T[x]",
    ),
    (
        "an attribute that a helper carries",
        "def g(x): return 1\ng.table = {1: 2}\ndef f(x): return g.table[x]",
        "def g(x): return 1\ng.table = {1: 3}\ndef f(x): return g.table[x]",
    ),
    # Classes.
    (
        "a method of a class that it uses",
        "class C:\n  def m(self): return 1\ndef f(x): return C().m()",
        "class C:\n  def m(self): return 2\ndef f(x): return C().m()",
    ),
    (
        "a base class",
        "class B:\n  def m(self): return 1\nclass C(B): pass\ndef f(x): return C().m()",
        "class B:\n  def m(self): return 2\nclass C(B): pass\ndef f(x): return C().m()",
    ),
    (
        "a base class in another module",
        {
            "steps.py": "from pkg.b import B\nclass C(B): pass\ndef f(x): return C().m()",
            "b.py": "class B:\n  def m(self): return 1",
        },
        {
            "steps.py": "from pkg.b import B\nclass C(B): pass\ndef f(x): return C().m()",
            "b.py": "class B:\n  def m(self): return 2",
        },
    ),
    (
        "the order of base classes",
        "class A: a = 1\nclass B: a = 2\nclass C(A, B): pass\ndef f(x): return C.a",
        "class A: a = 1\nclass B: a = 2\nclass C(B, A): pass\ndef f(x): return C.a",
    ),
    ("a class attribute", "class C: a = 1\ndef f(x): return C.a", "class C: a = 2\ndef f(x): return C.a"),
    (
        "a property",
        "class C:\n  @property\n  def p(self): return 1\ndef f(x): return C().p",
        "class C:\n  @property\n  def p(self): return 2\ndef f(x): return C().p",
    ),
    (
        "a cached property",
        "import functools\nclass C:\n  @functools.cached_property\n  def p(self): return 1\ndef f(x): return C().p",
        "import functools\nclass C:\n  @functools.cached_property\n  def p(self): return 2\ndef f(x): return C().p",
    ),
    (
        "a static method",
        "class C:\n  @staticmethod\n  def m(): return 1\ndef f(x): return C.m()",
        "class C:\n  @staticmethod\n  def m(): return 2\ndef f(x): return C.m()",
    ),
    (
        "static to class method",
        "class C:\n  @staticmethod\n  def m(*a): return 1\ndef f(x): return C.m()",
        "class C:\n  @classmethod\n  def m(*a): return 1\ndef f(x): return C.m()",
    ),
    (
        "a class that a method calls through super",
        "class B:\n  def m(self): return 1\nclass C(B):\n  def m(self): return super().m()\ndef f(x): return C().m()",
        "class B:\n  def m(self): return 2\nclass C(B):\n  def m(self): return super().m()\ndef f(x): return C().m()",
    ),
    (
        "a metaclass",
        "class M(type):\n  def m(c): return 1\nclass C(metaclass=M): pass\ndef f(x): return C.m()",
        "class M(type):\n  def m(c): return 2\nclass C(metaclass=M): pass\ndef f(x): return C.m()",
    ),
    (
        "an enumeration's value",
        "import enum\nclass E(enum.Enum):\n  A = 1\ndef f(x): return E.A.value",
        "import enum\nclass E(enum.Enum):\n  A = 2\ndef f(x): return E.A.value",
    ),
    (
        "a named tuple's default",
        "import typing\nclass N(typing.NamedTuple):\n  a: int = 1\ndef f(x): return N()",
        "import typing\nclass N(typing.NamedTuple):\n  a: int = 2\ndef f(x): return N()",
    ),
    (
        "a dataclass's default",
        "import dataclasses as d\n@d.dataclass\nclass C:\n  a: int = 1\ndef f(x): return C()",
        "import dataclasses as d\n@d.dataclass\nclass C:\n  a: int = 2\ndef f(x): return C()",
    ),
    (
        "a dataclass's default factory",
        "import dataclasses as d\n@d.dataclass\nclass C:\n  a: list = d.field(default_factory=lambda: [1])\ndef f(x): return C()",
        "import dataclasses as d\n@d.dataclass\nclass C:\n  a: list = d.field(default_factory=lambda: [2])\ndef f(x): return C()",
    ),
    (
        "a dataclass's options",
        "import dataclasses as d\n@d.dataclass(order=True)\nclass C:\n  a: int\ndef f(x): return C(1)",
        "import dataclasses as d\n@d.dataclass(order=False)\nclass C:\n  a: int\ndef f(x): return C(1)",
    ),
    (
        "a dataclass's annotation",
        "import dataclasses as d\n@d.dataclass\nclass C:\n  a: int\ndef f(x): return C(1)",
        "import dataclasses as d\n@d.dataclass\nclass C:\n  a: float\ndef f(x): return C(1)",
    ),
    (
        "a pydantic model's annotation",
        "import pydantic as p\nclass C(p.BaseModel):\n  a: int\ndef f(x): return C(a=1)",
        "import pydantic as p\nclass C(p.BaseModel):\n  a: float\ndef f(x): return C(a=1)",
    ),
    (
        "a pydantic model's constraint",
        "import pydantic as p\nclass C(p.BaseModel):\n  a: int = p.Field(gt=0)\ndef f(x): return C(a=1)",
        "import pydantic as p\nclass C(p.BaseModel):\n  a: int = p.Field(gt=1)\ndef f(x): return C(a=1)",
    ),
    (
        "a pydantic model's validator",
        "import pydantic as p\nclass C(p.BaseModel):\n  a: int\n  @p.field_validator('a')\n  def v(cls, x): return x\ndef f(x): return C(a=1)",
        "import pydantic as p\nclass C(p.BaseModel):\n  a: int\n  @p.field_validator('a')\n  def v(cls, x): return -x\ndef f(x): return C(a=1)",
    ),
    (
        "a pydantic validator's mode",
        "import pydantic as p\nclass C(p.BaseModel):\n  a: int\n  @p.field_validator('a', mode='after')\n  def v(cls, x): return x\ndef f(x): return C(a=1)",
        "import pydantic as p\nclass C(p.BaseModel):\n  a: int\n  @p.field_validator('a', mode='before')\n  def v(cls, x): return x\ndef f(x): return C(a=1)",
    ),
    (
        "an attrs class's default",
        "import attrs\n@attrs.define\nclass C:\n  a: int = 1\ndef f(x): return C()",
        "import attrs\n@attrs.define\nclass C:\n  a: int = 2\ndef f(x): return C()",
    ),
    (
        "an attrs class's converter",
        "import attrs\n@attrs.define\nclass C:\n  a: int = attrs.field(converter=lambda v: v)\ndef f(x): return C(1)",
        "import attrs\n@attrs.define\nclass C:\n  a: int = attrs.field(converter=lambda v: -v)\ndef f(x): return C(1)",
    ),
    # Values.
    ("a global's value", "T = 1\ndef f(x): return x + T", "T = 2\ndef f(x): return x + T"),
    ("a global's type", "T = 1\ndef f(x): return x + T", "T = True\ndef f(x): return x + T"),
    (
        "a global inside a container",
        "T = {'a': [1]}\ndef f(x): return T",
        "T = {'a': [2]}\ndef f(x): return T",
    ),
    (
        "one number in the middle of a global array",
        "import numpy as np\nT = np.zeros(100_000)\ndef f(x): return x + T",
        "import numpy as np\nT = np.zeros(100_000)\nT[50_000] = 1\ndef f(x): return x + T",
    ),
    (
        "a global of another module",
        {"steps.py": "from pkg import conf\ndef f(x): return conf.T", "conf.py": "T = 1"},
        {"steps.py": "from pkg import conf\ndef f(x): return conf.T", "conf.py": "T = 2"},
    ),
    (
        "a helper's global",
        "T = 1\ndef g(x): return T\ndef f(x): return g(x)",
        "T = 2\ndef g(x): return T\ndef f(x): return g(x)",
    ),
    (
        "a global instance's state",
        "class C:\n  def __init__(self, a): self.a = a\nT = C(1)\ndef f(x): return T.a",
        "class C:\n  def __init__(self, a): self.a = a\nT = C(2)\ndef f(x): return T.a",
    ),
    (
        "a global instance's class",
        "class C:\n  def m(self): return 1\nT = C()\ndef f(x): return T.m()",
        "class C:\n  def m(self): return 2\nT = C()\ndef f(x): return T.m()",
    ),
    (
        "an instance whose class uses it",
        "class C:\n  def m(self): return T.a\nT = C()\nT.a = 1\ndef f(x): return T.m()",
        "class C:\n  def m(self): return T.a\nT = C()\nT.a = 2\ndef f(x): return T.m()",
    ),
    (
        "a closure cell's value",
        "def make(k):\n  return lambda x: x + k\nf = make(1)",
        "def make(k):\n  return lambda x: x + k\nf = make(2)",
    ),
    (
        "an array in a closure",
        "import numpy as np\ndef make(k):\n  return lambda x: x + k\nf = make(np.array([1, 2]))",
        "import numpy as np\ndef make(k):\n  return lambda x: x + k\nf = make(np.array([1, 3]))",
    ),
    (
        "a helper in a closure",
        "def make():\n  def g(x): return 1\n  return lambda x: g(x)\nf = make()",
        "def make():\n  def g(x): return 2\n  return lambda x: g(x)\nf = make()",
    ),
    (
        "a global that hides a builtin",
        "def f(x): return len(x)",
        "def len(x): return 1\ndef f(x): return len(x)",
    ),
    # Wrappers.
    (
        "a partial's argument",
        *same("from functools import partial\ndef f(x, k): return k", "partial(f, 1)", "partial(f, 2)"),
    ),
    (
        "a partial's keyword",
        *same("from functools import partial\ndef f(x, k): return k", "partial(f, k=1)", "partial(f, k=2)"),
    ),
    (
        "a partial's function",
        "from functools import partial\ndef g(x, k): return k\nf = partial(g, 1)",
        "from functools import partial\ndef g(x, k): return -k\nf = partial(g, 1)",
    ),
    (
        "a bound method's instance",
        *same("class C:\n  def __init__(s, a): s.a = a\n  def m(s, x): return s.a", "C(1).m", "C(2).m"),
    ),
    ("which method", *same("class C:\n  def m(s, x): return 1\n  def n(s, x): return 2", "C().m", "C().n")),
    (
        "a method that a bound method calls",
        Variant("class C:\n  def m(s, x): return s.n(x)\n  def n(s, x): return 1", "C().m"),
        Variant("class C:\n  def m(s, x): return s.n(x)\n  def n(s, x): return 2", "C().m"),
    ),
    (
        "a base's method that a bound method calls",
        Variant("class B:\n  def n(s, x): return 1\nclass C(B):\n  def m(s, x): return s.n(x)", "C().m"),
        Variant("class B:\n  def n(s, x): return 2\nclass C(B):\n  def m(s, x): return s.n(x)", "C().m"),
    ),
    (
        "a callable's state",
        *same("class C:\n  def __init__(s, a): s.a = a\n  def __call__(s, x): return s.a", "C(1)", "C(2)"),
    ),
    (
        "a callable's code",
        Variant("class C:\n  def __call__(s, x): return 1", "C()"),
        Variant("class C:\n  def __call__(s, x): return 2", "C()"),
    ),
    (
        "a constructor",
        Variant("class C:\n  def __init__(s, x): s.x = x", "C"),
        Variant("class C:\n  def __init__(s, x): s.x = -x", "C"),
    ),
    (
        "a class method's class",
        *same(
            "class B:\n  @classmethod\n  def m(c, x): return c.a\nclass C(B): a = 1\nclass D(B): a = 2",
            "C.m",
            "D.m",
        ),
    ),
    (
        "a decorator's wrapper",
        "import functools\ndef deco(g):\n  @functools.wraps(g)\n  def w(x): return g(x) + 1\n  return w\n@deco\ndef f(x): return x",
        "import functools\ndef deco(g):\n  @functools.wraps(g)\n  def w(x): return g(x) + 2\n  return w\n@deco\ndef f(x): return x",
    ),
    (
        "what a decorator wraps",
        "import functools\ndef deco(g):\n  @functools.wraps(g)\n  def w(x): return g(x) + 1\n  return w\n@deco\ndef f(x): return x",
        "import functools\ndef deco(g):\n  @functools.wraps(g)\n  def w(x): return g(x) + 1\n  return w\n@deco\ndef f(x): return -x",
    ),
    (
        "a decorator's argument",
        "def deco(k):\n  def d(g):\n    return lambda x: g(x) + k\n  return d\n@deco(1)\ndef f(x): return x",
        "def deco(k):\n  def d(g):\n    return lambda x: g(x) + k\n  return d\n@deco(2)\ndef f(x): return x",
    ),
    (
        "what a cache wraps",
        "import functools\n@functools.lru_cache\ndef f(x): return x",
        "import functools\n@functools.lru_cache\ndef f(x): return -x",
    ),
    (
        "a cached helper",
        "import functools\n@functools.cache\ndef g(x): return x\ndef f(x): return g(x)",
        "import functools\n@functools.cache\ndef g(x): return -x\ndef f(x): return g(x)",
    ),
    (
        "a cached helper in a table",
        "import functools\n@functools.cache\ndef g(x): return x\nT = [g]\ndef f(x): return T[0](x)",
        "import functools\n@functools.cache\ndef g(x): return -x\nT = [g]\ndef f(x): return T[0](x)",
    ),
    (
        "a single dispatch's case",
        "import functools\n@functools.singledispatch\ndef f(x): return x\n@f.register\ndef _(x: int): return 1",
        "import functools\n@functools.singledispatch\ndef f(x): return x\n@f.register\ndef _(x: int): return 2",
    ),
    (
        "a single dispatch's type",
        "import functools\n@functools.singledispatch\ndef f(x): return x\n@f.register(int)\ndef _(x): return 1",
        "import functools\n@functools.singledispatch\ndef f(x): return x\n@f.register(str)\ndef _(x): return 1",
    ),
    (
        "a single-dispatch method's case",
        "import functools\nclass C:\n  @functools.singledispatchmethod\n  def m(s, x): return x\n  @m.register\n  def _(s, x: int): return 1\ndef f(x): return C().m(x)",
        "import functools\nclass C:\n  @functools.singledispatchmethod\n  def m(s, x): return x\n  @m.register\n  def _(s, x: int): return 2\ndef f(x): return C().m(x)",
    ),
    (
        "a context manager's body",
        "import contextlib\n@contextlib.contextmanager\ndef g():\n  yield 1\ndef f(x):\n  with g() as y: return y",
        "import contextlib\n@contextlib.contextmanager\ndef g():\n  yield 2\ndef f(x):\n  with g() as y: return y",
    ),
    ("which of two lambdas on one line", *same("g, h = lambda x: x + 1, lambda x: x + 2", "g", "h")),
    (
        "which of two lambdas that differ in a global",
        *same("a, b = 1, 2\ng, h = lambda x: x + a, lambda x: x + b", "g", "h"),
    ),
    (
        "a vectorised function",
        "import numpy as np\nf = np.vectorize(lambda x: x + 1)",
        "import numpy as np\nf = np.vectorize(lambda x: x + 2)",
    ),
    # Libraries.
    (
        "a library's function",
        "import numpy as np\ndef f(x): return np.sin(x)",
        "import numpy as np\ndef f(x): return np.cos(x)",
    ),
    (
        "what an imported name stands for",
        "from numpy import sin as g\ndef f(x): return g(x)",
        "from numpy import cos as g\ndef f(x): return g(x)",
    ),
    (
        "the module that a library's function comes from",
        "from numpy.linalg import norm as g\ndef f(x): return g(x)",
        "from numpy import sum as g\ndef f(x): return g(x)",
    ),
    (
        "a method of the interpreter",
        "g = str.upper\ndef f(x): return g(x)",
        "g = str.lower\ndef f(x): return g(x)",
    ),
    (
        "what a builtin method is bound to",
        "g = {1: 2}.get\ndef f(x): return g(x)",
        "g = {1: 3}.get\ndef f(x): return g(x)",
    ),
    (
        "an operator's argument",
        "import operator\nf = operator.itemgetter(1)",
        "import operator\nf = operator.itemgetter(2)",
    ),
    ("a ufunc", *same("import numpy as np", "np.sin", "np.cos")),
    ("a builtin", *same("", "len", "sum")),
]

LONG_F = """
def f(x, y):
    total = 0
    for i in range(x):
        if i % 2 and i > y or i < 3:
            total += i
            continue
        try:
            total += g(i, y)
        except (ValueError, KeyError) as error:
            print(error)
            raise
        finally:
            total -= 1
    with open(y) as file:
        return [a if a else b for a, b in zip(total, file)], {k: v for k, v in total}
def g(i, j): return i * j
"""

LONG_F_REFORMATTED = """
'''A docstring.'''
import re
# A comment.
UNRELATED = 5


def unrelated(x):
    return UNRELATED


def g(
    i: int,
    j: float,
) -> float:
    '''Multiply.'''
    return (
        i
        *
        j
    )


def f(x: int,

      y: "float") -> list[int]:
    '''Do it all.

    At length.
    '''
    total = 0  # start
    for i in range(
        x
    ):
        if (i % 2
            and
            i > y
            or
            i < 3):
            total += i
            continue
        try:

            total += g(
                i,
                y,
            )
        except (
            ValueError, KeyError
        ) as error:
            print(error); raise
        finally: total -= 1
    with open(
        y
    ) as file:
        return ([a
                 if a
                 else b
                 for a, b
                 in zip(total, file)],
                {k: v for k, v in
                 total})
"""

KEEPS: list[Row] = [
    ("nothing at all", LONG_F, LONG_F),
    ("comments, formatting, place, docstrings and annotations", LONG_F, LONG_F_REFORMATTED),
    ("a docstring", "def f(x): return None", "def f(x):\n  'doc'\n  return None"),
    ("a docstring that is a constant, too", "def f(x): return 'doc'", "def f(x):\n  'doc'\n  return 'doc'"),
    (
        "a nested function's docstring",
        "def f(x):\n  def g():\n    return 1\n  return g()",
        "def f(x):\n  def g():\n    'doc'\n    return 1\n  return g()",
    ),
    (
        "a nested class's docstring and place",
        "def f(x):\n  class C:\n    def m(self): self.a = 1\n  return C",
        "\n\n\ndef f(x):\n  class C:\n    'doc'\n    def m(self): self.a = 1\n  return C",
    ),
    (
        "a class's docstring",
        "class C: a = 1\ndef f(x): return C.a",
        "class C:\n  'doc'\n  a = 1\ndef f(x): return C.a",
    ),
    (
        "a plain class's annotations",
        "class C: a = 1\ndef f(x): return C.a",
        "class C:\n  a: int = 1\n  b: str\ndef f(x): return C.a",
    ),
    (
        "annotations",
        "def f(x, *a, k=1): return x",
        "from typing import Any\ndef f(x: Any, *a: int, k: str = 1) -> Any: return x",
    ),
    (
        "annotations of a nested function",
        "def f(x):\n  def g(a, b=1, *, c=2): return x\n  return g",
        "import typing as t\ndef f(x):\n  def g(a: int, b: t.Optional[t.List['x']]=1, *, c: dict[str, int]=2) -> None: return x\n  return g",
    ),
    (
        "annotations of a nested function as text",
        "def f(x):\n  def g(a, b=1): return x\n  return g",
        "from __future__ import annotations\ndef f(x):\n  def g(a: int, b: Foo=1) -> None: return x\n  return g",
    ),
    (
        "a local variable's annotation",
        "def f(x):\n  y = x\n  return y",
        "def f(x):\n  y: int = x\n  return y",
    ),
    (
        "a type's import for annotations only",
        "def f(x): return 1",
        "import typing\nif typing.TYPE_CHECKING: import q\ndef f(x: 'q.Q'): return 1",
    ),
    ("an unrelated function", "def f(x): return 1", "def g(x): return 2\ndef f(x): return 1"),
    ("an unrelated global", "T = 1\ndef f(x): return 1", "T = 2\ndef f(x): return 1"),
    (
        "a global of the same name as an attribute",
        "T = 1\ndef f(x): return x.T",
        "T = 2\ndef f(x): return x.T",
    ),
    ("a global of the same name as a local", "T = 1\ndef f(T): return T", "T = 2\ndef f(T): return T"),
    (
        "an unrelated function of a helper's module",
        {"steps.py": HELPERS, "text.py": "def strip(x): return 1"},
        {"steps.py": HELPERS, "text.py": "def other(x): return 1\ndef strip(x): return 1\nA = 1"},
    ),
    (
        "an unrelated name of a module used through its attributes",
        {"steps.py": "from pkg import text\ndef f(x): return text.g(x)", "text.py": "def g(x): return 1"},
        {
            "steps.py": "from pkg import text\ndef f(x): return text.g(x)",
            "text.py": "A = 1\ndef g(x): return 1",
        },
    ),
    (
        "an own submodule imported elsewhere",
        {"steps.py": "import pkg\ndef f(x): return pkg.T", "__init__.py": "T = 1", "more.py": ""},
        Variant(
            {"steps.py": "import pkg\ndef f(x): return pkg.T", "__init__.py": "T = 1", "more.py": ""},
            first=["pkg.more"],
        ),
    ),
    (
        "a library's submodule imported elsewhere",
        "import xml\nimport numpy as np\ndef f(x): return xml.dom.minidom, np.ctypeslib.load_library",
        Variant(
            "import xml\nimport numpy as np\ndef f(x): return xml.dom.minidom, np.ctypeslib.load_library",
            first=["xml.dom.minidom", "numpy.ctypeslib", "numpy.testing"],
        ),
    ),
    (
        "the order of a set's constants",
        "def f(x): return x in {'a', 'b', 'c'}",
        "def f(x): return x in {'c', 'b', 'a'}",
    ),
    (
        "the order of a global dict of helpers' names",
        "T = {'a', 'b', 'c'}\ndef f(x): return T",
        "T = {'b', 'c', 'a'}\ndef f(x): return T",
    ),
    ("a node's own default", "def f(x, k=1): return k", "def f(x, k=2): return k"),
    ("a node's own keyword default", "def f(x, *, k=1): return k", "def f(x, *, k=2): return k"),
    (
        "the order of methods",
        "class C:\n  def a(s): return 1\n  def b(s): return 2\ndef f(x): return C()",
        "class C:\n  def b(s): return 2\n  def a(s): return 1\ndef f(x): return C()",
    ),
    (
        "a logger",
        "import logging\nL = logging.getLogger('a')\ndef f(x): L.info(x)",
        "import logging\nL = logging.getLogger('a')\nL.setLevel(10)\ndef f(x): L.info(x)",
    ),
    (
        "a lock's state",
        "import threading\nL = threading.Lock()\ndef f(x):\n  with L: pass",
        "import threading\nL = threading.Lock()\nL.acquire()\ndef f(x):\n  with L: pass",
    ),
    (
        "an open file",
        "import os\nL = open(os.devnull)\ndef f(x): L.read()",
        "import os, sys\nL = open(sys.argv[0] if 0 else '/dev/zero')\ndef f(x): L.read()",
    ),
    (
        "what a cache holds",
        "import functools\n@functools.cache\ndef g(x): return 1\ndef f(x): return g(x)",
        "import functools\n@functools.cache\ndef g(x): return 1\ng(1)\ndef f(x): return g(x)",
    ),
    (
        "what a single dispatch has looked up",
        "import functools\n@functools.singledispatch\ndef f(x): return x",
        "import functools\n@functools.singledispatch\ndef f(x): return x\nf(1)",
    ),
    (
        "a class that has been pickled",
        "class C:\n  def m(s): return 1\ndef f(x): return C()",
        "import pickle\nclass C:\n  def m(s): return 1\npickle.dumps(C())\ndef f(x): return C()",
    ),
    (
        "an abstract class that has been asked for an instance",
        "import abc\nclass C(abc.ABC):\n  @abc.abstractmethod\n  def m(s): return 1\ndef f(x): return C",
        "import abc\nclass C(abc.ABC):\n  @abc.abstractmethod\n  def m(s): return 1\nisinstance(1, C)\ndef f(x): return C",
    ),
    (
        "a global that is ignored",
        Variant("T = 1\ndef f(x): return T", options={"ignore_globals": ["T"]}),
        Variant("T = 2\ndef f(x): return T", options={"ignore_globals": ["T"]}),
    ),
    (
        "a closure variable that is ignored",
        Variant("def m(T): return lambda x: T\nf = m(1)", options={"ignore_globals": ["T"]}),
        Variant("def m(T): return lambda x: T\nf = m(2)", options={"ignore_globals": ["T"]}),
    ),
    (
        "a class attribute that is ignored",
        Variant("class C: n = 1\ndef f(x): return C()", options={"ignore_globals": ["C.n"]}),
        Variant("class C: n = 2\ndef f(x): return C()", options={"ignore_globals": ["C.n"]}),
    ),
    (
        "the code, where a version stands for it",
        Variant("def f(x): return 1", options={"version": "1"}),
        Variant("def f(x): return 2", options={"version": "1"}),
    ),
    (
        "a helper's place",
        {"steps.py": "from pkg.a import g\ndef f(x): return g(x)", "a.py": "def g(x): return 1"},
        {
            "steps.py": "from pkg.a import g\ndef f(x): return g(x)",
            "a.py": "from pkg.b import g",
            "b.py": "\n\ndef g(x): return 1",
        },
    ),
    (
        "a pydantic model, made again",
        "import pydantic as p\nclass C(p.BaseModel):\n  a: int = p.Field(1, gt=0)\n  b: list[str] = []\n  @p.field_validator('a')\n  def v(cls, x): return x\ndef f(x): return C()",
        "import pydantic as p\nX = 1\nclass C(p.BaseModel):\n  'doc'\n  a: int = p.Field(1, gt=0)\n  b: list[str] = []\n  @p.field_validator('a')\n  def v(cls, x): return x\nC()\ndef f(x): return C()",
    ),
    (
        "an attrs class, made again",
        "import attrs\n@attrs.define\nclass C:\n  a: int = attrs.field(default=1, validator=attrs.validators.gt(0))\ndef f(x): return C()",
        "import attrs\nX = 1\n@attrs.define\nclass C:\n  'doc'\n  a: int = attrs.field(default=1, validator=attrs.validators.gt(0))\nC()\ndef f(x): return C()",
    ),
    (
        "a dataclass, made again",
        "import dataclasses as d\n@d.dataclass(frozen=True, slots=True)\nclass C:\n  a: int = 1\n  b: list = d.field(default_factory=list, metadata={'u': 1})\ndef f(x): return C()",
        "import dataclasses as d\nX = 1\n@d.dataclass(frozen=True, slots=True)\nclass C:\n  'doc'\n  a: int = 1\n  b: list = d.field(default_factory=list, metadata={'u': 1})\nC()\ndef f(x): return C()",
    ),
    (
        "an enumeration, made again",
        "import enum\nclass E(enum.Flag):\n  A = enum.auto()\n  B = enum.auto()\ndef f(x): return E.A",
        "import enum\nX = 1\nclass E(enum.Flag):\n  'doc'\n  A = enum.auto()\n  B = enum.auto()\nE.A | E.B\ndef f(x): return E.A",
    ),
]


def variant(given: Variant | str | Mapping[str, str]) -> Variant:
    return given if isinstance(given, Variant) else Variant(given)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Report], dict[str, Report]]:
    """Reports for both sides of every row, from two interpreters with different hash seeds."""
    rows = CHANGES + KEEPS
    root = tmp_path_factory.mktemp("programs")
    return (
        dict(zip([row[0] for row in rows], reports([variant(row[1]) for row in rows], root, 1), strict=True)),
        dict(zip([row[0] for row in rows], reports([variant(row[2]) for row in rows], root, 2), strict=True)),
    )


Answers = tuple[dict[str, Report], dict[str, Report]]


@pytest.mark.parametrize("row", [row[0] for row in CHANGES])
def test_a_fingerprint_changes_with(row: str, answers: Answers) -> None:
    before, after = answers
    assert before[row].digest != after[row].digest


@pytest.mark.parametrize("row", [row[0] for row in KEEPS])
def test_a_fingerprint_does_not_change_with(row: str, answers: Answers) -> None:
    before, after = answers
    assert before[row].digest == after[row].digest, set(before[row].parts) ^ set(after[row].parts)


def test_every_row_has_a_name_of_its_own() -> None:
    names = [row[0] for row in CHANGES + KEEPS]
    assert len(set(names)) == len(names)


def test_the_same_program_has_the_same_fingerprint_in_every_process(tmp_path: Path) -> None:
    variants = [variant(row[1]) for row in CHANGES]
    first, second = reports(variants, tmp_path, 3), reports(variants, tmp_path, 4)
    assert [a.digest for a in first] == [b.digest for b in second]
