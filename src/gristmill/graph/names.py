"""The two sets of names a node has: those its function uses, and those the graph is wired by.

Owns renames and scopes. Knows neither values nor mapspecs.
"""

import keyword
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from gristmill.errors import GraphError
from gristmill.graph.wording import did_you_mean, joined


@dataclass(frozen=True)
class Names:
    """The function's own names, and for each the local one; a scope turns local names into graph names.

    Examples
    --------
    >>> names = Names.of("f", ("x", "k"), ("y",)).with_renames({"x": "a"}).with_scope("train")
    >>> names.parameters, names.outputs, names.own("train.a")
    (('train.a', 'train.k'), ('train.y',), 'x')
    """

    owner: str
    """What messages call the function."""
    own_parameters: tuple[str, ...]
    own_outputs: tuple[str, ...]
    """The outputs as the function, and so its `output_picker`, knows them."""
    local_parameters: tuple[str, ...]
    local_outputs: tuple[str, ...]
    scope: str | None = None

    @classmethod
    def of(cls, owner: str, parameters: tuple[str, ...], outputs: tuple[str, ...]) -> "Names":
        """Graph names that are the function's own."""
        return cls(owner, parameters, outputs, parameters, outputs)

    def with_outputs(self, outputs: tuple[str, ...]) -> "Names":
        """The same parameters with other outputs."""
        return replace(self, own_outputs=outputs, local_outputs=outputs)

    def with_renames(self, renames: Mapping[str, str]) -> "Names":
        """Other local names for parameters or outputs; for the parameter where both have that name.

        Raises
        ------
        GraphError
            If a renamed name does not exist, or a new one is no name.
        """
        _check_renames(self.owner, renames, (*self.own_parameters, *self.own_outputs))
        for_outputs = {old: new for old, new in renames.items() if old not in self.own_parameters}
        return replace(
            self,
            local_parameters=tuple(renames.get(name, name) for name in self.own_parameters),
            local_outputs=tuple(for_outputs.get(name, name) for name in self.own_outputs),
        )

    def with_scope(self, scope: str | None) -> "Names":
        """The same local names in another scope."""
        return replace(self, scope=None if scope is None else check_name(self.owner, "scope", scope))

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Graph names, in the order of the function's own."""
        return tuple(map(self.scoped, self.local_parameters))

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Graph names, in the order of the function's own."""
        return tuple(map(self.scoped, self.local_outputs))

    def own(self, name: str) -> str:
        """The function's own name of a parameter, given its graph name or its local one.

        Raises
        ------
        GraphError
            If there is none.
        """
        for known in (self.parameters, self.local_parameters):
            if name in known:
                return self.own_parameters[known.index(name)]
        raise GraphError(
            f"{self.owner} has no parameter {name!r}{self.hint(name)}; "
            f"it has {joined(self.local_parameters)}",
        )

    def graph(self, own: str) -> str:
        """The graph name of one of the function's own parameters."""
        return self.parameters[self.own_parameters.index(own)]

    def renamed(self, names: Mapping[str, str]) -> "Names":
        """The same with other graph names, for those that are in `names`; the scope is spelt out."""
        return replace(
            self,
            local_parameters=tuple(names.get(name, name) for name in self.parameters),
            local_outputs=tuple(names.get(name, name) for name in self.outputs),
            scope=None,
        ).checked()

    def scoped(self, local: str) -> str:
        """A local name within the scope; one that has a dot stays as it is."""
        return local if self.scope is None or "." in local else f"{self.scope}.{local}"

    def checked(self) -> "Names":
        """Itself, once no two parameters or outputs share a graph name."""
        for kind, names in (("parameters", self.parameters), ("outputs", self.outputs)):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise GraphError(f"{self.owner} has two {kind} named {joined(twice)}; rename one of them")
        return self

    def hint(self, name: str) -> str:
        """What else a parameter called `name` might be, as the tail of a message."""
        if name in self.own_parameters:
            return f", which is called {self.local_parameters[self.own_parameters.index(name)]!r} here"
        return did_you_mean(name, self.local_parameters)


def check_name(owner: str, what: str, name: Any) -> str:
    """`name`, once it is one that a function could use, with or without a scope before it."""
    if isinstance(name, str) and all(p.isidentifier() and not keyword.iskeyword(p) for p in name.split(".")):
        return name
    raise GraphError(f"{what} of {owner} is {name!r}; use a name like 'y', or 'scope.y'")


def _check_renames(owner: str, renames: Mapping[str, str], known: tuple[str, ...]) -> None:
    for old, new in renames.items():
        if old not in known:
            raise GraphError(
                f"cannot rename {old!r}: {owner} has no such parameter or output"
                f"{did_you_mean(old, known)}; it has {joined(known)}",
            )
        check_name(owner, f"new name of {old!r}", new)
