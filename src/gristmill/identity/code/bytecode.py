"""What a code object does, in a form that its place in the file and its formatting do not touch.

Owns the canonical encoding of bytecode. Knows nothing of what its names refer to.
"""

from __future__ import annotations

import dis
import inspect
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

from xxhash import xxh3_128_digest

from gristmill.identity import tags
from gristmill.identity.code.colour import digests
from gristmill.identity.scalars import SCALARS, length, text

# Nesting, future statements and the docstring's flag say nothing about behaviour.
_FLAGS = (
    inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
    | inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ITERABLE_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
)

# A block without an effect, and jumps whose only effect is where they lead: the compiler adds and drops these
# as statements share lines or not.
_TRANSPARENT = frozenset(
    ("NOP", "JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT", "EXTENDED_ARG", "CACHE", "NOT_TAKEN")
)

_FINAL = frozenset(("RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE", "INTERPRETER_EXIT"))

# Which way round a branch is depends on where its targets lie.
_INVERSE = {
    "POP_JUMP_IF_FALSE": "POP_JUMP_IF_TRUE",
    "POP_JUMP_IF_NONE": "POP_JUMP_IF_NOT_NONE",
}

# Python 3.13 joins neighbours only when they are on one line.
_JOINED = {
    "LOAD_FAST_LOAD_FAST": ("LOAD_FAST", "LOAD_FAST"),
    "STORE_FAST_LOAD_FAST": ("STORE_FAST", "LOAD_FAST"),
    "STORE_FAST_STORE_FAST": ("STORE_FAST", "STORE_FAST"),
    "LOAD_FAST_BORROW_LOAD_FAST_BORROW": ("LOAD_FAST_BORROW", "LOAD_FAST_BORROW"),
}

# Bits below the index of a name: how the result goes on the stack.
_LOW_BITS = {"LOAD_GLOBAL": 1, "LOAD_ATTR": 1, "LOAD_SUPER_ATTR": 3} if dis.opmap.get("LOAD_SUPER_ATTR") else {
    "LOAD_GLOBAL": 1
}

# What a class body stores about its own text.
_ABOUT_TEXT = frozenset(("__doc__", "__firstlineno__", "__static_attributes__"))

_CONST, _NAME, _LOCAL, _FREE = map(frozenset, (dis.hasconst, dis.hasname, dis.haslocal, dis.hasfree))
_JUMP = frozenset((*dis.hasjrel, *dis.hasjabs))


@dataclass(slots=True)
class Operation:
    """One instruction, with its argument resolved."""

    name: str
    value: Any
    """The constant, name, or number that it works on."""
    extra: int
    """Bits beside a name; 0 elsewhere."""
    offset: int
    target: int | None = None
    """Offset that it may jump to."""

    def encode(self) -> bytes:
        return constant(self.value) + length(self.extra)


def operations(code: CodeType) -> list[Operation]:
    """Instructions of one code object, without what only describes its text."""
    found = [part for instruction in dis.get_instructions(code) for part in _split(instruction, code.co_consts)]
    if not code.co_flags & inspect.CO_OPTIMIZED:
        return _without_text(found)
    return found


def _split(instruction: dis.Instruction, constants: Sequence[object]) -> Iterator[Operation]:
    name, argument, offset = instruction.opname, instruction.arg or 0, instruction.offset
    if name in _JOINED:
        for part, local in zip(_JOINED[name], instruction.argval, strict=True):
            yield Operation(part, local, 0, offset)
    elif instruction.opcode in _JUMP:
        plain = name if name in _TRANSPARENT else name.replace("_FORWARD", "").replace("_BACKWARD", "")
        yield Operation(plain, None, 0, offset, instruction.argval)
    elif instruction.opcode in _NAME:
        yield Operation(name, instruction.argval, argument & _LOW_BITS.get(name, 0), offset)
    elif instruction.opcode in _CONST:
        # Not `argval`: Python 3.11 leaves it unknown for keyword names.
        yield Operation(name, constants[argument], 0, offset)
    elif instruction.opcode in _LOCAL or instruction.opcode in _FREE:
        yield Operation(name, instruction.argval, 0, offset)
    else:
        yield Operation(name, argument, 0, offset)


