"""Every script under `examples/` runs to its end, and once more on what the first run stored."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.name)
def test_example_runs_cold_and_warm(script: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "GRISTMILL_STORE": str(tmp_path / "store")}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "error", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{script.name} failed:\n{done.stdout}{done.stderr}"
