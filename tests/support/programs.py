"""Python programs in processes of their own: started, watched, killed."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
_MARK = "GRISTMILL_TEST_MARK"


class Program:
    """A running Python program and everything it starts.

    Parameters
    ----------
    script
        The program's file.
    arguments
        Its arguments.
    store
        Its default store.
    """

    def __init__(self, script: Path, *arguments: object, store: Path) -> None:
        self._mark = secrets.token_hex(8)
        path = os.pathsep.join([str(ROOT), str(ROOT / "src"), str(script.parent)])
        environment = {**os.environ, "PYTHONPATH": path, "GRISTMILL_STORE": str(store), _MARK: self._mark}
        self.process = subprocess.Popen(
            [sys.executable, script, *map(str, arguments)],
            cwd=script.parent,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def go(self) -> None:
        """Let a program that waits for a line on its standard input go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def line(self) -> str:
        """Return the next line it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def finish(self) -> str:
        """Wait for its end, which must be a good one, and return the rest of what it printed."""
        printed, _ = self.process.communicate()
        assert self.process.returncode == 0, printed
        return printed

    def interrupt(self) -> None:
        """Send what Ctrl-C sends, to the program alone."""
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End the program, not its children, with SIGKILL."""
        self.process.kill()
        self.process.wait()

    def others(self) -> list[psutil.Process]:
        """Every living process that it has started, directly or not, orphans included."""
        found = []
        for process in psutil.process_iter():
            try:
                marked = process.pid != self.process.pid and process.environ().get(_MARK) == self._mark
            except (psutil.Error, OSError):
                continue
            if marked and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def wait_for_orphans(self, seconds: float) -> list[psutil.Process]:
        """Return which of the processes it started are still there after that time, or as soon as none is."""
        deadline = time.monotonic() + seconds
        while (left := self.others()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return left

    def clear(self) -> None:
        """End whatever is left of it."""
        if self.process.poll() is None:
            self.kill()
        for process in self.others():
            process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@contextmanager
def running(script: Path, *arguments: object, store: Path) -> Iterator[Program]:
    """A `Program` that is gone at the end of the block, with all it started."""
    program = Program(script, *arguments, store=store)
    try:
        yield program
    finally:
        program.clear()


def run(script: Path, *arguments: object, store: Path) -> str:
    """Run a program to its good end and return what it printed."""
    with running(script, *arguments, store=store) as program:
        return program.finish()
