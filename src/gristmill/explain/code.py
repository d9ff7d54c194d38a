"""Why code counts as other code: two code records compared part by part."""

from collections.abc import Collection, Iterable

from gristmill.identity.fingerprint import Part
from gristmill.storage.code_record import CodeRecord

_PARTS_NAMED = 4

Keyed = dict[tuple[str, str], list[Part]]


def namesakes(now: CodeRecord, records: Collection[CodeRecord]) -> list[CodeRecord]:
    """Return the records of the same outputs; where there are none, all, if the function has a name."""
    same = [record for record in records if record.outputs == now.outputs]
    return same or ([] if "<lambda>" in now.node else list(records))


def closest(now: CodeRecord, records: Collection[CodeRecord]) -> CodeRecord | None:
    """Return the record that differs in the fewest parts, the latest of several."""
    current = set(map(_essence, now.parts))

    def distance(record: CodeRecord) -> tuple[int, float]:
        return len(current ^ set(map(_essence, record.parts))), -record.written

    return min(records, key=distance, default=None)


def code_reason(before: CodeRecord, now: CodeRecord) -> str:
    """Return why calls recorded with the code `before` are not those of the code `now`."""
    if before.fingerprint == now.fingerprint:
        return _form_changes(before, now)
    if before.python != now.python:
        return f"Python {before.python} → {now.python}"
    title = _title(now)
    old, new = _keyed(before.parts), _keyed(now.parts)
    if ("version" in _kinds(old)) or ("version" in _kinds(new)):
        return _version_change(title, before.parts, now.parts)
    upgraded = _distributions(before.parts, now.parts)
    # A value may be an instance of a library's class, which counts with its version.
    changes = _changes(old, new, _qualified(now), now.parts, without={"value"} if upgraded else set())
    said = [f"{_some(upgraded)}, which {title} calls into"] if upgraded else []
    if changes or not upgraded:
        said.append(f"code of {title} changed" + (f": {_some(changes)}" if changes else ""))
    return "; ".join(said)


def _changes(
    old: Keyed, new: Keyed, root: str, parts: Iterable[Part], *, without: Collection[str]
) -> list[str]:
    """What differs, besides kinds `without` interest: parts that changed first, then those that came and went."""
    hidden = {*without, "distribution"} if without else without
    old, new = ({key: found for key, found in one.items() if key[0] not in hidden} for one in (old, new))
    own = {part.name for part in parts if part.kind == "function" and _short(part.name) == root}
    changed = [new[key] for key in new if key in old and _digests(new[key]) != _digests(old[key])]
    said = [_described(part[0], own) for part in sorted(changed, key=_rank)]
    # A part that came or went shows in the code that refers to it: it is said only beside that.
    said += [f"now uses {_described(new[key][0], own)}" for key in new if key not in old]
    return said + [f"no longer uses {_described(old[key][0], own)}" for key in old if key not in new]


def _rank(parts: list[Part]) -> tuple[int, str]:
    order = ("function", "class", "value")
    kind = parts[0].kind
    return (order.index(kind) if kind in order else len(order)), parts[0].name


def _described(part: Part, own: Collection[str]) -> str:
    where = f" ({part.location})" if part.location else ""
    if part.kind == "function":
        return f"its body{where}" if part.name in own else f"helper {_short(part.name)}{where}"
    if part.kind == "distribution":
        return part.name
    return f"{part.kind} {_short(part.name)}{where}"


def _distributions(before: Iterable[Part], now: Iterable[Part]) -> list[str]:
    old, new = _versions(before), _versions(now)
    both = sorted(old.keys() & new.keys())
    return [f"{name} {old[name][1]} → {new[name][1]}" for name in both if old[name][0] != new[name][0]]


def _versions(parts: Iterable[Part]) -> dict[str, tuple[str, str]]:
    """Distribution to (its name with the version that counts, its whole version)."""
    return {p.name.partition(" ")[0]: (p.name, p.location) for p in parts if p.kind == "distribution"}


def _version_change(title: str, before: Iterable[Part], now: Iterable[Part]) -> str:
    old, new = (
        next((part.location for part in parts if part.kind == "version"), None) for parts in (before, now)
    )
    if old is None:
        return f"version= of {title}: none → {new!r}, which stands for its code now"
    if new is None:
        return f"version= of {title}: {old!r} → none, so its code counts now"
    return f"version= of {title}: {old!r} → {new!r}"


def _form_changes(before: CodeRecord, now: CodeRecord) -> str:
    title = _title(now)
    for name, form in now.parameters.items():
        if name not in before.parameters:
            return f"{title} has a new parameter {name}"
        if before.parameters[name] != form:
            return f"{name} is delivered to {title} as {form}, and was delivered as {before.parameters[name]}"
    gone = [name for name in before.parameters if name not in now.parameters]
    if gone:
        return f"{title} no longer has the parameter {gone[0]}"
    return f"how the outputs of {title} are taken from what it returns changed"


def _keyed(parts: Iterable[Part]) -> Keyed:
    keyed: Keyed = {}
    for part in parts:
        keyed.setdefault((part.kind, part.name), []).append(part)
    return keyed


def _kinds(keyed: Keyed) -> set[str]:
    return {kind for kind, _ in keyed}


def _digests(parts: Iterable[Part]) -> set[bytes]:
    return {bytes(part.digest) for part in parts}


def _essence(part: Part) -> tuple[str, str, bytes]:
    """What of a part counts: where it is does not."""
    return part.kind, part.name, bytes(part.digest)


def _qualified(record: CodeRecord) -> str:
    return record.node.partition(":")[2]


def _title(record: CodeRecord) -> str:
    name = _qualified(record)
    return f"{name}()" if name.replace(".", "").replace("_", "").isalnum() else name


def _short(name: str) -> str:
    return name.rpartition("<locals>.")[2]


def _some(what: list[str]) -> str:
    more = len(what) - _PARTS_NAMED
    return ", ".join(what[:_PARTS_NAMED]) + (f", and {more} more" if more > 0 else "")
