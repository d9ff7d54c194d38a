"""Failed calls, as a user sees them: in a result, and in the place of elements that a reduction wants to have."""

import os
import pickle
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
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

    def save(self, path: "str | os.PathLike[str]") -> None:
        """Write the call to a file, with what it was given, to be made again on another day or machine.

        The function goes by value where it cannot be imported; `load` reads the file with pickle.

        Raises
        ------
        GristmillError
            The function, or what it was given, cannot be pickled.
        """
        import cloudpickle

        kept = replace(self.handed_on(), function=self.function, read_inputs=partial(dict, self.inputs))
        try:
            data = cloudpickle.dumps(kept, protocol=5)
        except Exception as error:
            raise GristmillError(
                f"the failed call of {self.output_name!r} cannot be saved, as it or its arguments cannot be pickled: "
                f"{error}"
            ) from error
        Path(path).write_bytes(data)

    @classmethod
    def load(cls, path: "str | os.PathLike[str]") -> "ItemError":
        """Read what `save` has written. Pickle runs what a file says: load only files that you trust.

        Raises
        ------
        GristmillError
            The file is not one of these.
        """
        try:
            found = pickle.loads(Path(path).read_bytes())  # noqa: S301 - as it says
        except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError) as error:
            raise GristmillError(f"{os.fspath(path)} is no saved call: {error!r}") from error
        if not isinstance(found, cls):
            raise GristmillError(f"{os.fspath(path)} is no saved call: it holds a {type(found).__name__}")
        return found

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
