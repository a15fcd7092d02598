"""Labels through Parsl's local provider: real jobs, which outlive a driver that is killed."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write

from mlplugins.dynamics import jobs
from mlplugins.dynamics.settings import Cluster
from mlplugins.errors import BadInput
from mlplugins.labels import label

errors = pytest.importorskip("parsl.executors.high_throughput.errors")

DRIVER = """
import json, sys
from ase.io import read
from mlplugins.labels import label
found = label(read(sys.argv[1], ":"), json.loads(sys.argv[2]), store=sys.argv[3])
print(json.dumps(found.record()))
"""
LABEL = """
import os, sys, time
import ase.io
from ase.calculators.emt import EMT
name = os.path.basename(os.path.dirname(os.getcwd()))
with open(sys.argv[1], "a") as log:
    log.write(f"{name}\\n")
time.sleep(0.3)
atoms = ase.io.read("structure.extxyz")
atoms.calc = EMT()
atoms.get_forces()
ase.io.write("o.xyz", atoms, format="extxyz")
"""


@pytest.mark.slow
def test_a_killed_driver_leaves_tasks_that_do_no_harm(tmp_path):
    """What they were at is labelled once; what cannot be labelled has its reason, through two workers."""
    frames = [bulk("Cu", cubic=True, a=3.5 + 0.02 * k) for k in range(4)] + [bulk("Fe")]
    write(tmp_path / "f.extxyz", frames)
    for name, text in (("driver.py", DRIVER), ("label.py", LABEL)):
        (tmp_path / name).write_text(text)
    log, store = tmp_path / "log", tmp_path / "store"
    command = f"'{sys.executable}' '{tmp_path}/label.py' '{log}'"
    settings = {"kind": "command", "command": command, "output": "o.xyz", "cluster": {"workers": 2}}
    words = [sys.executable, str(tmp_path / "driver.py"), str(tmp_path / "f.extxyz"), json.dumps(settings)]
    driver = subprocess.Popen([*words, str(store)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120.0
    while not log.is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    driver.kill()
    assert driver.wait() < 0
    done = subprocess.run([*words, str(store)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["n_labelled"], record["waiting"]) == (4, 0)
    [failed] = record["failed"]
    assert "status 1" in failed["reason"]
    begun = log.read_text().split()
    assert len(set(begun)) == 5
    for name in set(begun):
        attempts = list((store / name).glob("attempt_*"))
        assert begun.count(name) <= len(attempts)
        over = (store / name / "label.extxyz", *store.glob(f"{name}/attempt_*/outcome.json"))
        assert sum(path.is_file() for path in over) == 1


def test_what_is_tried_again_and_when_a_job_takes_no_more(tmp_path):
    """The end of a job is no fault of the task; an exception of the task itself is."""
    assert jobs._cost(errors.ManagerLost(b"m", "host"), None) == 1.0
    assert jobs._cost(errors.WorkerLost(3, "host"), None) == 1.0
    assert jobs._cost(BadInput("no such store"), None) == math.inf
    config = jobs._config(Cluster(drain=3000.5, retries=2), tmp_path)
    assert config.executors[0].drain_period == 3001
    assert (config.retries, config.retry_handler) == (2, jobs._cost)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "emt", "jobs": 2}, "'jobs' writes a script, 'cluster' submits by itself"),
        ({"kind": "files"}, "somebody else labels"),
        ({"kind": "emt", "cluster": {"provider": "slrum"}}, "provider"),
        ({"kind": "emt", "cluster": {"options": {"walltme": "1:00:00"}}}, "'cluster.options' for local"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, change, message):
    with pytest.raises(BadInput, match=message):
        label([bulk("Cu")], {"cluster": {}, **change}, store=Path(tmp_path) / "s")
