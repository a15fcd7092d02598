import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlplugins.dynamics import process
from mlplugins.dynamics.process import Command, RunningStage, Stage


def _python(code: str, output: str = "out") -> Command:
    return Command((sys.executable, "-c", code), output)


def _wait(stage: RunningStage, seconds: float = 120.0) -> int:
    deadline = time.monotonic() + seconds
    while (status := stage.poll()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return status


def _gone(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return text.rpartition(")")[2].split()[0] == "Z"


def test_status_and_output_of_the_leader(tmp_path):
    stage = RunningStage(Stage("a", _python("print('hello'); raise SystemExit(3)")), tmp_path, 0)
    assert _wait(stage) == 3
    assert (tmp_path / "out").read_text() == "hello\n"


@pytest.mark.long
def test_a_servant_ends_with_its_leader(tmp_path):
    leader = _python(
        "import pathlib, time; path = pathlib.Path('servant')\n"
        "while not (path.exists() and path.read_text()): time.sleep(0.02)\n"
        "raise SystemExit(1)"
    )
    servant = _python("import os, time; print(os.getpid(), flush=True); time.sleep(60)", "servant")
    assert _wait(RunningStage(Stage("a", leader, (servant,)), tmp_path, 0)) == 1
    assert _gone(int((tmp_path / "servant").read_text()))


def test_a_failing_servant_fails_the_stage(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "GRACE_S", 0.5)
    leader = _python("import time; time.sleep(60)")
    stage = RunningStage(Stage("a", leader, (_python("raise SystemExit(4)", "servant"),)), tmp_path, 0)
    assert _wait(stage) == 4


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux", reason="the kernel ends children with their parent on Linux only"
)
def test_children_of_a_killed_command_end(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from mlplugins.dynamics.process import *\n"
        "child = Command((sys.executable, '-c', "
        "'import os, time; print(os.getpid(), flush=True); time.sleep(60)'), 'out')\n"
        "stage = RunningStage(Stage('a', child), Path('.'), 0); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    out = tmp_path / "out"
    deadline = time.monotonic() + 120
    while not (out.is_file() and out.read_text().endswith("\n")) and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int(out.read_text())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    while not _gone(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _gone(child)
