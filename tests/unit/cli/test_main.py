"""The command line itself: its version, and that starting it stays light."""

import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

GRISTMILL = str(Path(sysconfig.get_path("scripts"), "gristmill"))


def test_version_is_the_installed_one() -> None:
    done = subprocess.run([GRISTMILL, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"gristmill {version('gristmill')}\n"


def test_commands_are_imported_when_they_run() -> None:
    script = "import sys, gristmill.cli.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {"gristmill.cli.demo", "loky", "numpy", "rich.table", "zarr"}
    assert not heavy & set(done.stdout.split())
