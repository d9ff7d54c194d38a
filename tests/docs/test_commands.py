"""The `gristmill` commands that the README and the documentation show do run, one after another."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (?:\.venv/bin/)?(gristmill .*|python examples/.*)$", re.MULTILINE)


def commands(document: Path) -> list[str]:
    """What a reader would type, in order; installing is left out, for it has happened."""
    return [command for fence in FENCE.findall(document.read_text()) for command in COMMAND.findall(fence)]


SHOWN = [document for document in DOCUMENTS if commands(document)]


@pytest.mark.parametrize("document", SHOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_document_run(document: Path, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for command in commands(document):
        done = subprocess.run(
            shlex.split(command),
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        # A demo that was told to kill itself does, unless this machine is so fast that it was done before.
        expected = {0, -signal.SIGKILL} if "--kill-after" in command else {0}
        assert done.returncode in expected, f"$ {command}\n{done.stdout}{done.stderr}"
