"""Code records: what code the calls of a group were made by.

One small record per group, for `explain`, never for a look-up: without it an explanation says less.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from xxhash import xxh3_128_digest

from gristmill.errors import IntegrityError
from gristmill.identity.fingerprint import Part
from gristmill.identity.types import Digest

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class CodeRecord:
    """The code of one node, as it was when its first call was recorded."""

    node: str
    """Module and qualified name of the function, with a colon between."""
    outputs: tuple[str, ...]
    """Names in the graph that it was recorded under first."""
    fingerprint: Digest
    python: str
    """Major and minor version of the interpreter."""
    parameters: Mapping[str, str]
    """The function's own parameter names, each with the form its argument is delivered in."""
    parts: tuple[Part, ...]
    """What the fingerprint was made from, versions of libraries included."""
    written: float
    """Seconds since the epoch."""

    @property
    def place(self) -> bytes:
        """Where all records of this function are, whatever its code was: 16 bytes."""
        return xxh3_128_digest(self.node.encode(errors="surrogatepass"))

    def encode(self) -> bytes:
        """Return the record as the body of a row."""
        parts = [[part.kind, part.name, part.location, part.digest.hex()] for part in self.parts]
        fields = {
            "format": _FORMAT,
            "node": self.node,
            "outputs": self.outputs,
            "fingerprint": self.fingerprint.hex(),
            "python": self.python,
            "parameters": dict(self.parameters),
            "parts": parts,
            "written": self.written,
        }
        return json.dumps(fields, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Return the record that `encode` made a body of.

        Raises
        ------
        IntegrityError
            The body is no record of this format.
        """
        try:
            fields = json.loads(body)
            if fields["format"] != _FORMAT:
                raise IntegrityError(f"code records of format {fields['format']} are not known here")
            return cls(
                fields["node"],
                tuple(fields["outputs"]),
                Digest(bytes.fromhex(fields["fingerprint"])),
                fields["python"],
                fields["parameters"],
                tuple(Part(k, name, at, Digest(bytes.fromhex(d))) for k, name, at, d in fields["parts"]),
                fields["written"],
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise IntegrityError(f"a code record cannot be decoded: {error!r}") from error
