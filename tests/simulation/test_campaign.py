"""Campaigns in the real engines: run, repeat, kill and continue, fail."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from mlplugins import engines
from mlplugins.analysis.trajectory import read_frames
from mlplugins.errors import BadInput
from mlplugins.simulation import campaign as campaigns
from mlplugins.simulation import driving
from mlplugins.simulation.config import load
from mlplugins.simulation.plan import plan

from .argon import write_campaign, write_model

pytestmark = pytest.mark.usefixtures("native_build")
ENGINES = [
    "lammps",
    pytest.param("ase", marks=pytest.mark.slow),
    pytest.param("ipi", marks=pytest.mark.slow),
]


def _plan(path, folder, engine):
    return plan(load(path, engine), folder / "out")


def _positions(campaign, run):
    """(frames, atoms, 3), Å, as the analysis reads them; steps must be there once each and in order."""
    [file] = engines.load(campaign.config.engine).trajectories(run)
    frames = list(read_frames(file))
    steps = [frame.step for frame in frames if frame.step is not None]
    assert set(np.diff(steps)) <= {run.config.dump_interval}
    return np.array([frame.positions for frame in frames])


@pytest.mark.usefixtures("warm_start")
@pytest.mark.parametrize("engine", ENGINES)
def test_a_campaign_runs_once_and_only_once(tmp_path, engine):
    steps = 0 if engine == "ipi" else 40  # i-PI starts anew for the production, which other tests do
    path = write_campaign(tmp_path, temperatures=[60, 100], parallel=2, equilibration={"steps": steps})
    campaign = _plan(path, tmp_path, engine)
    outcomes = campaigns.run(campaign)
    assert [(o.run, o.state, o.step) for o in outcomes] == [
        ("T0060_seed1", "finished", steps + 100),
        ("T0100_seed1", "finished", steps + 100),
    ]
    for run in campaign.runs:
        positions = _positions(campaign, run)
        assert len(positions) == 21
        centres = positions.mean(axis=1)  # equal masses
        np.testing.assert_allclose(centres, centres[:1].repeat(21, axis=0), atol=1e-4)
        status = json.loads((run.directory / "status.json").read_text())
        assert (status["state"], status["temperature_K"]) == ("finished", run.temperature)
    written = {p: p.stat().st_mtime_ns for run in campaign.runs for p in run.directory.glob("tra*")}
    assert [o.state for o in campaigns.run(campaign)] == ["finished", "finished"]
    assert written == {p: p.stat().st_mtime_ns for p in written}


def _step(directory):
    try:
        return json.loads((directory / "status.json").read_text())["step"]
    except (FileNotFoundError, ValueError):
        return 0


@pytest.mark.slow
@pytest.mark.usefixtures("warm_start")
@pytest.mark.parametrize(
    ("engine", "ranks"),
    [
        pytest.param("lammps", 1, marks=pytest.mark.exhaustive),
        ("lammps", 2),
        pytest.param("ase", 1, marks=pytest.mark.exhaustive),
        pytest.param("ipi", 1, marks=pytest.mark.exhaustive),
    ],
)
def test_a_killed_campaign_continues(tmp_path, engine, ranks, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    steps = {("lammps", 1): 3000, ("lammps", 2): 400, ("ase", 1): 1000, ("ipi", 1): 600}[engine, ranks]
    path = write_campaign(
        tmp_path, steps=steps, dump_interval=10, log_interval=10, restart_interval=50, ranks=ranks
    )
    campaign = _plan(path, tmp_path, engine)
    [run] = campaign.runs
    command = [sys.executable, "-m", "mlplugins.cli.main", "simulate", str(path), "--engine", engine]
    process = subprocess.Popen([*command, "-o", str(tmp_path / "out")], stdout=subprocess.DEVNULL)
    one = engines.load(engine)
    deadline = time.monotonic() + 120
    while one.steps_done(run) < 40 + steps / 4 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert _step(run.directory) < 40 + steps
    before = one.trajectories(run)[0].read_bytes()
    [outcome] = campaigns.run(campaign)
    assert (outcome.state, outcome.message) == ("finished", "")
    # what was there before the last restart file is kept, and nothing is missing or twice
    after = one.trajectories(run)[0].read_bytes()
    assert after[: len(before) // 2] == before[: len(before) // 2] or engine == "ase"
    positions = _positions(campaign, run)
    assert len(positions) == steps // 10 + 1
    hops = np.abs(np.diff(positions, axis=0)).max(axis=(1, 2))
    assert hops.max() < 4 * np.median(hops)


def _kill_all(pid):
    """kill -9 of the command and of the engines it started, at the same moment (as the end of a job does).

    Nothing, and False, if there is no engine at that moment (before the first, between two stages).
    """
    os.kill(pid, signal.SIGSTOP)  # so that it starts no engine meanwhile
    known = [pid]
    for parent in known:
        with contextlib.suppress(FileNotFoundError):
            known += map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    if known == [pid]:
        os.kill(pid, signal.SIGCONT)
        return False
    for one in known:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    return True


@pytest.mark.slow
@pytest.mark.usefixtures("warm_start")
@pytest.mark.skipif(sys.platform != "linux", reason="finds the engines in /proc")
@pytest.mark.parametrize("kills", [2, pytest.param(5, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("engine", ["lammps", "ase", "ipi"])
def test_killed_with_its_engine_at_any_moment(tmp_path, engine, kills, monkeypatch):
    """Twice (in the NPT stage, in production), or at random moments; the engines cannot end in order."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    steps = {"lammps": 4000, "ase": 1200, "ipi": 600}[engine]
    path = write_campaign(
        tmp_path,
        steps=steps,
        dump_interval=10,
        log_interval=10,
        restart_interval=50,
        equilibration={"steps": 200, "npt_steps": 200},
        **({"ensemble": "nvt", "thermostat": {"kind": "nose-hoover"}} if engine == "ase" else {}),
    )
    campaign = _plan(path, tmp_path, engine)
    [run] = campaign.runs
    one = engines.load(engine)
    command = [sys.executable, "-m", "mlplugins.cli.main", "simulate", str(path), "--engine", engine]
    total = campaign.config.total_steps
    moments = np.sort(np.random.default_rng(5).uniform(0.02, 0.8, kills)) * total
    seen = []
    for wanted in (300, 0.6 * total) if kills == 2 else moments:
        process = subprocess.Popen([*command, "-o", str(tmp_path / "out")], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if one.steps_done(run) >= wanted and _kill_all(process.pid):
                break
            time.sleep(0.02)
        assert process.wait() == -signal.SIGKILL, "the run was over before it could be killed: make it longer"
        seen.append(one.steps_done(run))
    assert np.ptp(seen) > total / 4
    before = one.trajectories(run)[0].read_bytes()
    [outcome] = campaigns.run(campaign)
    assert (outcome.state, outcome.message) == ("finished", "")
    after = one.trajectories(run)[0].read_bytes()
    assert after[: len(before) // 2] == before[: len(before) // 2] or engine == "ase"
    positions = _positions(campaign, run)
    assert len(positions) == steps // 10 + 1
    hops = np.abs(np.diff(positions, axis=0)).max(axis=(1, 2))
    assert hops.min() > 0
    assert hops.max() < 4 * np.median(hops)
    cells = {frame.cell.tobytes() for frame in read_frames(one.trajectories(run)[0])}
    assert len(cells) == 1  # the mean cell, found once


def test_changed_settings_are_refused_by_name(tmp_path):
    path = write_campaign(tmp_path)
    campaigns.write(_plan(path, tmp_path, "lammps"))
    settings = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**settings, "timestep": 2.0, "thermostat": {"time_constant": 50}}))
    with pytest.raises(BadInput) as refusal:
        campaigns.write(_plan(path, tmp_path, "lammps"))
    text = str(refusal.value)
    assert "thermostat.time_constant was 100.0, is 50.0; timestep was 4.0, is 2.0" in text
    assert "choose another directory" in text


