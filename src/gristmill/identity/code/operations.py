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
from typing import Any, NamedTuple

# Python 3.13 joins neighbours only when they are on one line.
_JOINED = {
    "LOAD_FAST_LOAD_FAST": ("LOAD_FAST", "LOAD_FAST"),
    "STORE_FAST_LOAD_FAST": ("STORE_FAST", "LOAD_FAST"),
    "STORE_FAST_STORE_FAST": ("STORE_FAST", "STORE_FAST"),
    "LOAD_FAST_BORROW_LOAD_FAST_BORROW": ("LOAD_FAST_BORROW", "LOAD_FAST_BORROW"),
}

# Number of bits below the index of a name: how the result goes on the stack. Before Python 3.12 an attribute
# had none.
_LOW_BITS = {"LOAD_GLOBAL": 1, "LOAD_SUPER_ATTR": 2}
if "LOAD_SUPER_ATTR" in dis.opmap:
    _LOW_BITS["LOAD_ATTR"] = 1

# What a class body stores about its own text.
_ABOUT_TEXT = frozenset(("__doc__", "__module__", "__firstlineno__", "__static_attributes__"))

# The bit of MAKE_FUNCTION, and from Python 3.13 the number of SET_FUNCTION_ATTRIBUTE, for annotations.
_ANNOTATIONS = 4
_CLOSURE = 8

_CACHE = dis.opmap["CACHE"]
_CONST, _NAME = frozenset(dis.hasconst), frozenset(dis.hasname)
_LOCAL = frozenset((*dis.haslocal, *dis.hasfree))
_JUMP = frozenset((*dis.hasjrel, *dis.hasjabs))
_ARGUED = frozenset(getattr(dis, "hasarg", range(dis.HAVE_ARGUMENT, 256)))

SILENT = frozenset(("NOP", "CACHE", "NOT_TAKEN"))
"""Instructions that do nothing by themselves."""


class _Raw(NamedTuple):
    """One instruction as it stands."""

    name: str
    opcode: int
    argument: int
    offset: int
    target: int | None
    """Offset that it may jump to."""


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
    found = _resolved(_without_annotations(list(_raw(code.co_code))), code)
    if not code.co_flags & inspect.CO_OPTIMIZED:
        return _without_text(found)
    _drop_dead_stores(found)
    return found


def _raw(data: bytes) -> Iterator[_Raw]:
    """Split bytecode into instructions, without those that do nothing.

    Several times as fast as `dis.get_instructions`, whose positions and texts nobody needs here.
    """
    argument = start = 0
    size = len(data)
    while start < size:
        opcode = data[start]
        argument = argument << 8 | data[start + 1]
        offset, start = start, start + 2
        while start < size and data[start] == _CACHE:
            start += 2
        if opcode == dis.EXTENDED_ARG:
            continue
        name = dis.opname[opcode]
        if name not in SILENT:
            target = None
            if opcode in _JUMP:
                target = start - 2 * argument if "BACKWARD" in name else start + 2 * argument
            yield _Raw(name, opcode, argument, offset, target)
        argument = 0


def _resolved(found: list[_Raw], code: CodeType) -> list[Operation]:
    constants, names = code.co_consts, code.co_names
    variables = code.co_varnames
    variables += tuple(name for name in code.co_cellvars if name not in variables) + code.co_freevars
    resolved = []
    for name, opcode, argument, offset, target in found:
        if name in _JOINED:
            first, second = _JOINED[name]
            resolved.append(Operation(first, variables[argument >> 4], 0, offset))
            resolved.append(Operation(second, variables[argument & 15], 0, offset))
        elif opcode in _LOCAL:
            resolved.append(Operation(name, variables[argument], 0, offset))
        elif opcode in _CONST:
            resolved.append(Operation(name, constants[argument], 0, offset))
        elif opcode in _NAME:
            bits = _LOW_BITS.get(name, 0)
            resolved.append(Operation(name, names[argument >> bits], argument & (1 << bits) - 1, offset))
        elif target is not None:
            # Which way a jump goes depends on the layout.
            plain = name.replace("_FORWARD", "").replace("_BACKWARD", "")
            resolved.append(Operation(plain, None, 0, offset, target))
        else:
            value = argument & ~_ANNOTATIONS if name == "MAKE_FUNCTION" else argument
            resolved.append(Operation(name, value, 0, offset))
    return resolved


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


def _without_annotations(found: list[_Raw]) -> list[_Raw]:
    """Drop what makes the annotations of nested functions.

    Where they cannot be told from the rest (a condition, an assignment), they stay and count.
    """
    dropped: set[int] = set()
    for i, instruction in enumerate(found):
        if instruction.name == "MAKE_FUNCTION":
            dropped |= _annotations(found, i)
    return [instruction for i, instruction in enumerate(found) if i not in dropped]


def _annotations(found: Sequence[_Raw], make: int) -> set[int]:
    """Positions of the instructions that make and attach the annotations of one function."""
    attached = {}
    flags = found[make].argument
    for i in range(make + 1, len(found)):
        if found[i].name != "SET_FUNCTION_ATTRIBUTE":
            break
        attached[found[i].argument] = i
        flags |= found[i].argument
    if not flags & _ANNOTATIONS:
        return set()
    stop = make - 1  # at the code object
    if flags & _CLOSURE:
        stop = _start(found, stop)
    start = _start(found, stop)
    expression = set(range(start, stop))
    targets = {instruction.target for instruction in found}
    if start < 0 or any(_is_tangled(found[i], targets) for i in expression):
        return set()
    return expression | {attached[_ANNOTATIONS]} if attached else expression


def _start(found: Sequence[_Raw], stop: int) -> int:
    """Where the expression starts whose value is on the stack before `stop`; -1 if that is not found."""
    depth = 0
    for i in range(stop - 1, -1, -1):
        opcode, argument = found[i].opcode, found[i].argument
        depth += dis.stack_effect(opcode, argument if opcode in _ARGUED else None, jump=False)
        if depth == 1:
            return i
    return -1


def _is_tangled(instruction: _Raw, targets: set[int | None]) -> bool:
    jumps = instruction.target is not None or instruction.offset in targets
    return jumps or instruction.name.startswith(("STORE_", "YIELD", "SEND"))
