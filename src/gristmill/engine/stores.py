"""The stores of one run: the one that is kept, and a private one for what `cache=False` keeps nothing of."""

from dataclasses import dataclass, field

from gristmill.graph.node import Node
from gristmill.storage.local import LocalStorage, StoreSpec


@dataclass(frozen=True, slots=True)
class StoresSpec:
    """How to open the same stores in another process."""

    kept: StoreSpec
    private: StoreSpec | None


@dataclass(frozen=True, slots=True)
class Stores:
    """Where the results of one run go.

    Every run has another private store, so that what is in it is found by this run and by no other.
    """

    kept: LocalStorage
    private: LocalStorage | None = None
    others: dict[StoreSpec, LocalStorage] = field(default_factory=dict, compare=False)
    """Where outputs of earlier maps are read from, which kept them elsewhere."""

    @classmethod
    def open(cls, spec: StoresSpec) -> "Stores":
        """Open the stores that `spec` names."""
        return cls(LocalStorage(spec.kept), LocalStorage(spec.private) if spec.private else None)

    @property
    def spec(self) -> StoresSpec:
        """How to open them elsewhere."""
        return StoresSpec(self.kept.spec, self.private.spec if self.private else None)

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

    def of(self, node: Node) -> LocalStorage:
        """Return where the results of `node` go."""
        return self.kept if node.cache or self.private is None else self.private

    def open_other(self, spec: StoreSpec) -> LocalStorage:
        """Return the store of that kind: one of these two, or another to read from."""
        for storage in (self.kept, self.private):
            if storage is not None and storage.spec == spec:
                return storage
        if spec not in self.others:
            self.others[spec] = LocalStorage(spec)
        return self.others[spec]

    def refresh(self) -> bool:
        """Take in what others have appended; return whether there was anything."""
        changed = self.kept.refresh()
        return (self.private is not None and self.private.refresh()) or changed

    def close(self) -> None:
        """Close all of them."""
        for storage in (self.kept, self.private, *self.others.values()):
            if storage is not None:
                storage.close()
        self.others.clear()
