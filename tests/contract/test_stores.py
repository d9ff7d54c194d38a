"""Every back end, and every way to open one, keeps what the engine relies on."""

from pathlib import Path
from typing import Any

from tests.contract.store_tests import StoreTests

from gristmill.storage.elements import ChunkRef
from gristmill.storage.local import LocalStorage, StoreSpec
from gristmill.storage.seal import Secret


class TestLocalStorage(StoreTests):
    """A directory."""

    opening = """
        from gristmill.storage.local import LocalStorage, StoreSpec
        storage = LocalStorage(StoreSpec(place))
        """

    def open(self, place: Path) -> LocalStorage:
        return LocalStorage(StoreSpec(str(place)))

    def lose(self, storage: LocalStorage, form: Any) -> None:
        if isinstance(form, ChunkRef):
            storage.chunks.path(form.checksum).unlink()
        else:
            for path in storage.layout.ledger.rglob("*.val"):
                path.unlink()


class TestDurableStorage(TestLocalStorage):
    """A directory, synced before each commit."""

    opening = """
        from gristmill.storage.local import LocalStorage, StoreSpec
        storage = LocalStorage(StoreSpec(place, durable=True))
        """

    def open(self, place: Path) -> LocalStorage:
        return LocalStorage(StoreSpec(str(place), durable=True))


class TestSealedStorage(TestLocalStorage):
    """A directory with a secret, and compressed chunks."""

    opening = """
        from gristmill.storage.local import LocalStorage, StoreSpec
        from gristmill.storage.seal import Secret
        storage = LocalStorage(StoreSpec(place, compressor="zstd:1", secret=Secret(b"of the house")))
        """

    def open(self, place: Path) -> LocalStorage:
        return LocalStorage(StoreSpec(str(place), compressor="zstd:1", secret=Secret(b"of the house")))
