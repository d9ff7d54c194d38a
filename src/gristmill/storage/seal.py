"""Seals: how stored bytes are checked before they are read.

Without a secret, by xxh3_128 (https://github.com/Cyan4973/xxHash): fast, and finds accidents. With one, by keyed
BLAKE2b (RFC 7693), which nobody can compute who does not know the secret: it finds forgeries too. Either has 16
bytes, so that nothing else in the format depends on which it is.
"""

import functools
import hashlib
import os
from typing import Any, Protocol, Self

from xxhash import xxh3_128, xxh3_128_digest

from gristmill.errors import StoreError

ENVIRONMENT = "GRISTMILL_SECRET"
SIZE = 16
"""Bytes of a checksum, and of an authentication code."""

NO_KEY = b""
"""The key of a store without a secret."""

_KEY_SIZE = 32
_FRAME, _CONTENT, _CHECK = b"gristmill frame", b"gristmill bytes", b"gristmill check"


class Hasher(Protocol):
    """What takes bytes piece by piece."""

    def update(self, data: Any, /) -> None:
        """Take more bytes."""

    def digest(self) -> bytes:
        """Return what they come to."""


class Secret:
    """What only those know who may write to a store; it is never shown, and never pickled.

    Examples
    --------
    >>> Secret(b"of the house")
    Secret(...)
    """

    __slots__ = ("_text",)

    def __init__(self, text: bytes) -> None:
        self._text = text

    @classmethod
    def given(cls, secret: str | bytes | None) -> Self | None:
        """Return the secret that somebody gave as an option.

        Raises
        ------
        StoreError
            It is empty, or neither text nor bytes.
        """
        if secret is None:
            return None
        given: object = secret
        if not isinstance(given, str | bytes) or not given:
            what = "empty" if isinstance(given, str | bytes) else f"a {type(given).__name__}"
            raise StoreError(f"secret is {what}; give text or bytes that nobody can guess, or None")
        return cls(secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret)

    @classmethod
    def from_environment(cls) -> Self | None:
        """Return the secret in `$GRISTMILL_SECRET`, if there is one."""
        return cls.given(os.environ.get(ENVIRONMENT) or None)

    def key(self, salt: bytes) -> bytes:
        """Return the key of the store with that salt."""
        return _derive(self._text, salt)

    def reveal(self) -> bytes:
        """Return the secret itself, for a pipe to a process of one's own."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Secret(...)"

    def __reduce__(self) -> Any:
        raise TypeError(
            "a store's secret is not pickled, since a pickle may end up on a disk; "
            f"set ${ENVIRONMENT} where the store is opened"
        )


@functools.lru_cache(maxsize=8)
def _derive(text: bytes, salt: bytes) -> bytes:
    """Slow on purpose (40 ms): the check value in `store.json` lets anybody try secrets (RFC 7914)."""
    return hashlib.scrypt(text, salt=salt, n=2**14, r=8, p=1, dklen=_KEY_SIZE)


def check_value(key: bytes) -> bytes:
    """Return what tells whether a key is that of a store."""
    return hashlib.blake2b(key=key, digest_size=SIZE, person=_CHECK).digest()


def content_hasher(key: bytes) -> Hasher:
    """Return what computes the checksum of a chunk or an object."""
    return hashlib.blake2b(key=key, digest_size=SIZE, person=_CONTENT) if key else xxh3_128()


def content_checksum(data: bytes | memoryview, key: bytes) -> bytes:
    """Return the checksum of a chunk or an object, which is also its name."""
    if not key:
        return xxh3_128_digest(data)
    return hashlib.blake2b(data, key=key, digest_size=SIZE, person=_CONTENT).digest()


def frame_checksum(name: bytes, body: bytes | memoryview, key: bytes) -> bytes:
    """Return the checksum of a body under a name."""
    hasher: Hasher = hashlib.blake2b(key=key, digest_size=SIZE, person=_FRAME) if key else xxh3_128()
    if key:  # else a forger could move bytes between the name and the body
        hasher.update(len(name).to_bytes(8, "little"))
    hasher.update(name)
    hasher.update(body)
    return hasher.digest()
