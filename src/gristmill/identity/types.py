"""The digest as a value: sixteen bytes with a scheme.

Owns how a digest is written and read as text. Knows nothing of what is digested.
"""

from __future__ import annotations

from typing import Self

SCHEME = "x3"
"""Version of the canonical encoding. Every digest starts from it, so another scheme is a clean miss."""

SIZE = 16


class Digest(bytes):
    """Identity of a value or of code: exactly 16 bytes, written ``x3:<32 hex digits>``.

    The constructor trusts its caller with the length: it runs once per digested value.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read back what `str` wrote.

        Raises
        ------
        ValueError
            When the text is no digest, or one of another scheme.
        """
        scheme, _, digits = text.partition(":")
        if scheme != SCHEME or len(digits) != 2 * SIZE:
            raise ValueError(f"expected '{SCHEME}:' and {2 * SIZE} hex digits, got {text!r}")
        return cls(bytes.fromhex(digits))

    def __str__(self) -> str:
        return f"{SCHEME}:{self.hex()}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class Root(Digest):
    """Digest over element digests (see `merkle`), which stands for the elements without reading them.

    A root is its own digest, and an object whose ``__digest__`` returns one has exactly that digest.
    """

    __slots__ = ()
