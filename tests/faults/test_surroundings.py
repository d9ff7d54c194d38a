"""What worker processes have around them: one thread for each library, and a directory that may move or vanish."""

import os
from pathlib import Path

import pytest

from gristmill import Pipeline, node
from gristmill.engine.executors.warm import WARM


def where(x: int) -> str:
    return str(Path.cwd())


def sign(name: str) -> str:
    return Path(name).read_text()


def threads(library: str) -> str | None:
    return os.environ.get(f"{library}_NUM_THREADS")


def shout(x: str) -> str:
    return x.upper()


WHERE = Pipeline([node(where, mapspec="x[i] -> where[i]", cache=False)])
SHOUT = Pipeline([node(shout, mapspec="x[i] -> shout[i]")])
THREADS = Pipeline([node(threads, mapspec="library[i] -> threads[i]", cache=False)])
SIGN = Pipeline([node(sign, mapspec="name[i] -> sign[i]", cache=False)])


def places(n: int = 4) -> set[str]:
    return set(WHERE.map({"x": range(n)}, map_executor="parallel")["where"].tolist())


@pytest.mark.parametrize("library", ["OMP", "OPENBLAS", "MKL", "NUMEXPR", "BLIS"])
def test_libraries_in_workers_start_one_thread_each(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{library}_NUM_THREADS", "7")
    WARM.end()  # so that workers are started now
    result = THREADS.map({"library": [library] * 4}, map_executor="parallel", max_workers=2)
    assert result["threads"].tolist() == ["1"] * 4
    assert os.environ[f"{library}_NUM_THREADS"] == "7", "the program's own"


def test_warm_workers_follow_the_program_to_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sign").write_text(name)
        monkeypatch.chdir(tmp_path / name)
        assert places() == {str(tmp_path / name)}
        assert SIGN.map({"name": ["sign"]}, map_executor="parallel")["sign"].tolist() == [name]


def test_warm_workers_outlive_the_directory_they_were_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    assert places() == {str(gone)}
    gone.rmdir()
    monkeypatch.chdir(tmp_path)
    assert places() == {str(tmp_path)}


def test_a_program_whose_own_directory_is_gone_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(
        FileNotFoundError, match=r"working directory of this process has been removed.*os\.chdir"
    ):
        places()
    assert SHOUT.map({"x": ["a"]}, map_executor="sequential")["shout"].tolist() == ["A"]
    monkeypatch.chdir(tmp_path)
    assert places() == {str(tmp_path)}
