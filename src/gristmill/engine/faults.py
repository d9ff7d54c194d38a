"""Store faults: told once in a run, and what happens then is the user's choice."""

import warnings
from typing import Literal

from gristmill.engine.stores import Stores
from gristmill.errors import StoreError
from gristmill.events import FaultEvent, Observers

OnStoreError = Literal["warn", "raise", "ignore"]


class FaultWatch:
    """Watches for results that the store of a run does not take.

    Parameters
    ----------
    stores
        The run's.
    choice
        `"warn"`: warn once, and go on. `"raise"`: end the run. `"ignore"`: go on.
    observers, run_id
        Who is told in any case, and of which run.
    """

    def __init__(self, stores: Stores, choice: OnStoreError, observers: Observers, run_id: str) -> None:
        self._stores = stores
        self._choice = choice
        self._observers = observers
        self._run_id = run_id
        self._sheltered = stores.sheltered
        self._told = False

    def check(self, reported: str = "") -> None:
        """Tell what a worker has `reported`, or what this process has met with itself.

        Raises
        ------
        StoreError
            There is something to tell, and the run is to end then.
        """
        fault = reported or (self._stores.fault if self._stores.sheltered > self._sheltered else "")
        if not fault or self._told:
            return
        self._told = True
        place = self._stores.kept.layout.root
        reason = fault.removeprefix(f"cannot write to the store at {place}: ")
        fault = f"the store at {place} cannot be written: {reason}"
        self._observers.tell("on_store_fault", FaultEvent(self._run_id, "", (), fault))
        if self._choice == "raise":
            raise StoreError(f"{fault}. What was finished before that is kept")
        if self._choice == "warn":
            warnings.warn(
                f"{fault}. The run goes on. What was finished before that is kept; what is finished now is held in "
                f"{self._stores.kept.refuge.path} and moved into the store when this run ends or another one starts "
                "in this process, if that is possible by then; else it goes with this process, and is computed again",
                RuntimeWarning,
                stacklevel=2,
            )
