"""The same campaign through Parsl's local provider: real jobs, real LAMMPS."""

import json
import subprocess
import sys

import pytest
import yaml

from mlplugins.dynamics import jobs
from mlplugins.errors import BadInput
from mlplugins.simulation import campaign as campaigns
from mlplugins.simulation.config import load
from mlplugins.simulation.plan import plan

from .argon import write_campaign

pytest.importorskip("parsl")
pytestmark = pytest.mark.usefixtures("native_build")
LOCAL = {"provider": "local", "workers": 2}


def test_options_that_the_provider_does_not_know_are_refused(tmp_path):
    path = write_campaign(tmp_path, cluster={"provider": "slurm", "options": {"partitoin": "long"}})
    with pytest.raises(BadInput, match=r"'cluster.options' for slurm: .*partitoin"):
        campaigns.run(plan(load(path), tmp_path / "out"))


@pytest.mark.parametrize(
    ("cluster", "host", "address"),
    [
        (LOCAL, "203.0.113.7", "127.0.0.1"),
        ({"provider": "slurm", "options": {"partition": "p"}}, "203.0.113.7", "203.0.113.7"),
        (
            {"provider": "slurm", "options": {"partition": "p"}, "address": "192.0.2.5"},
            "127.0.1.1",
            "192.0.2.5",
        ),
    ],
)
def test_parsl_encrypts_and_listens_on_one_address(tmp_path, monkeypatch, cluster, host, address):
    monkeypatch.setattr("socket.gethostbyname", lambda name: host)
    config = load(write_campaign(tmp_path, cluster=cluster)).cluster
    [executor] = jobs._config(config, tmp_path).executors
    assert executor.encrypted
    assert executor.address == address
    assert set(executor.all_addresses) == {address}
    assert executor.loopback_address == "127.0.0.1"


def test_a_host_without_an_address_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.gethostbyname", lambda name: "127.0.1.1")
    path = write_campaign(tmp_path, cluster={"provider": "slurm", "options": {"partition": "p"}})
    with pytest.raises(BadInput, match=r"'cluster.address': the host name '.*' stands for no address"):
        campaigns.run(plan(load(path), tmp_path / "out"))


@pytest.mark.slow
def test_runs_go_through_parsl_and_are_not_repeated(tmp_path):
    """By the command, as a user does; a worker is a process that knows only what Parsl sends it."""
    path = write_campaign(tmp_path, temperatures=[60, 100], cluster=LOCAL)
    command = [sys.executable, "-m", "mlplugins.cli.main", "simulate", str(path), "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "r.json")], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    runs = json.loads((tmp_path / "r.json").read_text())["runs"]
    assert [(run["run"], run["state"], run["step"]) for run in runs] == [
        ("T0060_seed1", "finished", 140),
        ("T0100_seed1", "finished", 140),
    ]
    assert (tmp_path / "out" / "lammps" / "parsl").is_dir()
    text = (tmp_path / "out" / "conductivity.yaml").read_text()
    assert text.count("temperature:") == 2
    # on this machine: nothing is left to do, and the place where it runs is not physics
    settings = yaml.safe_load(path.read_text())
    del settings["cluster"]
    path.write_text(yaml.safe_dump(settings))
    again = plan(load(path), tmp_path / "out")
    written = {p: p.stat().st_mtime_ns for run in again.runs for p in run.directory.glob("traj*")}
    assert len(written) == 2
    assert all(outcome.state == "finished" for outcome in campaigns.run(again))
    assert {p: p.stat().st_mtime_ns for p in written} == written
