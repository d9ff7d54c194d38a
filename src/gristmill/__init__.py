"""Disk-cached, storage-backed map-reduce for plain Python functions.

The public names, each loaded when it is first used: a worker process imports this package before it can watch
its parent, so importing it must cost nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gristmill.version import __version__ as __version__

if TYPE_CHECKING:
    from gristmill.engine.engine import Engine as Engine
    from gristmill.engine.failed import ItemError as ItemError
    from gristmill.engine.items import Item as Item
    from gristmill.engine.mapped import MappedOutput as MappedOutput
    from gristmill.errors import DigestError as DigestError
    from gristmill.errors import GraphError as GraphError
    from gristmill.errors import GristmillError as GristmillError
    from gristmill.errors import InputError as InputError
    from gristmill.errors import IntegrityError as IntegrityError
    from gristmill.errors import ItemTimeoutError as ItemTimeoutError
    from gristmill.errors import MapSpecError as MapSpecError
    from gristmill.errors import RaggedError as RaggedError
    from gristmill.errors import StoreError as StoreError
    from gristmill.errors import StorePermissionError as StorePermissionError
    from gristmill.errors import StoreVersionError as StoreVersionError
    from gristmill.errors import WorkerDiedError as WorkerDiedError
    from gristmill.events import Callback as Callback
    from gristmill.explain.planned import NodePlan as NodePlan
    from gristmill.explain.planned import RunPlan as RunPlan
    from gristmill.explain.planned import StagePlan as StagePlan
    from gristmill.explain.report import Explanation as Explanation
    from gristmill.explain.report import Finding as Finding
    from gristmill.explain.report import NodeExplanation as NodeExplanation
    from gristmill.functions import parallel_map as parallel_map
    from gristmill.graph.node import Node as Node
    from gristmill.graph.node import node as node
    from gristmill.graph.retry import Retry as Retry
    from gristmill.identity.digest import Digest as Digest
    from gristmill.identity.digest import digest as digest
    from gristmill.identity.digest import register_digest as register_digest
    from gristmill.identity.files import Dir as Dir
    from gristmill.identity.files import File as File
    from gristmill.identity.fingerprint import CodeReport as CodeReport
    from gristmill.identity.fingerprint import Part as Part
    from gristmill.identity.fingerprint import fingerprint as fingerprint
    from gristmill.launching import MapRuns as MapRuns
    from gristmill.launching import gather_maps as gather_maps
    from gristmill.launching import launch_maps as launch_maps
    from gristmill.maprun import MapProgress as MapProgress
    from gristmill.maprun import MapRun as MapRun
    from gristmill.maprun import StageProgress as StageProgress
    from gristmill.observe.progress import ProgressCallback as ProgressCallback
    from gristmill.pipeline import Pipeline as Pipeline
    from gristmill.result import MapResult as MapResult
    from gristmill.result import Stats as Stats
    from gristmill.runs import NodeRecord as NodeRecord
    from gristmill.runs import RunRecord as RunRecord
    from gristmill.runs import StageRecord as StageRecord
    from gristmill.storage.gc import GcReport as GcReport
    from gristmill.storage.inspect import RunHits as RunHits
    from gristmill.storage.inspect import StoreEntry as StoreEntry
    from gristmill.storage.inspect import StoreStats as StoreStats
    from gristmill.storage.verify import Damage as Damage
    from gristmill.storage.verify import VerifyReport as VerifyReport
    from gristmill.store import Store as Store
    from gristmill.streaming import ItemStream as ItemStream

_HOMES = {
    "engine.engine": ("Engine",),
    "engine.failed": ("ItemError",),
    "engine.items": ("Item",),
    "engine.mapped": ("MappedOutput",),
    "errors": (
        "DigestError",
        "GraphError",
        "GristmillError",
        "InputError",
        "IntegrityError",
        "ItemTimeoutError",
        "MapSpecError",
        "RaggedError",
        "StoreError",
        "StorePermissionError",
        "StoreVersionError",
        "WorkerDiedError",
    ),
    "events": ("Callback",),
    "explain.planned": ("NodePlan", "RunPlan", "StagePlan"),
    "explain.report": ("Explanation", "Finding", "NodeExplanation"),
    "functions": ("parallel_map",),
    "graph.node": ("Node", "node"),
    "graph.retry": ("Retry",),
    "identity.digest": ("Digest", "digest", "register_digest"),
    "identity.files": ("Dir", "File"),
    "identity.fingerprint": ("CodeReport", "Part", "fingerprint"),
    "launching": ("MapRuns", "gather_maps", "launch_maps"),
    "maprun": ("MapProgress", "MapRun", "StageProgress"),
    "observe.progress": ("ProgressCallback",),
    "pipeline": ("Pipeline",),
    "result": ("MapResult", "Stats"),
    "runs": ("NodeRecord", "RunRecord", "StageRecord"),
    "storage.gc": ("GcReport",),
    "storage.inspect": ("RunHits", "StoreEntry", "StoreStats"),
    "storage.verify": ("Damage", "VerifyReport"),
    "store": ("Store",),
    "streaming": ("ItemStream",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)  # noqa: PLE0605 - the table above is the one list of public names


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
