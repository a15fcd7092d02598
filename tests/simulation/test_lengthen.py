"""A finished campaign is lengthened, from a copy of its folder too; looking at one changes nothing."""

import json
import re
import shutil

import numpy as np
import pytest
import yaml
from ase import units
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io import write

from mlplugins import engines
from mlplugins.analysis.trajectory import read_frames
from mlplugins.cli.main import main
from mlplugins.dynamics.output import table
from mlplugins.errors import BadInput
from mlplugins.simulation import campaign as campaigns
from mlplugins.simulation.config import load
from mlplugins.simulation.plan import plan

from .argon import write_campaign

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")
LOGS = {"lammps": "log.lammps", "ase": "md.log", "ipi": "simulation.out"}
DECKS = "in.lmp", "resume.lmp"
NVE = {"ensemble": "nve", "timestep": 2.0}


def _simulate(path, folder, engine):
    campaign = plan(load(path, engine), folder / "out")
    [outcome] = campaigns.run(campaign)
    assert (outcome.state, outcome.message) == ("finished", ""), outcome
    return campaign.runs[0]


def _positions(run, engine):
    frames = list(read_frames(engines.load(engine).trajectories(run)[0]))
    return np.array([frame.positions for frame in frames])


@pytest.mark.parametrize(
    ("engine", "moved"),
    [
        ("lammps", False),
        ("lammps", True),
        pytest.param("ase", True, marks=pytest.mark.slow),
        pytest.param("ipi", True, marks=pytest.mark.slow),
        pytest.param("ase", False, marks=[pytest.mark.slow, pytest.mark.exhaustive]),
        pytest.param("ipi", False, marks=[pytest.mark.slow, pytest.mark.exhaustive]),
    ],
)
def test_a_finished_run_is_lengthened_from_its_end(tmp_path, engine, moved):
    """NVE: 60 steps and then 40 more are the 100 steps of one run, and no step is computed twice.

    `moved`: the campaign is copied with its model and YAML, and the original deleted: no path of the old
    place is needed.
    """
    folders = tmp_path / "whole", tmp_path / "first"
    for folder in folders:
        folder.mkdir()
    whole = _simulate(write_campaign(folders[0], steps=100, **NVE), folders[0], engine)
    place = folders[1]
    first = _simulate(write_campaign(place, steps=60, **NVE), place, engine)
    before = engines.load(engine).trajectories(first)[0].read_bytes()
    assert len(_positions(first, engine)) == 13
    if moved:
        place = tmp_path / "longer"
        shutil.copytree(folders[1], place)
        shutil.rmtree(folders[1])
    path = place / "md.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "steps": 100}))
    longer = _simulate(path, place, engine)
    found, wanted = _positions(longer, engine), _positions(whole, engine)
    assert len(found) == len(wanted) == 21
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    if engine != "ase":  # whose file has an index at its head
        after = engines.load(engine).trajectories(longer)[0].read_bytes()
        frame = len(before) // 13
        assert after[: 12 * frame] == before[: 12 * frame]
    rows = table(longer.directory / LOGS[engine])
    assert rows[-1, 0] == (100 if engine == "ipi" else 140)
    text = (longer.directory / "status.json").read_text()
    status = yaml.safe_load(text)
    assert (status["state"], status["step"], status["settings"]["steps"]) == ("finished", 140, 100)
    assert str(place) in text


def test_a_run_is_not_shortened(tmp_path):
    path = write_campaign(tmp_path, steps=100)
    campaigns.write(plan(load(path), tmp_path / "out"))
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "steps": 90}))
    with pytest.raises(BadInput, match=r"steps was 100, is 90 \('steps' can only grow\)"):
        campaigns.write(plan(load(path), tmp_path / "out"))