def _without_text(found: list[Operation]) -> list[Operation]:
    """Drop ``__doc__ = "..."`` and its like from a class body; the pair has no jump into its middle."""
    dropped: set[int] = set()
    for i, operation in enumerate(found):
        if operation.name == "STORE_NAME" and operation.value in _ABOUT_TEXT and found[i - 1].name == "LOAD_CONST":
            dropped |= {i - 1, i}
    return [operation for i, operation in enumerate(found) if i not in dropped]


def digest(code: CodeType, found: Sequence[Operation]) -> bytes:
    """Digest of one code object from its operations, as the graph that control flows along.

    Following control rather than the layout makes repeated, threaded and reordered blocks the same, which the
    compiler chooses by line numbers.
    """
    flow = _Flow(code, found)
    colours = digests(flow.edges, flow.combine)
    return xxh3_128_digest(_head(code) + colours[0])


def _head(code: CodeType) -> bytes:
    count = code.co_argcount + code.co_kwonlyargcount
    count += bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    numbers = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _FLAGS)
    return constant((code.co_name, numbers, code.co_varnames[:count]))


class _Flow:
    """Operations as vertices; an edge goes to the next one, to the target of a jump, to the handler of errors."""

    def __init__(self, code: CodeType, found: Sequence[Operation]) -> None:
        self._found = found
        self._offsets = [operation.offset for operation in found]
        self._vertices: dict[int, int] = {}
        self.edges: list[list[int]] = []
        self._encoded: list[bytes] = []
        handlers = _handlers(code)
        self._work: list[int] = []
        self._vertex(0)
        while self._work:
            position = self._work.pop()
            operation = found[position]
            vertex = self._vertices[position]
            targets = [] if operation.name in _FINAL else [self._vertex(position + 1)]
            if operation.target is not None:
                targets.append(self._vertex(self._position(operation.target)))
                if operation.name in _INVERSE:
                    targets.reverse()
            handler = next((h for h in reversed(handlers) if h.start <= operation.offset < h.stop), None)
            label = b""
            if handler is not None:
                targets.append(self._vertex(self._position(handler.target)))
                label = length(handler.detail + 1)
            self.edges[vertex] = targets
            name = _INVERSE.get(operation.name, operation.name)
            self._encoded[vertex] = text(name) + operation.encode() + label

    def combine(self, vertex: int, targets: Sequence[bytes]) -> bytes:
        return xxh3_128_digest(self._encoded[vertex] + b"".join(targets))

    def _position(self, offset: int) -> int:
        return bisect_left(self._offsets, offset)

    def _vertex(self, position: int) -> int:
        """The vertex of the first operation from `position` on that does something."""
        found, passed = self._found, set[int]()
        while found[position].name in _TRANSPARENT and position not in passed:
            passed.add(position)
            target = found[position].target
            position = position + 1 if target is None else self._position(target)
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
    """Read the exception table; its format is in CPython's Objects/exception_handling_notes.txt."""
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
    """Encode a constant of the compiler: typed, frozensets without order."""
    writer = SCALARS.get(type(value))
    if writer is not None:
        return writer(value)
    if isinstance(value, tuple):
        return tags.TUPLE + length(len(value)) + b"".join(map(constant, value))
    if isinstance(value, frozenset):
        return tags.FROZENSET + length(len(value)) + b"".join(sorted(map(constant, value)))
    if isinstance(value, slice):
        return tags.SLICE + b"".join(map(constant, (value.start, value.stop, value.step)))
    if isinstance(value, CodeType):
        return tags.CODE + digest(value, operations(value))
    raise TypeError(f"the compiler made a constant of {type(value)}")
