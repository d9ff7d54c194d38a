"""What counts about a class: its bases, its methods, its attributes.

Owns what of a class's namespace is behaviour and what the interpreter or a library keeps there. Knows
nothing of functions and values.
"""

from __future__ import annotations

from enum import Enum
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import Any

from gristmill.identity.code.walk import Vertex, Walk

# Where a class lies, what describes it, and what others cache in it.
_SKIPPED = frozenset(
    (
        "__module__",
        "__doc__",
        "__dict__",
        "__weakref__",
        "__firstlineno__",
        "__static_attributes__",
        "__annotations__",
        "__annotate__",
        "__annotate_func__",
        "__annotations_cache__",
        "__slotnames__",
        "__abstractmethods__",
        "__qualname__",
        "__signature__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__orig_bases__",
        "__parameters__",
        "__subclasshook__",
        "__classcell__",
        "_abc_impl",
        "_is_protocol",
        "_is_runtime_protocol",
    )
)

_ENUM = frozenset(
    (
        "_generate_next_value_",
        "_member_names_",
        "_member_map_",
        "_value2member_map_",
        "_unhashable_values_",
        "_unhashable_values_map_",
        "_hashable_values_",
        "_new_member_",
        "_use_args_",
        "_value_repr_",
        "__new__",
        "__new_member__",
    )
)

_WITH_FIELDS = (
    "__dataclass_fields__",
    "__attrs_attrs__",
    "__pydantic_fields__",
    "__total__",
    "_field_defaults",
)
"""Marks of classes whose annotations are behaviour."""


def describe_class(walk: Walk, vertex: Vertex, kind: type) -> None:
    """Describe one of the user's classes."""
    # cloudpickle sends a class by value under its bare name, so where it was nested cannot count.
    vertex.kind, vertex.name, vertex.location = "class", kind.__name__, kind.__module__
    vertex.note(kind.__name__)
    if type(kind) is not type:
        walk.edge(vertex, "metaclass", type(kind))
    for base in kind.__bases__:
        if base is not object:
            walk.edge(vertex, "base", base)
    members = issubclass(kind, Enum)
    for name, value in walk.reads.items(vars(kind)):
        qualified = f"{kind.__name__}.{name}"
        if name in _SKIPPED or name.startswith("__pydantic_") or qualified in walk.ignored:
            continue
        if members and (name in _ENUM or isinstance(value, kind)):
            continue
        _attribute(walk, vertex, name, value, qualified)
    if issubclass(kind, Enum):
        for name, member in sorted(kind.__members__.items()):
            walk.edge(vertex, f"member {name}", member.value, f"{kind.__name__}.{name}")
    _fields(walk, vertex, kind)


def _attribute(walk: Walk, vertex: Vertex, name: str, value: Any, qualified: str) -> None:
    label = f"attribute {name}"
    if isinstance(value, FunctionType):
        walk.edge(vertex, label, value)
    elif isinstance(value, staticmethod | classmethod):
        vertex.note(type(value).__name__)
        walk.edge(vertex, label, value.__func__, qualified)
    elif isinstance(value, property):
        for part, function in zip(
            ("get", "set", "delete"), (value.fget, value.fset, value.fdel), strict=True
        ):
            if function is not None:
                walk.edge(vertex, f"{label} {part}", function, qualified)
    elif not isinstance(value, GetSetDescriptorType | MemberDescriptorType):
        # Those come from `__slots__`, which counts; a class sent by value may have lost them.
        walk.edge(vertex, label, value, qualified)


def _fields(walk: Walk, vertex: Vertex, kind: type) -> None:
    """Count annotations where they are behaviour, and what a library made of them."""
    space = vars(kind)
    if not any(mark in space for mark in _WITH_FIELDS):
        return
    for name, annotation in sorted(space.get("__annotations__", {}).items()):
        walk.edge(vertex, f"annotation {name}", annotation, f"annotation of {kind.__name__}.{name}")
    # One for all fields, since every dict is digested again whenever the class is met.
    nothing: dict[str, object] = {}
    for name, field in sorted(space.get("__dataclass_fields__", {}).items()):
        for part in ("default", "default_factory", "init", "repr", "hash", "compare", "kw_only"):
            walk.edge(vertex, f"field {name} {part}", getattr(field, part), f"{kind.__name__}.{name}")
        metadata = dict(field.metadata) or nothing
        walk.edge(vertex, f"field {name} metadata", metadata, f"{kind.__name__}.{name}")
    for name, field in sorted(space.get("__pydantic_fields__", {}).items()):
        walk.edge(vertex, f"field {name}", field, f"{kind.__name__}.{name}")
    decorators = space.get("__pydantic_decorators__")
    for group in sorted(getattr(decorators, "__dataclass_fields__", ())):
        for name, decorator in sorted(getattr(decorators, group).items()):
            walk.edge(vertex, f"{group} {name}", getattr(decorator, "info", None), f"{kind.__name__}.{name}")
