"""A storm: programs that share a store, and a tormentor that kills, stops and continues what runs.

Afterwards each call that was executed more than once has to be laid to something that was done to its process.
"""

import contextlib
import heapq
import itertools
import random
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from tests.support.programs import Program

FLUSH_SECONDS = 1.0
"""What ended this long before its process was killed, or later, may not have been committed."""

ORPHAN_SECONDS = 1.0
"""How long a worker may start calls after its parent was killed."""


@dataclass(frozen=True)
class Execution:
    """One execution of one call."""

    call: str
    process: int
    engine: int
    """The program: the process itself, or the one that it works for."""
    start: float
    end: float | None
    """None if it was cut off."""


@dataclass
class Torment:
    """What was done to which process, and when."""

    kills: list[tuple[float, int]] = field(default_factory=list)
    stops: list[tuple[float, float, int]] = field(default_factory=list)
    """From when, and until when."""

    def stopped(self, start: float, end: float) -> float:
        """Return for how long anything was stopped meanwhile: it may have held what others need to commit."""
        total, until = 0.0, start
        for a, b, _ in sorted(self.stops):
            total += max(0.0, min(b, end) - max(a, until))
            until = max(until, min(b, end))
        return total

    def explains(self, one: Execution, again: Execution, deadline: float) -> bool:
        """Whether `one` may have been lost, or not been waited for, when `again` started."""
        return any(self._took(kill, process, one, again) for kill, process in self.kills) or any(
            b - a >= deadline and a <= again.start and b >= one.start for a, b, _ in self.stops
        )

    def around(self, one: Execution, again: Execution) -> list[str]:
        """Say what was done meanwhile, and shortly before."""
        start, end = one.start - 5, again.start + 1
        told = [f"{at - one.start:+.3f} kill {process}" for at, process in self.kills if start < at < end]
        stops = [stop for stop in self.stops if stop[0] < end and stop[1] > start]
        return told + [
            f"{a - one.start:+.3f} to {b - one.start:+.3f} stop {process}" for a, b, process in stops
        ]

    def _took(self, kill: float, process: int, one: Execution, again: Execution) -> bool:
        if process not in (one.process, one.engine) or kill > again.start:
            return False
        late = one.start - ORPHAN_SECONDS - self.stopped(kill, one.start)
        early = kill if one.end is None else one.end + FLUSH_SECONDS + self.stopped(one.end, kill)
        return late <= kill <= early


def executions(lines: Sequence[tuple[float, str]]) -> dict[str, list[Execution]]:
    """Every execution of every call, in the order of their starts."""
    found: dict[str, list[Execution]] = defaultdict(list)
    for when, words in lines:
        what, process, engine, call = words.split(" ")
        made = found[call]
        if what == "start":
            made.append(Execution(call, int(process), int(engine), when, None))
            continue
        at = next(k for k, one in enumerate(made) if one.end is None and one.process == int(process))
        made[at] = Execution(call, made[at].process, made[at].engine, made[at].start, when)
    return found


def unexplained(
    lines: Sequence[tuple[float, str]], torment: Torment, deadline: float
) -> list[tuple[Execution, Execution, list[str]]]:
    """Executions that were repeated although nothing had been done that makes up for it, and what had been done.

    Parameters
    ----------
    lines
        Of the log.
    torment
        What was done.
    deadline
        Stops that last longer are not waited for.
    """
    return [
        (one, again, torment.around(one, again))
        for made in executions(lines).values()
        for one, again in itertools.pairwise(made)
        if not torment.explains(one, again, deadline)
    ]


