"""Fingerprints under random edits: formatting never shows, behaviour always does."""

from __future__ import annotations

import ast
import io
import sysconfig
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_128_digest

from gristmill.identity.code.colour import components, digests
from gristmill.identity.code.functions import read
from gristmill.identity.fingerprint import fingerprint

STDLIB = Path(sysconfig.get_paths()["stdlib"])
MODULES = (
    "argparse",
    "dataclasses",
    "difflib",
    "inspect",
    "statistics",
    "textwrap",
    "typing",
    "zipfile/__init__",
)
SOURCES = [path for name in MODULES if (path := STDLIB / f"{name}.py").exists()]


def code_objects(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from code_objects(constant)


def digests_of(source: str) -> list[bytes]:
    return [read(code).digest for code in code_objects(compile(source, "module", "exec"))]


def exploded(source: str) -> str:
    """The same program with a line break after every bracket, comma and operator where one is allowed."""
    breaks, depth, literal = [], 0, 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        literal += (kind == "FSTRING_START") - (kind == "FSTRING_END")
        if literal == 0 and kind == "OP":
            depth += (token.string in "([{") - (token.string in ")]}")
        word = kind == "OP" or token.string in {"and", "or", "not", "if", "else", "for", "in"}
        if depth and word and literal == 0:
            breaks.append(token.end)
    lines = source.splitlines(keepends=True)
    for row, column in reversed(breaks):
        line = lines[row - 1]
        lines[row - 1] = f"{line[:column]}\n{line[column:]}"
    return "".join(lines)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_formatting_never_shows(path: Path) -> None:
    source = path.read_text()
    assert digests_of(source) == digests_of(ast.unparse(ast.parse(source)))
    assert digests_of(source) == digests_of(exploded(source))


class Undocumented(ast.NodeTransformer):
    """Takes away docstrings and the annotations of functions."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.returns = None
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg):
                argument.annotation = None
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return ast.fix_missing_locations(node)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_docstrings_and_annotations_never_show(path: Path) -> None:
    source = path.read_text()
    assert digests_of(source) == digests_of(ast.unparse(Undocumented().visit(ast.parse(source))))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_functions_of_different_text_have_different_digests(path: Path) -> None:
    tree = Undocumented().visit(ast.parse(path.read_text()))
    texts: dict[bytes, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and not node.decorator_list:
            node.args.defaults, node.args.kw_defaults = [], [None] * len(node.args.kwonlyargs)
            text = ast.unparse(node)
            try:
                compiled = compile(text, "module", "exec")
            except SyntaxError:  # nonlocal names, or a `return` outside: it only compiles where it stands
                continue
            found = next(code_objects(compiled))
            texts.setdefault(read(found).digest, set()).add(text)
    assert [group for group in texts.values() if len(group) > 1] == []


# Programs of functions that call each other and read globals.


@st.composite
def programs(draw: st.DrawFn) -> list[tuple[int, list[int], int]]:
    """For each function: its constant, the functions that it calls, and the global that it reads."""
    size = draw(st.integers(1, 5))
    targets = st.lists(st.integers(0, size - 1), max_size=3)
    return draw(
        st.lists(st.tuples(st.integers(0, 2), targets, st.integers(0, 2)), min_size=size, max_size=size)
    )


def load(program: list[tuple[int, list[int], int]], values: list[int], order: list[int]) -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "__main__"}
    for i in order:
        constant, calls, name = program[i]
        called = " + ".join([*(f"f{target}(x)" for target in calls), f"g{name}", str(constant)])
        exec(f"def f{i}(x): return {called}", space)
    space |= {f"g{i}": value for i, value in enumerate(values)}
    return space


def reachable(program: list[tuple[int, list[int], int]], start: int = 0) -> set[int]:
    found, work = {start}, [start]
    while work:
        new = set(program[work.pop()][1]) - found
        found |= new
        work += new
    return found


VALUES = st.lists(st.integers(0, 2), min_size=3, max_size=3)


@given(programs(), VALUES, st.randoms(use_true_random=False))
def test_the_order_of_definitions_never_shows(
    program: list[tuple[int, list[int], int]], values: list[int], random: Any
) -> None:
    order = list(range(len(program)))
    first = load(program, values, order)
    random.shuffle(order)
    second = load(program, values, order)
    for i in order:  # the second program is asked in another order, too
        assert fingerprint(first[f"f{i}"]) == fingerprint(second[f"f{i}"])


@given(programs(), VALUES, st.integers(0, 4), st.integers(0, 2))
def test_an_edited_function_shows_exactly_where_it_is_reached(
    program: list[tuple[int, list[int], int]], values: list[int], which: int, constant: int
) -> None:
    which %= len(program)
    edited = [(constant if i == which else c, calls, name) for i, (c, calls, name) in enumerate(program)]
    order = list(range(len(program)))
    before, after = load(program, values, order), load(edited, values, order)
    same = fingerprint(before["f0"]) == fingerprint(after["f0"])
    assert same == (edited == program or which not in reachable(program))


@given(programs(), VALUES, VALUES)
def test_a_global_shows_exactly_where_it_is_read(
    program: list[tuple[int, list[int], int]], one: list[int], two: list[int]
) -> None:
    order = list(range(len(program)))
    before, after = load(program, one, order), load(program, two, order)
    read_names = {program[i][2] for i in reachable(program)}
    same = fingerprint(before["f0"]) == fingerprint(after["f0"])
    assert same == all(one[i] == two[i] for i in read_names)


@given(programs(), VALUES, st.integers(0, 4), st.integers(0, 2))
def test_an_edit_in_a_running_process_gives_the_fingerprint_of_a_fresh_one(
    program: list[tuple[int, list[int], int]], values: list[int], which: int, constant: int
) -> None:
    which %= len(program)
    edited = [(constant if i == which else c, calls, name) for i, (c, calls, name) in enumerate(program)]
    order = list(range(len(program)))
    live, fresh = load(program, values, order), load(edited, values, order)
    fingerprint(live["f0"])
    live[f"f{which}"].__code__ = fresh[f"f{which}"].__code__
    assert fingerprint(live["f0"]) == fingerprint(fresh["f0"])


@given(programs(), VALUES)
def test_a_copied_program_is_the_same_whatever_it_shares(
    program: list[tuple[int, list[int], int]], values: list[int]
) -> None:
    order = list(range(len(program)))
    one, two = load(program, values, order), load(program, values, order)
    # Half of the names of the first program now lead into the second, which is its equal.
    mixed = {**one, **{f"f{i}": two[f"f{i}"] for i in order[::2]}}
    expected = fingerprint(one["f0"])
    one.update(mixed)
    assert fingerprint(one["f0"]) == expected


# The graph itself.

GRAPHS = st.integers(1, 8).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, n - 1), max_size=4), min_size=n, max_size=n)
)


@given(GRAPHS)
def test_components_come_after_what_they_point_to(edges: list[list[int]]) -> None:
    seen: set[int] = set()
    for group in components(edges):
        seen |= set(group)
        assert all(target in seen for vertex in group for target in edges[vertex])
    assert seen == set(range(len(edges)))


@given(GRAPHS, st.lists(st.integers(0, 1), min_size=8, max_size=8), st.randoms(use_true_random=False))
def test_numbering_the_vertices_differently_changes_no_digest(
    edges: list[list[int]], labels: list[int], random: Any
) -> None:
    size = len(edges)
    new = list(range(size))
    random.shuffle(new)
    moved: list[list[int]] = [[] for _ in range(size)]
    for vertex, targets in enumerate(edges):
        moved[new[vertex]] = [new[target] for target in targets]
    old_label = {new[vertex]: labels[vertex] for vertex in range(size)}
    first = digests(edges, lambda v, found: _hash(labels[v], found))
    second = digests(moved, lambda v, found: _hash(old_label[v], found))
    assert all(first[vertex] == second[new[vertex]] for vertex in range(size))


def _hash(label: int, found: Sequence[bytes]) -> bytes:
    return xxh3_128_digest(bytes([label]) + b"".join(found))
