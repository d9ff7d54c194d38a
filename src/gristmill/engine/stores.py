"""The stores of one run: the one that is kept, and a private one for what `cache=False` keeps nothing of."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from gristmill.graph.node import Node
from gristmill.storage.local import LocalStorage, StoreSpec
from gristmill.storage.seal import Secret


@dataclass(frozen=True, slots=True)
class StoresSpec:
    """How to open the same stores in another process.

    Its pickle has the secrets in it: it goes through a pipe and is never written to a file. A `StoreSpec` with a
    secret cannot be pickled otherwise.
    """

    kept: StoreSpec
    private: StoreSpec | None
    others: tuple[StoreSpec, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _revealed, tuple(_reveal(spec) for spec in (self.kept, self.private, *self.others))


@dataclass(frozen=True, slots=True)
class Stores:
    """Where the results of one run go.

    Every run has another private store, so that what is in it is found by this run and by no other.
    """

    kept: LocalStorage
    private: LocalStorage | None = None
    others: tuple[LocalStorage, ...] = ()
    """Where outputs of earlier maps are read from, which kept them elsewhere."""

    @classmethod
    def open(cls, spec: StoresSpec) -> "Stores":
        """Open the stores that `spec` names."""
        private = LocalStorage(spec.private) if spec.private else None
        return cls(LocalStorage(spec.kept), private, tuple(LocalStorage(one) for one in spec.others))

    @property
    def spec(self) -> StoresSpec:
        """How to open them elsewhere."""
        private = self.private.spec if self.private else None
        return StoresSpec(self.kept.spec, private, tuple(storage.spec for storage in self.others))

    @property
    def bytes_written(self) -> int:
        """Bytes that this process has added to the store that is kept."""
        return self.kept.bytes_written

    @property
    def sheltered(self) -> int:
        """How many writes of this process have gone to a refuge, because a store did not take them."""
        return self.kept.shelter.writes + (self.private.shelter.writes if self.private else 0)

    @property
    def fault(self) -> str:
        """Why the latest of them did."""
        return self.kept.shelter.fault or (self.private.shelter.fault if self.private else "")

    @property
    def epoch(self) -> int:
        """Grows whenever there may be more to find than before."""
        return self.kept.epoch + (self.private.epoch if self.private else 0)

    @staticmethod
    def needs_private(nodes: Iterable[Node]) -> bool:
        """Whether a run of `nodes` may make what nobody keeps."""
        return any(not node.cache or node.errors == "pass" for node in nodes)

    def of(self, node: Node) -> LocalStorage:
        """Return where the results of `node` go."""
        return self.kept if node.cache or self.private is None else self.private

    def at(self, location: str) -> LocalStorage:
        """Return the store at `location`, one of these."""
        known = (self.kept, self.private, *self.others)
        return next(one for one in known if one is not None and one.spec.location == location)

    def refresh(self) -> bool:
        """Take in what others have appended; return whether there was anything."""
        changed = self.kept.refresh()
        return (self.private is not None and self.private.refresh()) or changed

    def bound_memory(self) -> None:
        """Have all of them hold little in memory, in a process that is one of many."""
        for storage in (self.kept, self.private, *self.others):
            if storage is not None:
                storage.bound_memory()

    def close(self) -> None:
        """Close all of them."""
        for storage in (self.kept, self.private, *self.others):
            if storage is not None:
                storage.close()


_Revealed = tuple[StoreSpec, bytes | None] | None


def _reveal(spec: StoreSpec | None) -> _Revealed:
    if spec is None:
        return None
    return replace(spec, secret=None), spec.secret.reveal() if spec.secret is not None else None


def _revealed(kept: tuple[StoreSpec, bytes | None], private: _Revealed, *others: Any) -> StoresSpec:
    hidden = _hidden(*private) if private is not None else None
    return StoresSpec(_hidden(*kept), hidden, tuple(_hidden(*other) for other in others))


def _hidden(spec: StoreSpec, secret: bytes | None) -> StoreSpec:
    return replace(spec, secret=Secret.given(secret))
