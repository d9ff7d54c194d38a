"""Cuts the power of a small disk, again and again, while a program writes to a store on it.

The disk is an ext4 file system in a file. Cutting its power is `FS_IOC_SHUTDOWN` without flushing its journal: from one
moment to the next nothing more reaches the file, and what had not been written by then is lost. What the program had
acknowledged before that moment is what this one had read of what it printed.

Run as root, in a mount namespace of its own: ``power.py job directory durability executor seed rounds``. It prints a
line of JSON for each cut: what the job, given ``check`` and how many of its steps it had acknowledged, said of the disk
afterwards.
"""

import fcntl
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

SHUTDOWN = 0x8004587D
"""``_IOR('X', 125, __u32)``, in ``linux/fs.h`` since 6.8, and of ext4 since 4.11."""

WITHOUT_FLUSH = struct.pack("I", 2)
SIZE = 512 * 1024 * 1024
FIRST_SECONDS = 60.0
"""How long a program may take to its first acknowledgement."""


class Disk:
    """An ext4 file system in a file.

    Parameters
    ----------
    directory
        Where the file and the mount point are.
    """

    def __init__(self, directory: Path) -> None:
        self._image = directory / "disk.img"
        self.path = directory / "disk"
        self.path.mkdir()
        with self._image.open("wb") as file:
            file.truncate(SIZE)
        _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", self._image)

    def mount(self) -> None:
        """Mount it, after its journal has been replayed."""
        _run("mount", "-o", "loop", self._image, self.path)
        self.path.chmod(0o700)

    def unmount(self) -> None:
        """Unmount it."""
        _run("umount", self.path)

    def cut(self) -> None:
        """Let nothing more reach it."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, WITHOUT_FLUSH)
        finally:
            os.close(descriptor)


def _run(*command: object) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


def acknowledged(program: "subprocess.Popen[bytes]", wait: float) -> int:
    """Return how many lines a program has printed by some time after the first."""
    assert program.stdout is not None
    descriptor = program.stdout.fileno()
    os.set_blocking(descriptor, False)
    seen, until = b"", time.monotonic() + FIRST_SECONDS
    while (now := time.monotonic()) < until:
        with suppress(BlockingIOError):
            got = os.read(descriptor, 1 << 16)
            if got and not seen:
                until = now + wait
            seen += got
        if program.poll() is not None:
            raise RuntimeError(f"it ended with {program.returncode}: {seen.decode()}")
        time.sleep(0.001)
    return seen.count(b"\n")


def one_cut(disk: Disk, job: str, *given: str, wait: float) -> int:
    """Run the job, cut the power, end the job; return what it had acknowledged."""
    disk.mount()
    command = [sys.executable, job, "run", str(disk.path / "store"), *given]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    try:
        count = acknowledged(program, wait)
        disk.cut()
    finally:
        os.killpg(program.pid, signal.SIGKILL)
        program.communicate()
    for _ in range(200):  # its workers may still be ending
        with suppress(RuntimeError):
            disk.unmount()
            return count
        time.sleep(0.05)
    raise RuntimeError("something keeps the disk busy")


def main() -> None:
    """Cut the power `rounds` times."""
    job, directory, durability, executor, seed, rounds = sys.argv[1:]
    chance, disk = random.Random(seed), Disk(Path(directory))
    for number in range(int(rounds)):
        given = (durability, executor, str(number))
        count = one_cut(disk, job, *given, wait=chance.uniform(0.0, 1.5))
        disk.mount()
        try:
            told = _run(sys.executable, job, "check", disk.path / "store", *given, count)
        finally:
            disk.unmount()
        sys.stdout.write(json.dumps({"acknowledged": count, **json.loads(told)}) + "\n")


if __name__ == "__main__":
    main()
