"""What the figures were measured on."""

import os
import platform
import subprocess
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    *("gristmill", "numpy", "xxhash", "loky", "diskcache", "zarr", "pandas"),
    *("pipefunc", "joblib", "dask"),
)


def facts(directory: Path | None) -> dict[str, str]:
    """What a reader needs to judge the figures by, by name."""
    place = directory or Path(tempfile.gettempdir())
    return {
        "commit": _first_line(["git", "describe", "--always", "--dirty"]),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.platform(),
        "processor": _processor(),
        "cpus": str(os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count()),
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "file system": _first_line(["stat", "--file-system", "--format=%T", str(place)]),
        "packages": ", ".join(filter(None, map(_installed, PACKAGES))),
    }


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.splitlines()[0]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _installed(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return ""
