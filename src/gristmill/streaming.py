"""Streams: the items of a map, one after the other, as they are completed."""

import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from gristmill.background import END_SECONDS, Background
from gristmill.engine.interrupts import Bell, Interrupts, guarded
from gristmill.engine.items import Item


class ItemStream(Iterator[Item]):
    """The items of a map that goes on in the background, for one thread to iterate over.

    Closing it, leaving a `with` block of it, or no longer using it, cancels the rest of the map; what is done is kept.
    So does Ctrl-C while it is waited for.

    Examples
    --------
    >>> from gristmill import Pipeline
    >>> pipeline = Pipeline([(abs, "x[i] -> abs[i]")], store=None)
    >>> with pipeline.map_stream({"x": range(1000)}) as items:
    ...     first = next(items)
    >>> first.index, first.outputs
    ((0,), {'abs': 0})
    """

    def __init__(self, run: Background) -> None:
        self._run = run
        self._bell = Bell()
        # Not in __del__: a stream that is part of a cycle is ended, too, and one that is left over at exit.
        self._finalizer = weakref.finalize(self, run.cancel)
        run.feed.listen(self._bell.ring)
        run.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        if not self._finalizer.alive:
            raise StopIteration
        try:
            if self._run.feed.has_located:
                item = self._next()
            else:
                with Interrupts():
                    item = self._next()
        except BaseException:
            self.close()
            raise
        if item is None:
            self._finalizer.detach()
            raise StopIteration
        return item

    def close(self) -> None:
        """Cancel what is left of the map, and wait until it has ended; what is done is kept.

        Calls that run get a moment to end; then processes are ended, coroutines are cancelled, and threads left behind.
        """
        self._finalizer()
        self._run.wait(END_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @guarded
    def _next(self) -> Item | None:
        feed = self._run.feed
        while (item := feed.take()) is None and not feed.exhausted:
            self._bell.wait(None)
        return item
