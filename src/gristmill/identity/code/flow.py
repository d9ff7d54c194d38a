"""What a code object does, as a digest that its place in the file and its formatting do not touch.

Owns the graph along which control flows, and the encoding of constants. Knows nothing of what names refer to.
"""

from __future__ import annotations

import inspect
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from struct import pack
from types import CodeType
from typing import Any

from xxhash import xxh3_128_digest

from gristmill.identity import tags
from gristmill.identity.code.colour import digests
from gristmill.identity.code.operations import Operation, operations
from gristmill.identity.primitives import integer, length, octets, text

# Nesting, future statements and the docstring's flag say nothing about behaviour.
_FLAGS = (
    inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
    | inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ITERABLE_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
)

# Nothing happens at such a jump but that control goes to its target.
_PLAIN_JUMPS = frozenset(("JUMP", "JUMP_NO_INTERRUPT"))
_FINAL = frozenset(("RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE", "INTERPRETER_EXIT"))

# A branch and the same branch the other way round; which one it is depends on where the targets lie.
_INVERSE = {"POP_JUMP_IF_FALSE": "POP_JUMP_IF_TRUE", "POP_JUMP_IF_NONE": "POP_JUMP_IF_NOT_NONE"}

# Python 3.11: what a branch that keeps its operand comes to when its target tests that operand again. The
# compiler goes straight to the end only when both are on one line. The flag tells whether the second test is
# the same.
_AGAIN = {
    "JUMP_IF_TRUE_OR_POP": {
        "POP_JUMP_IF_TRUE": ("POP_JUMP_IF_TRUE", True),
        "JUMP_IF_TRUE_OR_POP": ("JUMP_IF_TRUE_OR_POP", True),
        "POP_JUMP_IF_FALSE": ("POP_JUMP_IF_TRUE", False),
        "JUMP_IF_FALSE_OR_POP": ("POP_JUMP_IF_TRUE", False),
    },
    "JUMP_IF_FALSE_OR_POP": {
        "POP_JUMP_IF_FALSE": ("POP_JUMP_IF_FALSE", True),
        "JUMP_IF_FALSE_OR_POP": ("JUMP_IF_FALSE_OR_POP", True),
        "POP_JUMP_IF_TRUE": ("POP_JUMP_IF_FALSE", False),
        "JUMP_IF_TRUE_OR_POP": ("POP_JUMP_IF_FALSE", False),
    },
}


def digest(code: CodeType, found: Sequence[Operation]) -> bytes:
    """Digest one code object from its operations.

    Following control rather than the layout makes repeated, threaded and reordered blocks the same, which the
    compiler chooses by line numbers.
    """
    flow = _Flow(code, found)
    return xxh3_128_digest(_head(code) + digests(flow.edges, flow.combine)[0])


def _head(code: CodeType) -> bytes:
    count = code.co_argcount + code.co_kwonlyargcount
    count += bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    numbers = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _FLAGS)
    return constant((code.co_name, numbers, code.co_varnames[:count]))


class _Flow:
    """Operations as vertices; edges go to the next one, to the target of a jump, to the handler of errors."""

    def __init__(self, code: CodeType, found: Sequence[Operation]) -> None:
        self.edges: list[list[int]] = []
        self._encoded: list[bytes] = []
        self._found = found
        self._offsets = [operation.offset for operation in found]
        self._handlers = _handlers(code)
        self._vertices: dict[int, int] = {}
        self._work: list[int] = []
        self._vertex(0)
        while self._work:
            self._expand(self._work.pop())

    def combine(self, vertex: int, targets: Sequence[bytes]) -> bytes:
        """Digest an operation and what may come after it."""
        return xxh3_128_digest(self._encoded[vertex] + b"".join(targets))

    def _expand(self, position: int) -> None:
        operation = self._found[position]
        name, targets = self._after(operation, position)
        edges = [self._vertex(target) for target in targets]
        encoded = text(name) + constant(operation.value) + length(operation.extra)
        handler = self._handler(operation.offset)
        if handler is not None:
            edges.append(self._vertex(self._position(handler.target)))
            encoded += length(handler.detail + 1)
        vertex = self._vertices[position]
        self.edges[vertex], self._encoded[vertex] = edges, encoded

    def _after(self, operation: Operation, position: int) -> tuple[str, list[int]]:
        """What an operation comes to, and the positions where control may go from it."""
        name = operation.name
        if name in _FINAL:
            return name, []
        if operation.target is None:
            return name, [position + 1]
        target = self._landing(self._position(operation.target))
        while self._found[target].name in _AGAIN.get(name, {}):
            again = self._found[target]
            name, same = _AGAIN[name][again.name]
            target = self._position(again.target or 0) if same else target + 1
            target = self._landing(target)
        if name in _INVERSE:
            return _INVERSE[name], [target, position + 1]
        return name, [position + 1, target]

    def _handler(self, offset: int) -> _Handler | None:
        return next((handler for handler in self._handlers if handler.start <= offset < handler.stop), None)

    def _position(self, offset: int) -> int:
        return bisect_left(self._offsets, offset)

    def _landing(self, position: int) -> int:
        """The first operation from `position` on that does something."""
        passed = set[int]()
        while self._found[position].name in _PLAIN_JUMPS and position not in passed:
            passed.add(position)
            position = self._position(self._found[position].target or 0)
        return position

    def _vertex(self, position: int) -> int:
        position = self._landing(position)
        vertex = self._vertices.get(position)
        if vertex is None:
            vertex = self._vertices[position] = len(self.edges)
            self.edges.append([])
            self._encoded.append(b"")
            self._work.append(position)
        return vertex


@dataclass(frozen=True, slots=True)
class _Handler:
    start: int
    stop: int
    target: int
    detail: int
    """Depth of the stack and whether the place of the error is pushed, as the table packs them."""


def _handlers(code: CodeType) -> list[_Handler]:
    """Read the exception table; CPython's Objects/exception_handling_notes.txt describes its format."""
    numbers = _varints(code.co_exceptiontable)
    return [
        _Handler(2 * start, 2 * (start + size), 2 * target, detail)
        for start, size, target, detail in zip(numbers, numbers, numbers, numbers, strict=True)
    ]


def _varints(table: bytes) -> Iterator[int]:
    value = 0
    for byte in table:
        value = value << 6 | byte & 63
        if not byte & 64:
            yield value
            value = 0


def constant(value: object) -> bytes:
    """Encode a constant of the compiler: typed, to the last bit, frozensets without order."""
    return _CONSTANTS[type(value)](value)


_CONSTANTS: Mapping[type, Callable[[Any], bytes]] = {
    type(None): lambda _: tags.NONE,
    type(...): lambda _: tags.ELLIPSIS,
    bool: lambda value: tags.TRUE if value else tags.FALSE,
    int: integer,
    float: lambda value: tags.FLOAT + pack("<d", value),
    complex: lambda value: tags.COMPLEX + pack("<dd", value.real, value.imag),
    str: text,
    bytes: octets,
    tuple: lambda value: tags.TUPLE + length(len(value)) + b"".join(map(constant, value)),
    frozenset: lambda value: tags.FROZENSET + length(len(value)) + b"".join(sorted(map(constant, value))),
    slice: lambda value: tags.SLICE + b"".join(map(constant, (value.start, value.stop, value.step))),
    CodeType: lambda value: tags.CODE + digest(value, operations(value)),
}