class Tormentor:
    """Kills, stops and continues programs and their workers at random.

    Parameters
    ----------
    start
        Starts another program, in the place of one that was killed.
    count
        How many are to run at once.
    chance
        Decides everything.
    """

    def __init__(self, start: Callable[[], Program], count: int, chance: random.Random) -> None:
        self._start = start
        self._chance = chance
        self._programs = [start() for _ in range(count)]
        self._stopped: list[tuple[float, float, psutil.Process]] = []
        self.torment = Torment()
        self.printed: list[str] = []
        """What the programs have printed that came to a good end."""

    def rage(
        self, seconds: float, pause: float, stop_seconds: float, long_stops: Sequence[float] = ()
    ) -> None:
        """Go on for a time.

        Parameters
        ----------
        seconds
            For how long.
        pause
            Between two torments, on average.
        stop_seconds
            How long a process is stopped at most.
        long_stops
            For these times one process each is stopped, some time.
        """
        until = time.monotonic() + seconds
        special = [
            (time.monotonic() + seconds * k / (len(long_stops) + 1), s) for k, s in enumerate(long_stops, 1)
        ]
        while (now := time.monotonic()) < until:
            self._continue(now)
            if special and now >= special[0][0]:
                self._stop(special.pop(0)[1])
            elif self._chance.random() < 0.4:
                self._kill()
            else:
                self._stop(self._chance.uniform(0.01, stop_seconds))
            time.sleep(self._chance.uniform(0.0, 2 * pause))  # random instants are what is tested

    def finish(self) -> None:
        """Continue everything, and wait for the programs' good ends."""
        while self._stopped:
            self._continue(self._stopped[0][0])
        self.printed += [program.finish() for program in self._programs]

    def clear(self) -> None:
        """End whatever is left."""
        for _, _, process in self._stopped:
            with contextlib.suppress(psutil.Error):
                process.resume()
        for program in self._programs:
            program.clear()

    def _kill(self) -> None:
        place = self._chance.randrange(len(self._programs))
        program = self._programs[place]
        workers = _workers(program)
        if workers and self._chance.random() < 0.5:
            victim = self._chance.choice(workers)
            self._note_kill(victim.pid)
            with contextlib.suppress(psutil.Error):
                victim.kill()
        elif program.process.poll() is None:
            self._note_kill(program.process.pid)
            program.kill()
            for worker in workers:  # one that is stopped cannot see that its parent is gone
                with contextlib.suppress(psutil.Error):
                    worker.resume()
            assert program.wait_for_orphans(3 * ORPHAN_SECONDS) == []
            program.clear()
            self._programs[place] = self._start()

    def _note_kill(self, process: int) -> None:
        self.torment.kills.append((time.time(), process))

    def _stop(self, seconds: float) -> None:
        program = self._chance.choice(self._programs)
        with contextlib.suppress(psutil.Error):
            victim = self._chance.choice([psutil.Process(program.process.pid), *_workers(program)])
            if victim.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED):
                return
            victim.send_signal(signal.SIGSTOP)
            heapq.heappush(self._stopped, (time.monotonic() + seconds, time.time(), victim))

    def _continue(self, now: float) -> None:
        while self._stopped and self._stopped[0][0] <= now:
            _, since, victim = heapq.heappop(self._stopped)
            with contextlib.suppress(psutil.Error):
                victim.resume()
            self.torment.stops.append((since, time.time(), victim.pid))


def _workers(program: Program) -> list[psutil.Process]:
    """The worker processes of a program, and not what else loky starts."""
    try:
        children = psutil.Process(program.process.pid).children()
        return [one for one in children if any("LokyProcess" in word for word in one.cmdline())]
    except psutil.Error:
        return []


@contextlib.contextmanager
def tormenting(script: Path, *given: object, store: Path, count: int, seed: int) -> Iterator[Tormentor]:
    """A `Tormentor` of `count` programs; each gets what is `given`, the time, and a seed. Nothing stays."""
    began, seeds = time.time(), itertools.count(1)

    def start() -> Program:
        return Program(script, *given, began, f"{seed} {next(seeds)}", store=store)

    tormentor = Tormentor(start, count, random.Random(seed))
    try:
        yield tormentor
    finally:
        tormentor.clear()
