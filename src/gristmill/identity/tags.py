"""The first byte of every encoded value: its kind.

Owns the table that keeps the encoding typed. A tag is never reused and never changes within a scheme.
Upper case or lower case carries no meaning.
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

DATE = b"d"
TIME = b"t"
DATETIME = b"D"
TIMEDELTA = b"e"
TIMEZONE = b"z"
ZONE = b"q"
DECIMAL = b"$"
FRACTION = b"/"
UUID = b"u"
PATH = b"p"
ENUM = b"E"
PATTERN = b"x"

SCALAR = b"n"
ARRAY = b"a"
OBJECT_ARRAY = b"A"
MASKED_ARRAY = b"M"
FIELDS_ARRAY = b"V"
DTYPE = b"Y"

BACK = b"^"
SUBCLASS = b"<"
NAMED = b"@"
CODE = b"!"
OBJECT = b"o"
REDUCED = b"R"
CUSTOM = b"_"
DIGEST = b"#"
ROOT = b"*"

FILE = b"1"
DIRECTORY = b"2"
LIBRARY = b"L"

MERKLE = b"3"
CALL = b"4"
