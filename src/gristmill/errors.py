"""The exception tree: every error that gristmill itself raises.

A user's own exception is never wrapped; it keeps its type and gains a note.
"""


class GristmillError(Exception):
    """Base of every error that gristmill raises itself."""


class GraphError(GristmillError):
    """Nodes do not form a valid graph: a cycle, a name produced twice, an unknown output."""


class MapSpecError(GraphError):
    """A mapspec is malformed, or contradicts another one."""


class InputError(GristmillError, ValueError):
    """The inputs do not fit the pipeline: missing, unknown, or of unequal lengths."""


class DigestError(GristmillError, TypeError):
    """A value has no stable identity; the message names the path inside the value."""


class RaggedError(GristmillError, ValueError):
    """Inner axes of one dense output differ in length."""


class StoreError(GristmillError):
    """The store could not do what was asked of it."""


class IntegrityError(StoreError):
    """Stored bytes do not match their checksum."""


class StoreVersionError(StoreError):
    """The directory holds a store of another format version, or is no store at all."""


class StorePermissionError(StoreError, PermissionError):
    """The store belongs to, or can be written by, other users, or was made with another secret."""


class WorkerDiedError(GristmillError):
    """The process that ran a call died (killed, crashed, or out of memory)."""


class ItemTimeoutError(GristmillError, TimeoutError):
    """A call ran longer than its node's `timeout`."""
