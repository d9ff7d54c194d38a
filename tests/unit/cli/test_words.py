"""What the command line says of paths and of itself is what a person would type."""

import sys
from pathlib import Path

import pytest

from gristmill.cli.words import again, program, short_path


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["demo"], "tool demo"),
        (["demo", "--kill-after", "3", "--store", "a b"], "tool demo --store 'a b'"),
        (["demo", "--kill-after=3", "--json"], "tool demo --json"),
    ],
)
def test_command_is_repeated_without_what_stopped_it(
    given: list[str], shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "tool"
    tool.touch(mode=0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(tool), *given])
    assert again("--kill-after") == shown


def test_program_that_the_shell_does_not_find_is_named_by_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert program(str(tmp_path / ".venv" / "bin" / "tool")) == ".venv/bin/tool"


def test_path_elsewhere_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert short_path(here / "store") == "store"
    assert short_path(tmp_path / "store") == str(tmp_path / "store")
