"""A function has one fingerprint wherever it is: in its own process, a worker, a script, a notebook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gristmill.identity.fingerprint import fingerprint

PROGRAM = '''
import abc, asyncio, contextlib, dataclasses, enum, functools, logging, math, operator, re, typing
import attrs, pydantic
import numpy as np

THRESHOLD = 3
TABLE = {"a": [1, 2.5], "b": np.arange(5)}
LOG = logging.getLogger(__name__)
PATTERN = re.compile("a+")

def helper(x, k=2, *, scale=1.5):
    return x * k * scale + THRESHOLD

def recursive(n):
    return n and recursive(n - 1)

def even(n):
    return n == 0 or odd(n - 1)

def odd(n):
    return n != 0 and even(n - 1)

def plain(x):
    LOG.info("at %s", x)
    return helper(x) + len(TABLE) + math.sqrt(x) + np.linalg.norm(x) + len(PATTERN.findall("a"))

def in_body(x):
    from os import path
    import json as j
    return path.join(x, j.dumps(x))

class Base(abc.ABC):
    unit = "m"
    @abc.abstractmethod
    def size(self): ...
    def double(self):
        return 2 * self.size()

class Box(Base):
    """A box."""
    limit: typing.ClassVar[int] = 5
    def __init__(self, side):
        self.side = side
    def size(self):
        return min(self.side, self.limit) + helper(1)
    def double(self):
        return super().double()
    @property
    def area(self):
        return self.side ** 2
    @staticmethod
    def of(x): return Box(x)
    @classmethod
    def make(cls, x): return cls(x)
    def __call__(self, x): return x + self.side

@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: list[int] = dataclasses.field(default_factory=list)
    def norm(self): return self.x

@dataclasses.dataclass(slots=True, order=True)
class Slotted:
    x: int = 1

@attrs.define
class Attred:
    x: int = attrs.field(default=1, validator=attrs.validators.instance_of(int))

class Model(pydantic.BaseModel):
    x: int = pydantic.Field(1, gt=0)

class Colour(enum.Enum):
    RED = 1
    BLUE = "b"
    def nice(self): return self is Colour.RED

class Pair(typing.NamedTuple):
    a: int
    b: int = 2

def user(x):
    return Box(x).double(), Point(1), Slotted(2), Attred(1), Model(x=1), Colour.RED.nice(), Pair(1)

BOX = Box(2)
POINT = Point(1, [2])
def uses_instances(x):
    return BOX.size() + POINT.x

def decorate(k):
    def decorator(f):
        @functools.wraps(f)
        def wrapper(*args):
            return f(*args) + k
        return wrapper
    return decorator

@decorate(3)
def decorated(x): return helper(x)

@contextlib.contextmanager
def context():
    yield helper(1)

def uses_context(x):
    with context() as y:
        return y

def closure(k):
    table = {"k": k, "f": helper}
    def inner(x):
        return table["f"](x) + k
    return inner

def generator(x):
    yield from (helper(i) for i in x)

async def coroutine(x):
    await asyncio.sleep(0)
    return helper(x)

def walrus(x):
    return [y for i in x if (y := helper(i)) > 0]

def nested(x):
    class Local:
        a: int = 1
        def m(self, y: int = 2) -> int: return helper(y)
    def g(z: "int") -> typing.Any:
        nonlocal x
        x += z
        return Local().m()
    return g(1)

REGISTRY = {"plain": plain, "lambda": lambda x: helper(x), "even": even}
def table(x):
    return REGISTRY[x](1)

def late(x):
    return not_there_yet(x)

CASES = {
    "plain": plain, "recursive": recursive, "even": even, "odd": odd, "in_body": in_body, "user": user,
    "uses_instances": uses_instances, "decorated": decorated,
    "uses_context": uses_context, "closure": closure(2), "generator": generator,
    "coroutine": coroutine, "walrus": walrus, "nested": nested, "table": table, "late": late,
    "lambda": lambda x: helper(x), "partial": functools.partial(helper, 2, scale=4), "method": Box(3).size,
    "class method": Box.make, "static method": Box.of, "callable": Box(3), "class": Box, "dataclass": Point,
    "slotted": Slotted, "attrs": Attred, "model": Model, "enum": Colour, "named tuple": Pair, "ufunc": np.sin,
    "library": np.linalg.norm, "builtin": len,
    "bound builtin": {"a": 1}.get, "itemgetter": operator.itemgetter(1),
    "vectorized": np.vectorize(helper),
}
'''

# What cannot be sent by value.
UNPICKLABLE = """
import threading
LOCK = threading.Lock()
FILE = open("/dev/null")

@functools.lru_cache(maxsize=None)
def cached(x): return helper(x)

def uses_cached(x): return cached(x)

@functools.singledispatch
def generic(x): return x

@generic.register
def _(x: int): return helper(x)

class Checked(pydantic.BaseModel):
    x: int
    @pydantic.field_validator("x")
    @classmethod
    def check(cls, v): return v

