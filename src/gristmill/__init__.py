"""Disk-cached, storage-backed map-reduce for plain Python functions."""

from gristmill.engine.engine import Engine
from gristmill.errors import (
    DigestError,
    GraphError,
    GristmillError,
    InputError,
    IntegrityError,
    ItemTimeoutError,
    MapSpecError,
    RaggedError,
    StoreError,
    StorePermissionError,
    StoreVersionError,
    WorkerDiedError,
)
from gristmill.events import Callback
from gristmill.graph.node import Node, node
from gristmill.identity.digest import Digest, digest, register_digest
from gristmill.identity.fingerprint import fingerprint
from gristmill.pipeline import Pipeline
from gristmill.result import ItemError, MappedOutput, MapResult, Stats
from gristmill.store import Store

__all__ = [
    "Callback",
    "Digest",
    "DigestError",
    "Engine",
    "GraphError",
    "GristmillError",
    "InputError",
    "IntegrityError",
    "ItemError",
    "ItemTimeoutError",
    "MapResult",
    "MapSpecError",
    "MappedOutput",
    "Node",
    "Pipeline",
    "RaggedError",
    "Stats",
    "Store",
    "StoreError",
    "StorePermissionError",
    "StoreVersionError",
    "WorkerDiedError",
    "digest",
    "fingerprint",
    "node",
    "register_digest",
]
