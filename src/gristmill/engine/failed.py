"""Failed calls, as a user sees them: in a result, and in the place of elements that a reduction wants to have."""

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from gristmill.engine.calls import survivor
from gristmill.errors import GristmillError


@dataclass(frozen=True, eq=False)
class ItemError:
    """One call that failed."""

    output_name: str
    """The output it should have made (the first of several)."""
    index: tuple[int, ...]
    """Where in the node's space."""
    error: BaseException
    """What it raised."""
    traceback: str
    """Where, as text."""
    function: Callable[..., Any]
    """What was called."""
    read_inputs: Callable[[], Mapping[str, Any]] = field(repr=False)
    """Reads what the function was given."""
    attempts: int = 1
    """How often it was tried."""

    @property
    def inputs(self) -> Mapping[str, Any]:
        """What the function was given, by its own parameter names; read from the store when asked for.

        Raises
        ------
        GristmillError
            A reduction with `errors="pass"` was handed it: these know what went wrong, and read nothing.
        """
        return self.read_inputs()

    def reproduce(self) -> Any:
        """Make exactly that call again, here: it raises again, or returns the value."""
        return self.function(**self.inputs)

    def handed_on(self) -> "ItemError":
        """Return it as functions are handed it, in this process or another: without what it was called with."""
        return replace(self, error=survivor(self.error), function=_unreadable, read_inputs=_unreadable)

    def __digest__(self) -> object:
        # Not the traceback: a line that moves changes nothing.
        return self.output_name, self.index, self._said

    @property
    def _said(self) -> str:
        return traceback.format_exception_only(self.error)[0].strip()  # str() of it may raise

    def __repr__(self) -> str:
        return f"<ItemError {self.output_name}{list(self.index)}: {self._said}>"


def _unreadable() -> NoReturn:
    raise GristmillError(
        "a function that is handed an error cannot read what the failed call was given; result.errors can"
    )