class Cube:
    def __init__(self, side):
        self.side = side
        self.lock = threading.Lock()
    @functools.cached_property
    def volume(self):
        return self.side ** 3

CUBE = Cube(3)

def locked(x):
    with LOCK:
        return generic(x), FILE, CUBE.volume

CASES |= {
    "cached": cached, "uses_cached": uses_cached, "generic": generic,
    "locked": locked, "cube": Cube, "checked": Checked, "volume": Cube(2).__init__,
}
"""

IN_WORKER = """
if __name__ == "__main__":
    import json, sys
    from loky import get_reusable_executor
    from gristmill.identity.fingerprint import fingerprint
    def both(name, f):
        return str(fingerprint(f))
    executor = get_reusable_executor(max_workers=1)
    here = {name: str(fingerprint(f)) for name, f in CASES.items()}
    there = {name: str(executor.submit(fingerprint, f).result()) for name, f in CASES.items()}
    executor.shutdown()
    json.dump([here, there], sys.stdout)
"""

SCRIPT = """
if __name__ == "__main__":
    import json, sys
    from gristmill.identity.fingerprint import fingerprint
    json.dump({name: str(fingerprint(f)) for name, f in CASES.items()}, sys.stdout)
"""

CALLER = """
import json, sys
from gristmill.identity.fingerprint import fingerprint
from script import CASES
json.dump({name: str(fingerprint(f)) for name, f in CASES.items()}, sys.stdout)
"""

BY_VALUE = """
import json, pickle, sys
import cloudpickle
from gristmill.identity.fingerprint import fingerprint
import program
cloudpickle.register_pickle_by_value(program)
here = {name: str(fingerprint(f)) for name, f in program.CASES.items()}
there = {name: str(fingerprint(pickle.loads(cloudpickle.dumps(f)))) for name, f in program.CASES.items()}
json.dump([here, there], sys.stdout)
"""


def python(*arguments: str, cwd: Path, seed: int = 0) -> Any:
    """Run Python on its arguments; return what it wrote, read as JSON."""
    environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "script.py").write_text(PROGRAM + UNPICKLABLE + SCRIPT)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "inside.py").write_text(PROGRAM + UNPICKLABLE + SCRIPT)
    (tmp_path / "elsewhere").mkdir()
    return tmp_path


def test_a_worker_agrees_on_functions_of_the_main_module(folder: Path) -> None:
    (folder / "main.py").write_text(PROGRAM + IN_WORKER)
    here, there = python("main.py", cwd=folder)
    assert here == there


def test_a_worker_agrees_on_functions_of_an_imported_module(folder: Path) -> None:
    (folder / "main.py").write_text("from program import CASES\n" + IN_WORKER)
    here, there = python("main.py", cwd=folder)
    assert here == there


def test_a_function_sent_by_value_keeps_its_fingerprint(folder: Path) -> None:
    here, there = python("-c", BY_VALUE, cwd=folder)
    assert here == there


def test_it_does_not_matter_how_a_program_is_started(folder: Path) -> None:
    script = python("script.py", cwd=folder, seed=1)
    assert script == python(str(folder / "script.py"), cwd=folder / "elsewhere", seed=2)
    assert script == python("-m", "script", cwd=folder, seed=3)
    assert script == python("-c", PROGRAM + UNPICKLABLE + SCRIPT, cwd=folder, seed=4)
    assert script == python("-c", CALLER, cwd=folder, seed=5)
    assert script == python("-m", "package.inside", cwd=folder, seed=6)


def test_another_path_to_the_interpreter_does_not_matter(folder: Path) -> None:
    link = folder / "another-python"
    link.symlink_to(Path(sys.executable).resolve())
    found = [str(Path(path).resolve()) for path in sys.path if path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(found)}
    done = subprocess.run([link, "script.py"], cwd=folder, env=environment, capture_output=True, check=True)
    assert json.loads(done.stdout) == python("script.py", cwd=folder)


CELL = """
LIMIT = 3
def helper(x):
    return x + LIMIT
class Box:
    def size(self, x):
        return helper(x)
def f(x):
    return Box().size(x) + sum(map(lambda y: y * 2, [helper(i) for i in x]))
"""


def run_cell(source: str, number: int, space: dict[str, Any]) -> None:
    exec(compile("\n" * number + source, f"<ipython-input-{number}-0f3a>", "exec"), space)


def test_running_a_notebook_cell_again_does_not_change_its_functions() -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    run_cell(CELL, 1, space)
    before = fingerprint(space["f"])
    run_cell(CELL, 7, space)
    assert fingerprint(space["f"]) == before


def test_an_edited_notebook_cell_changes_the_functions_that_use_it() -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    run_cell(CELL, 1, space)
    before = fingerprint(space["f"])
    run_cell("def helper(x):\n    return x - LIMIT", 2, space)
    assert fingerprint(space["f"]) != before
