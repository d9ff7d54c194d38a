"""The README shows the quickstart example itself, what it prints, and setup commands of things that exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
QUICKSTART = ROOT / "examples" / "quickstart.py"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_readme_shows_the_quickstart_example() -> None:
    assert blocks("python") == [QUICKSTART.read_text()]


def test_quickstart_prints_what_the_readme_says(tmp_path: Path) -> None:
    environment = {**os.environ, "GRISTMILL_STORE": str(tmp_path / "store")}
    for shown in blocks("text"):
        done = subprocess.run(
            [sys.executable, QUICKSTART], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout == shown


def test_setup_commands_name_what_exists() -> None:
    demo, checks = blocks("sh")
    assert demo == "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/gristmill demo\n"
    assert checks == "python3 -m venv .venv && .venv/bin/pip install tox tox-uv && .venv/bin/tox\n"
    assert (ROOT / "tox.ini").is_file()
