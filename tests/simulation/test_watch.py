"""Runs that watch their uncertainty: the same table in every host, an end that is recorded, and going on."""

import json

import numpy as np
import pytest
import torch
import yaml
from ase import units
from ase.build import bulk
from ase.io import read, write

from mlplugins.analysis.trajectory import read_frames
from mlplugins.cli.main import main
from mlplugins.dynamics import watch
from mlplugins.dynamics.watch import DEVIATION, Recorder, Watch, read_rows
from mlplugins.errors import BadInput, RunStopped
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import committee, lennard_jones
from mlplugins.simulation import campaign as campaigns
from mlplugins.simulation.config import load
from mlplugins.simulation.plan import plan

from .argon import write_campaign, write_model

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")
EPSILONS = 0.0094, 0.0114
SHARE = (EPSILONS[1] - EPSILONS[0]) / sum(EPSILONS)
"""D_i over |F_i| of two models that differ by a factor."""
STEPS, EVERY = 60, 5
HOSTS = ["lammps", "ipi", "ase"]


def write_committee(path):
    terms = [
        lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters(epsilon=e, sigma=3.4, cutoff=5.0))
        for e in EPSILONS
    ]
    model = committee.Model.of(terms, torch.zeros(2, 1, dtype=torch.float64))
    save(model, path, ModelCard("committee", ["Ar"], [0.0]), "float64")


def write_inputs(folder, **changes):
    """An NVE run from velocities, the same in every host."""
    folder.mkdir(exist_ok=True)
    settings = {
        "ensemble": "nve",
        "timestep": 4.0,
        "equilibration": {"steps": 0},
        "steps": STEPS,
        "structure": "moving.extxyz",
        "watch_interval": EVERY,
        "keep_above": 1e-6,
    }
    path = write_campaign(folder, **settings | changes)
    write_committee(folder / "model.pt")
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True).repeat((2, 2, 2))
    drawn = np.random.default_rng(4).normal(size=(len(atoms), 3))
    atoms.set_velocities((drawn - drawn.mean(axis=0)) * np.sqrt(200 * units.kB / atoms.get_masses()[0]))
    write(folder / "moving.extxyz", atoms)
    return path


def simulate(path, engine):
    campaign = plan(load(path, engine), path.parent / "out")
    return campaign, *campaigns.run(campaign)


@pytest.fixture(scope="module")
def unwatched(tmp_path_factory, native_build):
    """The table of a whole run in ASE, and of it a limit that is first exceeded in the middle."""
    path = write_inputs(tmp_path_factory.mktemp("whole"), temperatures=[200])
    campaign, outcome = simulate(path, "ase")
    assert outcome.state == "finished", outcome
    directory = campaign.runs[0].directory
    rows = read_rows(directory / watch.TABLE)
    assert [row.step for row in rows] == list(range(0, STEPS + 1, EVERY))
    largest = np.array([row.largest for row in rows])
    records = [k for k in range(2, len(rows) - 3) if largest[k] > 1.02 * largest[:k].max()]
    limit = 0.5 * (largest[records[-1]] + largest[: records[-1]].max())
    return directory, rows, limit, rows[records[-1]]


def test_the_table_is_that_of_the_frames(unwatched):
    """D_i = |F_i| |ε_1 − ε_2| / (ε_1 + ε_2); every frame above the limit is kept, with its atom."""
    directory, rows, *_ = unwatched
    frames = [frame for frame in read(directory / "trajectory.traj", ":")][:: EVERY // 5]
    assert len(frames) == len(rows)
    for row, atoms in zip(rows, frames):
        expected = SHARE * np.linalg.norm(atoms.get_forces(), axis=1)
        assert row.largest == pytest.approx(expected.max(), rel=1e-6, abs=1e-12)
        assert row.mean == pytest.approx(expected.mean(), rel=1e-6, abs=1e-12)
        assert row.atom == int(expected.argmax()) + 1 or row.largest < 1e-9
    kept = read(directory / watch.KEPT, ":")
    assert [a.info["step"] for a in kept] == [row.step for row in rows if row.largest > 1e-6]
    assert all(a.arrays["deviation"].argmax() + 1 == a.info["atom"] for a in kept)


@pytest.mark.long
@pytest.mark.parametrize("engine", HOSTS)
def test_a_run_is_stopped_alike_in_every_host_and_goes_on(tmp_path, unwatched, engine, capsys):
    _, whole, limit, last = unwatched
    path = write_inputs(
        tmp_path / "a", temperatures=[200], stop_above=float(limit), keep_above=float(limit) / 2
    )
    words = ["simulate", str(path), "-o", str(tmp_path / "a" / "out"), "--engine", engine]
    assert main([*words, "--json", str(tmp_path / "s.json")]) == 3
    [outcome] = json.loads((tmp_path / "s.json").read_text())["runs"]
    assert (outcome["state"], outcome["step"]) == ("stopped", last.step)
    said = f"the model deviation of forces of atom {last.atom} (Ar) is {last.largest:.3g} eV/Å"
    assert said in outcome["message"]
    [run] = plan(load(path, engine), tmp_path / "a" / "out").runs
    found = read_rows(run.directory / watch.TABLE)
    compare(found, whole[: len(found)])
    assert found[-1].step == last.step
    kept = kept_steps(run.directory, engine)
    assert kept == [row.step for row in found if row.largest > limit / 2]
    status = json.loads((run.directory / "status.json").read_text())
    assert status["state"] == "stopped"
    before = (run.directory / watch.TABLE).read_bytes()
    assert main(words) == 3  # again: nothing is started
    assert (run.directory / watch.TABLE).read_bytes() == before
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "stop_above": 1e3}))
    assert main(words) == 0
    compare(read_rows(run.directory / watch.TABLE), whole)
    frames = list(
        read_frames(next(iter(run.directory.glob("*traj*")), run.directory / "simulation.pos_0.xyz"))
    )
    assert len(frames) == STEPS // 5 + 1
    assert kept_steps(run.directory, engine) == [row.step for row in whole if row.largest > limit / 2]
    entry = yaml.safe_load((tmp_path / "a" / "out" / "conductivity.yaml").read_text())["runs"][0]
    assert entry["uncertainty"]["what"] == DEVIATION.words
    assert (tmp_path / "a" / "out" / entry["uncertainty"]["file"]).is_file()


