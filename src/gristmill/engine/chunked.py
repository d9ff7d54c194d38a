"""Chunked inputs: the elements of a zarr array, read by whoever needs them, as the calls run.

Every process opens the array's store itself. What it reads is identified again: an array that was written to
since the map began fails the calls that would have been given something else.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.engine.sources import DIGEST, InputSource, Source, load_input, map_file, take
from gristmill.engine.stores import Stores
from gristmill.errors import InputError
from gristmill.identity.digest import digest_block
from gristmill.plan.chunked import ROOM, ChunkedElements
from gristmill.plan.inputs import GivenOutput, MappedInput

Array = np.ndarray[Any, Any]

_KEPT = 2 * ROOM
"""Bytes of blocks that are kept for the neighbours of an element."""


def open_input(given: MappedInput | GivenOutput) -> Source:
    """Return what an input's elements are read through, in the process that has it."""
    if isinstance(given, GivenOutput):
        source: Source = given.output.elements
        return source
    if isinstance(given.elements, ChunkedElements):
        return ChunkedSource(given.name, given.elements, np.frombuffer(given.digests, dtype=DIGEST))
    return InputSource(given)


class ChunkedSource:
    """A zarr array as a source.

    Parameters
    ----------
    name
        What messages call it.
    elements, digests
        Its elements, and their digests when the map began.
    """

    holds_files = False

    def __init__(self, name: str, elements: ChunkedElements, digests: Array) -> None:
        self._name = name
        self._elements = elements
        self._digests = digests
        self._blocks: OrderedDict[int, tuple[Array, Array]] = OrderedDict()
        """By the first position: a block's elements and their positions; the one that was used last is the last."""

    @property
    def most_items(self) -> int:
        """How many elements may be in memory at once."""
        return max(1, ROOM // max(1, self._elements.item_bytes))

    def digests(self, positions: Array) -> Array:
        """Return the elements' digests as 16-byte items."""
        return take(self._digests, positions)

    def forms(self, positions: Array) -> Sequence[Any]:
        """Return the elements.

        Raises
        ------
        InputError
            The array has been written to.
        """
        found: list[Any] = [None] * len(positions)
        left = np.arange(len(positions))
        while len(left):
            block, members = self._block(int(positions[left[0]]))
            at = np.minimum(np.searchsorted(members, positions[left]), len(members) - 1)
            here = members[at] == positions[left]
            chosen = block[at[here]]  # a copy: the block does not stay for the sake of one element
            self._check(chosen, positions[left[here]])
            for place, element in zip(left[here].tolist(), chosen, strict=True):
                found[place] = element
            left = left[~here]
        return found

    def load(self, form: object) -> Any:
        """Return a private value of a stored form."""
        return load_input(form)

    def publish(self, path: Path) -> "PublishedChunks":
        """Write what other processes need to files whose names start with `path`."""
        digests = f"{path}.digests"
        self._digests.tofile(digests)
        return PublishedChunks(self._name, self._elements, digests)

    def _block(self, position: int) -> tuple[Array, Array]:
        """The elements that have the same chunks as one of them, with their positions, increasing."""
        elements = self._elements
        region = elements.region(position)
        grid = np.ix_(*(np.arange(one.start, one.stop) for one in region))
        members = np.ravel_multi_index(grid, elements.shape).reshape(-1)
        if len(members) * elements.item_bytes > _KEPT:
            return elements.alone(position), np.array([position])
        first = int(members[0])
        if first not in self._blocks:
            self._blocks[first] = elements.rows(region), members
        self._blocks.move_to_end(first)
        while len(self._blocks) > 1 and sum(block.nbytes for block, _ in self._blocks.values()) > _KEPT:
            self._blocks.popitem(last=False)
        return self._blocks[first]

    def _check(self, elements: Array, positions: Array) -> None:
        if digest_block(elements, name=self._name) != take(self._digests, positions).tobytes():
            raise InputError(
                f"the zarr array {self._name!r} was written to while it was mapped over, so elements are not what they "
                "were when the map began; run again"
            )


@dataclass(frozen=True, slots=True)
class PublishedChunks:
    """A zarr array on its way to another process."""

    name: str
    elements: ChunkedElements
    digests: str

    def open(self, stores: Stores) -> Source:
        """Return the source there."""
        return ChunkedSource(self.name, self.elements, map_file(self.digests, DIGEST))
