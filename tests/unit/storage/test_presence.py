"""Pins and the gate: who is here, as long as their process is."""

import threading
from pathlib import Path

import pytest
from tests.support.programs import running

from gristmill.errors import StoreError
from gristmill.storage import patience
from gristmill.storage.layout import Scratch
from gristmill.storage.presence import Gate, Pin, present

RUN = "0123456789ab"


def test_a_pin_is_seen_while_it_lives(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "tmp")
    pin = Pin(scratch.path, RUN)
    assert present(tmp_path / "tmp")[RUN].running
    pin.settle()
    assert not present(tmp_path / "tmp")[RUN].running
    del pin
    assert present(tmp_path / "tmp") == {}
    scratch.close()


def test_a_run_that_goes_on_counts_more_than_a_result_in_use(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "tmp")
    first, second = Pin(scratch.path, RUN), Pin(scratch.path, RUN)
    first.settle()
    assert present(tmp_path / "tmp")[RUN].running
    second.release()
    assert not present(tmp_path / "tmp")[RUN].running
    first.release()
    scratch.close()


def test_the_pin_of_a_killed_process_counts_no_more(tmp_path: Path) -> None:
    script = tmp_path / "pins.py"
    script.write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from gristmill.storage.layout import Scratch\n"
        "from gristmill.storage.presence import Pin\n"
        "scratch = Scratch(Path(sys.argv[1]))\n"
        f"pin = Pin(scratch.path, '{RUN}')\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    with running(script, tmp_path / "tmp", store=tmp_path) as program:
        assert program.line() == "ready"
        assert present(tmp_path / "tmp")[RUN].running
        program.kill()
        assert present(tmp_path / "tmp") == {}


def test_several_may_enter_and_one_may_close(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    order: list[str] = []

    def close() -> None:
        with gate.closed():
            order.append("closed")

    closing = threading.Thread(target=close)
    with gate.entered(), gate.entered():
        closing.start()
        closing.join(0.05)
        order.append("inside")
    closing.join()
    assert order == ["inside", "closed"]


def test_nobody_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "ENTER_SECONDS", 0.01)
    monkeypatch.setattr(patience, "CLOSE_SECONDS", 0.01)
    gate = Gate(tmp_path / "gate")
    with gate.closed(), gate.entered():
        pass
    with gate.entered(), pytest.raises(StoreError, match="try again"), gate.closed():
        pass


def test_a_gate_in_a_directory_that_is_not_there_is_open(tmp_path: Path) -> None:
    with Gate(tmp_path / "nowhere" / "gate").entered():
        pass
