"""Values that are not stored: held in the process that made them, for who takes them next there."""

from collections import OrderedDict
from typing import Any

from gristmill.errors import IntegrityError
from gristmill.storage.elements import Made

_HELD = 16
"""How many are held; such a value is a connection or a model, and most pipelines have one or two."""


class MadeValues:
    """The latest of these values."""

    def __init__(self) -> None:
        self._values: OrderedDict[Made, Any] = OrderedDict()

    def put(self, form: Made, value: object) -> None:
        """Hold `value`, and let go of the one that was asked for the longest ago."""
        self._values[form] = value
        self._values.move_to_end(form)
        while len(self._values) > _HELD:
            self._values.popitem(last=False)

    def get(self, form: Made) -> Any:
        """Return the value itself, no copy.

        Raises
        ------
        IntegrityError
            It is not held in this process.
        """
        if form not in self._values:
            raise IntegrityError("a value that is not stored was made in another process, or too long ago")
        self._values.move_to_end(form)
        return self._values[form]
