"""The operations of a code object, without what its text and layout put there.

Owns how bytecode is decoded: arguments resolved, documentation and annotations left out, and what the
compiler joins or drops depending on line numbers brought to one form. Knows nothing of where control goes.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

# Python 3.13 joins neighbours only when they are on one line.
_JOINED = {
    "LOAD_FAST_LOAD_FAST": ("LOAD_FAST", "LOAD_FAST"),
    "STORE_FAST_LOAD_FAST": ("STORE_FAST", "LOAD_FAST"),
    "STORE_FAST_STORE_FAST": ("STORE_FAST", "STORE_FAST"),
    "LOAD_FAST_BORROW_LOAD_FAST_BORROW": ("LOAD_FAST_BORROW", "LOAD_FAST_BORROW"),
}

# Bits below the index of a name: how the result goes on the stack. Before Python 3.12 an attribute had none.
_LOW_BITS = {"LOAD_GLOBAL": 1, "LOAD_SUPER_ATTR": 3}
if "LOAD_SUPER_ATTR" in dis.opmap:
    _LOW_BITS["LOAD_ATTR"] = 1

# What a class body stores about its own text.
_ABOUT_TEXT = frozenset(("__doc__", "__module__", "__firstlineno__", "__static_attributes__"))

# The bit of MAKE_FUNCTION, and from Python 3.13 the number of SET_FUNCTION_ATTRIBUTE, for annotations.
_ANNOTATIONS = 4
_CLOSURE = 8

_CONST, _NAME, _LOCAL, _FREE = map(frozenset, (dis.hasconst, dis.hasname, dis.haslocal, dis.hasfree))
_JUMP = frozenset((*dis.hasjrel, *dis.hasjabs))

SILENT = frozenset(("NOP", "EXTENDED_ARG", "CACHE", "NOT_TAKEN"))
"""Instructions that do nothing by themselves."""


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


def operations(code: CodeType) -> list[Operation]:
    """Decode one code object; nested ones stay constants."""
    constants = code.co_consts
    kept = _without_annotations([i for i in dis.get_instructions(code) if i.opname not in SILENT])
    found = [part for instruction in kept for part in _split(instruction, constants)]
    if not code.co_flags & inspect.CO_OPTIMIZED:
        return _without_text(found)
    _drop_dead_stores(found)
    return found


def _split(instruction: dis.Instruction, constants: Sequence[object]) -> Iterator[Operation]:
    name, argument, offset = instruction.opname, instruction.arg or 0, instruction.offset
    if name in _JOINED:
        for part, local in zip(_JOINED[name], instruction.argval, strict=True):
            yield Operation(part, local, 0, offset)
    elif instruction.opcode in _JUMP:
        # Which way a jump goes depends on the layout.
        plain = name.replace("_FORWARD", "").replace("_BACKWARD", "")
        yield Operation(plain, None, 0, offset, instruction.argval)
    elif instruction.opcode in _NAME:
        yield Operation(name, instruction.argval, argument & _LOW_BITS.get(name, 0), offset)
    elif instruction.opcode in _CONST:
        # Not `argval`: Python 3.11 leaves it unknown for keyword names.
        yield Operation(name, constants[argument], 0, offset)
    elif instruction.opcode in _LOCAL or instruction.opcode in _FREE:
        yield Operation(name, instruction.argval, 0, offset)
    else:
        value = argument & ~_ANNOTATIONS if name == "MAKE_FUNCTION" else argument
        yield Operation(name, value, 0, offset)


def _without_text(found: list[Operation]) -> list[Operation]:
    """Drop ``__doc__ = "..."`` and its like from a class body; nothing jumps into such a pair."""
    dropped: set[int] = set()
    for i, operation in enumerate(found):
        about = operation.name == "STORE_NAME" and operation.value in _ABOUT_TEXT
        if about and (found[i - 1].name == "LOAD_CONST" or found[i - 1].value == "__name__"):
            dropped |= {i - 1, i}
    return [operation for i, operation in enumerate(found) if i not in dropped]


def _drop_dead_stores(found: list[Operation]) -> None:
    """Make ``_, _ = pair`` store once; the compiler does only where both names are on one line."""
    following = Operation("", None, 0, 0)
    for operation in reversed(found):
        if operation.name == "STORE_FAST":
            if following.name == "STORE_FAST" and following.value == operation.value:
                operation.name, operation.value = "POP_TOP", 0
            else:
                following = operation
        elif operation.name != "POP_TOP":
            following = operation


def _without_annotations(found: list[dis.Instruction]) -> list[dis.Instruction]:
    """Drop what makes the annotations of nested functions.

    Where they cannot be told from the rest (a condition, an assignment), they stay and count.
    """
    dropped: set[int] = set()
    for i, instruction in enumerate(found):
        if instruction.opname == "MAKE_FUNCTION":
            dropped |= _annotations(found, i)
    return [instruction for i, instruction in enumerate(found) if i not in dropped]


def _annotations(found: Sequence[dis.Instruction], make: int) -> set[int]:
    """Positions of the instructions that make and attach the annotations of one function."""
    attached = {}
    flags = found[make].arg or 0
    for i in range(make + 1, len(found)):
        if found[i].opname != "SET_FUNCTION_ATTRIBUTE":
            break
        attached[found[i].arg or 0] = i
        flags |= found[i].arg or 0
    if not flags & _ANNOTATIONS:
        return set()
    stop = make - 1  # at the code object
    if flags & _CLOSURE:
        stop = _start(found, stop)
    start = _start(found, stop)
    expression = set(range(start, stop))
    if start < 0 or any(_is_tangled(found[i]) for i in expression):
        return set()
    return expression | {attached[_ANNOTATIONS]} if attached else expression


def _start(found: Sequence[dis.Instruction], stop: int) -> int:
    """Where the expression starts whose value is on the stack before `stop`; -1 if that is not found."""
    depth = 0
    for i in range(stop - 1, -1, -1):
        depth += dis.stack_effect(found[i].opcode, found[i].arg, jump=False)
        if depth == 1:
            return i
    return -1


def _is_tangled(instruction: dis.Instruction) -> bool:
    jumps = instruction.opcode in _JUMP or instruction.is_jump_target
    return jumps or instruction.opname.startswith(("STORE_", "YIELD", "SEND"))