def compare(found, expected):
    """Of i-PI, whose start file has five digits of the velocities, and of a longer trajectory: less exact."""
    assert [row.step for row in found] == [row.step for row in expected]
    np.testing.assert_allclose(
        [row.largest for row in found], [row.largest for row in expected], rtol=2e-3, atol=1e-7
    )
    for one, other in zip(found, expected):
        assert one.atom == other.atom or other.largest < 1e-7


def kept_steps(directory, engine):
    if engine == "lammps":
        return [frame.step for frame in read_frames(directory / "kept.lammpstrj")]
    return [atoms.info["step"] for atoms in read(directory / watch.KEPT, ":")]


def test_models_without_uncertainty_are_refused_before_anything_starts(tmp_path, capsys):
    path = write_campaign(tmp_path, stop_above=0.5)
    assert main(["simulate", str(path), "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.replace("\n", " ")
    assert "'stop_above': 'model.pt' predicts no uncertainty: add one with `mlplugins uncertainty`" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"probes": 4}, "'probes' needs 'stop_above' or 'keep_above'"),
        ({"watch_interval": 4}, "'watch_interval' needs 'stop_above' or 'keep_above'"),
        ({"stop_above": 0.2, "keep_above": 0.5}, r"'keep_above' \(0.5\) must be below 'stop_above' \(0.2\)"),
        ({"stop_above": -1}, "stop_above"),
    ],
)
def test_settings_that_contradict_are_refused(tmp_path, changes, text):
    with pytest.raises(BadInput, match=text):
        load(write_campaign(tmp_path, **changes))


def test_multiple_time_steps_are_not_watched(tmp_path):
    path = write_campaign(tmp_path, stop_above=0.5, mts={"inner": "other.pt", "every": 2})
    write_committee(tmp_path / "model.pt")
    write_model(tmp_path / "other.pt")
    with pytest.raises(BadInput, match="'stop_above' with 'mts'"):
        plan(load(path), tmp_path / "out")


def test_a_value_that_is_no_number_ends_a_run(tmp_path):
    """It must not pass as small: nan > x is false."""
    recorder = Recorder(Watch(DEVIATION, 1, 0.5, None, 8), tmp_path)
    atoms = bulk("Ar", "fcc", a=5.3)
    recorder.look(0, np.array([0.4]), lambda: atoms)
    with pytest.raises(RunStopped):
        recorder.look(1, np.array([np.nan]), lambda: atoms)
    assert watch.stopped_at(tmp_path, Watch(DEVIATION, 1, 0.5, None, 8)).step == 1


def test_rows_and_frames_after_a_restart_point_are_cut(tmp_path):
    recorder = Recorder(Watch(DEVIATION, 2, None, 0.1, 8), tmp_path)
    atoms = bulk("Ar", "fcc", a=5.3)
    for step in (0, 2, 4, 6):
        recorder.look(step, np.array([0.2]), lambda: atoms)
    with (tmp_path / watch.TABLE).open("a") as table:
        table.write("8 0.2")  # cut by a kill
    watch.cut(tmp_path, 4)
    assert [row.step for row in read_rows(tmp_path / watch.TABLE)] == [0, 2]
    assert [a.info["step"] for a in read(tmp_path / watch.KEPT, ":")] == [0, 2]
