"""The first byte of every encoded value: its kind.

Owns the table that keeps the encoding typed. Within a scheme a tag never changes and is never reused.
"""

from __future__ import annotations

NONE = b"N"
TRUE = b"T"
FALSE = b"F"
INT = b"i"
BIG_INT = b"I"
FLOAT = b"f"
COMPLEX = b"c"
STR = b"s"
BYTES = b"b"
LONG_BYTES = b"B"
BYTEARRAY = b"y"
MEMORYVIEW = b"m"
ELLIPSIS = b"."
NOT_IMPLEMENTED = b"~"
RANGE = b"r"
SLICE = b":"

TUPLE = b"("
LIST = b"["
DICT = b"{"
SET = b"S"
FROZENSET = b"Z"

SCALAR = b"n"
DTYPE = b"Y"
ARRAY = b"a"
OBJECT_ARRAY = b"A"
FIELDS_ARRAY = b"V"

NAMED = b"L"
"""A type that gristmill knows by name: the standard library's, and other libraries'."""
SUBCLASS = b"<"
CUSTOM = b"_"
OBJECT = b"o"
REDUCED = b"R"
GLOBAL = b"@"
FIELDS = b","

BACK = b"^"
CODE = b"!"
DIGEST = b"#"
ROOT = b"*"
MERKLE = b"3"
CALL = b"4"
MADE = b"5"
ELEMENT = b"6"