def test_a_finished_run_without_its_last_state_is_not_begun_anew(tmp_path):
    path = write_campaign(tmp_path, steps=40)
    run = _simulate(path, tmp_path, "lammps")
    trajectory = (run.directory / "trajectory.lammpstrj").read_bytes()
    for restart in run.directory.glob("restart.*"):
        restart.unlink()
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "steps": 60}))
    with pytest.raises(BadInput, match="its last saved state is gone: it cannot be lengthened"):
        campaigns.run(plan(load(path), tmp_path / "out"))
    assert (run.directory / "trajectory.lammpstrj").read_bytes() == trajectory


def test_paths_relative_to_where_the_command_runs(tmp_path, monkeypatch):
    """-o and the YAML are relative to the working folder, what the YAML names to the YAML."""
    (tmp_path / "set").mkdir()
    write_campaign(tmp_path / "set", steps=10, dump_interval=5)
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", "set/md.yaml", "-o", "runs"]) == 0
    monkeypatch.chdir(tmp_path / "set")
    assert main(["simulate", "md.yaml", "-o", "../runs"]) == 0
    assert not (tmp_path / "set" / "simulation").exists()


def _tree(directory):
    """Contents and times of a folder, whose own time a file made or removed would change."""
    files = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.iterdir()}
    return files, directory.stat().st_mtime_ns


@pytest.mark.parametrize("engine", ["lammps", "ipi", "ase"])
def test_looking_at_a_run_changes_no_file(tmp_path, engine):
    [run] = plan(load(write_campaign(tmp_path), engine), tmp_path / "out").runs
    run.directory.mkdir(parents=True)
    for k in (20, 40, 60, 80):
        (run.directory / f"restart.{k}").write_text("x")
        (run.directory / f"simulation.chk_{k}").write_text("x")
    before = _tree(run.directory)
    one = engines.load(engine)
    run.directory.chmod(0o555)  # a login node that may read only
    try:
        assert one.steps_done(run) == 0
        assert one.hottest(run) == 0
        one.failure(run)
        assert not one.has_state(run)
        one.trajectories(run)
    finally:
        run.directory.chmod(0o755)
    assert _tree(run.directory) == before
    one.prune(run)
    kept = {"lammps": ["restart.60", "restart.80"], "ipi": ["simulation.chk_60", "simulation.chk_80"]}
    pattern = {"lammps": "restart.*", "ipi": "simulation.chk_*"}.get(engine)
    if pattern is not None:
        assert sorted(path.name for path in run.directory.glob(pattern)) == kept[engine]


def test_a_status_file_of_an_older_version(tmp_path):
    """Keys that came later count as their defaults."""
    campaign = plan(load(write_campaign(tmp_path)), tmp_path / "out")
    campaigns.write(campaign)
    path = campaign.runs[0].directory / "status.json"
    record = yaml.safe_load(path.read_text())
    del record["settings"]["velocities"], record["settings"]["beads"], record["directory"]
    path.write_text(json.dumps(record))
    campaigns.write(campaign)


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_fixed_atoms_stay_fixed_when_a_run_goes_on(tmp_path, ranks):
    """The deck that resumes holds them too, and counts as before; the noise is not that of the first part."""
    atoms = bulk("Ar", "fcc", a=5.5, cubic=True).repeat((2, 2, 2))
    atoms.set_constraint(FixAtoms(range(8)))
    settings = {"structure": "start.traj", "thermostat": {"kind": "langevin"}, "ranks": ranks}
    path = write_campaign(tmp_path, steps=40, **settings)
    write(tmp_path / "start.traj", atoms)
    _simulate(path, tmp_path, "lammps")
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "steps": 80}))
    run = _simulate(path, tmp_path, "lammps")
    positions = _positions(run, "lammps")
    assert len(positions) == 17
    assert not np.ptp(positions, axis=0)[:8].any()
    assert np.ptp(positions[9:], axis=0)[8:].min() > 0
    rows = table(run.directory / "log.lammps")
    np.testing.assert_allclose(rows[:, 2], 2 * (rows[:, 4] - rows[:, 3]) / (72 * units.kB), rtol=1e-4)
    seeds = [re.findall(r"langevin \S+ \S+ \S+ (\d+)", (run.directory / f).read_text()) for f in DECKS]
    assert seeds == [["1", "1"], ["81"]]