def test_a_changed_model_is_refused(tmp_path):
    path = write_campaign(tmp_path)
    campaigns.write(_plan(path, tmp_path, "lammps"))
    write_model(tmp_path / "model.pt", epsilon=0.02)
    with pytest.raises(BadInput, match="model_sha256 was"):
        campaigns.write(_plan(path, tmp_path, "lammps"))


def test_more_temperatures_can_be_added(tmp_path):
    path = write_campaign(tmp_path)
    campaigns.write(_plan(path, tmp_path, "lammps"))
    settings = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**settings, "temperatures": [100, 120], "parallel": 2}))
    campaigns.write(_plan(path, tmp_path, "lammps"))
    assert (tmp_path / "out/lammps/T0120_seed1/in.lmp").is_file()


@pytest.mark.usefixtures("warm_start")
@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_that_blows_up_says_where(tmp_path, engine):
    path = write_campaign(tmp_path, timestep=400.0)
    [outcome] = campaigns.run(_plan(path, tmp_path, engine))
    assert outcome.state == "failed"
    assert f"at step {outcome.step} of 140" in outcome.message
    assert any("ERROR" in line or "error" in line or line.split()[0].isdigit() for line in outcome.last_lines)


def test_two_commands_in_one_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(driving, "LOCK_WAIT_S", 0.3)
    campaign = _plan(write_campaign(tmp_path), tmp_path, "lammps")
    campaigns.write(campaign)
    with driving.locked(campaign.runs[0]), pytest.raises(BadInput, match="is in use"):
        campaigns.run(campaign)


def test_a_missing_build_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    campaign = _plan(write_campaign(tmp_path), tmp_path, "lammps")
    monkeypatch.setenv("MLPLUGINS_CACHE", str(tmp_path / "empty"))
    with pytest.raises(BadInput, match="run `mlplugins build`"):
        campaigns.run(campaign)
    assert not (tmp_path / "out").exists()


def test_a_restart_file_cut_by_a_kill_is_not_used(tmp_path):
    path = write_campaign(tmp_path)
    campaign = _plan(path, tmp_path, "lammps")
    campaigns.run(campaign)
    folder = campaign.runs[0].directory
    (folder / "finished").unlink()
    newest = folder / "restart.140"
    newest.write_bytes(newest.read_bytes()[:-100])
    stage = engines.load("lammps").next_stage(campaign.runs[0])
    assert stage is not None
    assert stage.name == "lammps from step 120"
    assert "read_restart    restart.120" in (folder / "resume.lmp").read_text()
