"""Retry: how often a call that fails is tried again, and how long is waited before that."""

from dataclasses import dataclass
from numbers import Real
from typing import Any

from gristmill.errors import GraphError

LONGEST_WAIT = 3600.0
"""No wait is longer than that, in seconds."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a call is tried, and how long is waited in between.

    Waits grow exponentially, with a random part that keeps calls which failed together from coming back together:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.

    Raises
    ------
    GraphError
        A value is out of its range.

    Examples
    --------
    >>> flaky = Retry(attempts=4, wait=0.5, on=(ConnectionError, TimeoutError))
    >>> flaky.wants(1, TimeoutError()), flaky.wants(4, TimeoutError()), flaky.wants(1, ValueError())
    (True, False, False)
    """

    attempts: int = 3
    """How often a call is made at most, the first time included."""
    wait: float = 0.0
    """Seconds between the first attempt and the second."""
    backoff: float = 2.0
    """Factor by which every further wait is longer, 1 or more; none exceeds an hour."""
    jitter: float = 0.0
    """Up to so many seconds more, at random."""
    on: tuple[type[BaseException], ...] = (Exception,)
    """The exceptions after which a call is tried again; others fail it at once."""

    def __post_init__(self) -> None:
        attempts: Any = self.attempts
        if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
            raise GraphError(f"attempts of Retry is {attempts!r}; use a number of calls, 1 or more")
        for name, least in (("wait", 0), ("backoff", 1), ("jitter", 0)):
            value = getattr(self, name)
            if not _is_number(value) or not least <= value < float("inf"):
                raise GraphError(f"{name} of Retry is {value!r}; use a number, {least} or more")
        given: Any = self.on
        on = given if isinstance(given, (tuple, list)) else (given,)
        if not on or not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in on):
            raise GraphError(f"on of Retry is {self.on!r}; use a tuple of exception types")
        object.__setattr__(self, "on", tuple(on))

    def wants(self, attempt: int, error: BaseException) -> bool:
        """Whether a call is tried again after an attempt, counted from 1, that ended with `error`."""
        return attempt < self.attempts and isinstance(error, self.on)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def check_retries(owner: str, option: str, given: Any) -> Retry:
    """The option `retries` of a node: how often to try again, or a `Retry`."""
    if isinstance(given, Retry):
        return given
    if isinstance(given, int) and not isinstance(given, bool) and given >= 0:
        return Retry(attempts=given + 1)
    raise GraphError(f"{option} of {owner} is {given!r}; use a number of retries, 0 or more, or a Retry")


def check_timeout(owner: str, option: str, given: Any) -> float | None:
    """The option `timeout` of a node: seconds, or None."""
    if given is None:
        return None
    if _is_number(given) and 0 < given < float("inf"):
        return float(given)
    raise GraphError(f"{option} of {owner} is {given!r}; use a number of seconds above 0, or None")


ONCE = Retry(attempts=1)
"""No retries."""
