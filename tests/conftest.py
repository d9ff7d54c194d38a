"""What every test relies on: a private default store, the `root` marker, hypothesis without deadlines."""

import os
import shutil
import signal
import subprocess
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

# A deadline is a timed test, and which machine runs this is not ours to know.
settings.register_profile("gristmill", deadline=None, print_blob=True)
# The same examples every time: what one change breaks must not depend on when it is tested. The storm explores.
settings.register_profile("steady", settings.get_profile("gristmill"), derandomize=True)
settings.load_profile("gristmill" if os.environ.get("GRISTMILL_TEST_RANDOM") else "steady")

# A shell starts what it runs in the background with Ctrl-C ignored, and programs that tests start inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@cache
def why_not_root() -> str | None:
    """What keeps tests marked `root` from running here; None if nothing does."""
    if os.geteuid() != 0:
        return "needs root (mounts, other users)"
    unshare = shutil.which("unshare")
    if unshare is None:
        return "needs unshare(1) for private mounts"
    script = 'd=$(mktemp -d) && mount -t tmpfs tmpfs "$d" && umount "$d" && rmdir "$d"'
    probe = subprocess.run([unshare, "--mount", "sh", "-c", script], capture_output=True, check=False)
    return None if probe.returncode == 0 else "root, but not allowed to mount (a container without the right)"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `root` where they cannot run."""
    if item.get_closest_marker("root") is not None and (reason := why_not_root()) is not None:
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def default_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default store of this test alone; nothing lands in the working directory."""
    location = tmp_path / "default-store"
    monkeypatch.setenv("GRISTMILL_STORE", str(location))
    return location
