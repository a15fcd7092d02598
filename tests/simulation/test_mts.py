"""Multiple time steps of a campaign: two engines, one trajectory; refusals; times, restarts, the report."""

from xml.etree import ElementTree

import ase.io
import numpy as np
import pytest
import yaml
from ase import units

from mlplugins.analysis.trajectory import read_frames
from mlplugins.cli.main import main
from mlplugins.dynamics.output import table
from mlplugins.engines import load as load_engine
from mlplugins.engines.ipi.input import xml
from mlplugins.engines.lammps.deck import deck
from mlplugins.errors import BadInput
from mlplugins.simulation import campaign as campaigns
from mlplugins.simulation.config import load
from mlplugins.simulation.plan import plan
from tests.heads.test_lammps import write as write_direct

from .argon import write_campaign, write_model

MTS = {"mts": {"inner": "student.pt", "every": 4}, "timestep": 8.0}
NVE = {"ensemble": "nve", "equilibration": {"steps": 0}, "temperatures": [60], "log_interval": 1}
ENERGIES = {"lammps": ("log.lammps", 4), "ipi": ("simulation.out", 2)}


def prepared(folder, **changes):
    """A campaign whose structure has velocities, with a student of another depth and range."""
    path = write_campaign(folder, **{**MTS, **NVE, **changes})
    write_model(folder / "student.pt", epsilon=0.0095, cutoff=4.6)
    atoms = ase.io.read(folder / "argon.extxyz")
    rng = np.random.default_rng(3)
    momenta = rng.normal(size=(len(atoms), 3)) * np.sqrt(units.kB * 60 * atoms.get_masses())[:, None]
    atoms.set_momenta(momenta - momenta.mean(axis=0))
    atoms.set_momenta(atoms.get_momenta() * np.sqrt(60 / atoms.get_temperature()))
    ase.io.write(folder / "argon.extxyz", atoms)
    return path


def run(path, engine, folder):
    campaign = plan(load(path, engine), folder)
    [outcome] = campaigns.run(campaign)
    assert (outcome.state, outcome.message) == ("finished", ""), outcome
    return campaign.runs[0]


def positions(item, engine):
    [path] = load_engine(engine).trajectories(item)
    return np.array([frame.positions for frame in read_frames(path)])


@pytest.mark.engine
@pytest.mark.usefixtures("native_build", "warm_start")
def test_lammps_and_ipi_agree_and_times_are_of_outer_steps(tmp_path):
    """NVE in both engines from one state: the same energies at every outer step; LAMMPS in two parts is one
    run; frames are where `conductivity.yaml` says; nothing is evaluated twice."""
    path = prepared(tmp_path, steps=12, dump_interval=3, restart_interval=6)
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "steps": 6}))
    run(path, "lammps", tmp_path / "out")
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "steps": 12}))
    items = {engine: run(path, engine, tmp_path / "out") for engine in ENERGIES}
    energies = {
        engine: table(items[engine].directory / name)[:, column]
        for engine, (name, column) in ENERGIES.items()
    }
    rows = table(items["lammps"].directory / "log.lammps")
    _, first = np.unique(rows[:, 0], return_index=True)  # the restart writes its step again
    rows = rows[first]
    np.testing.assert_array_equal(rows[:, 0], np.arange(13))
    np.testing.assert_allclose(rows[:, 1], 0.008 * np.arange(13), rtol=0, atol=1e-12)  # ps
    potential = table(items["ipi"].directory / "simulation.out")[:, 5]
    np.testing.assert_allclose(rows[:, 3], potential, rtol=0, atol=2e-6)  # eV, six printed digits
    assert np.ptp(rows[:, 3]) > 0.05
    assert np.ptp(energies["ipi"]) < 2e-3
    made = yaml.safe_load((tmp_path / "out" / "lammps" / "conductivity.yaml").read_text())
    assert (made["runs"][0]["timestep"], made["runs"][0]["interval"]) == (8.0, 3)
    assert made["dynamics"]["multiple time steps"] == "student.pt every 2 fs, the potential every 8 fs"
    assert made["dynamics"]["time step"] == "8 fs (outer step), a frame every 24 fs"
    dump = (items["lammps"].directory / "trajectory.lammpstrj").read_text().split("ITEM: TIME\n")[1:]
    np.testing.assert_allclose([float(part.split()[0]) for part in dump], 0.024 * np.arange(5), atol=1e-12)
    for name, evaluations in (("driver.out", 1 + 12), ("driver_inner.out", 1 + 12 * 4)):
        assert f" {evaluations} structures in" in (items["ipi"].directory / name).read_text()


@pytest.mark.usefixtures("native_build", "warm_start")
class TestRefusals:
    @pytest.mark.parametrize(
        ("engine", "changes", "text"),
        [
            ("ase", {}, "'mts': ASE has no integrator with multiple time steps; use engine ipi or lammps"),
            (
                "lammps",
                {"mts": {"inner": "student.pt", "every": 1}},
                "'mts.every': expected the number of inner",
            ),
            ("lammps", {"mts": {"inner": "student.pt", "every": 4, "outer": 2}}, "unknown key 'mts.outer'"),
            ("lammps", {"mts": {"inner": "no.pt", "every": 4}}, "no.pt"),
            ("ipi", {"mts": {"inner": "direct", "every": 4}}, "'model.pt' has no direct forces"),
            ("ipi", {"mts": {"inner": "model.pt", "every": 4}}, "'model.pt' is the model itself"),
            ("ipi", {"mts": {"inner": "heads.pt", "every": 4}}, "'heads.pt' was trained without energies"),
        ],
    )
    def test_by_name(self, tmp_path, engine, changes, text):
        path = prepared(tmp_path, **changes)
        write_model(tmp_path / "heads.pt", {"configuration": {"data": {"keys": {"energy": None}}}})
        with pytest.raises(BadInput) as refusal:
            plan(load(path, engine), tmp_path / "out")
        assert text in str(refusal.value)

    def test_a_student_of_other_elements(self, tmp_path):
        path = prepared(tmp_path)
        write_direct(tmp_path / "model.pt", 3)  # Ar, Kr
        atoms = ase.io.read(tmp_path / "argon.extxyz")
        atoms.numbers[0] = 36
        ase.io.write(tmp_path / "argon.extxyz", atoms)
        with pytest.raises(
            BadInput, match="the structure holds Kr, which 'student.pt' does not know; it knows Ar"
        ):
            plan(load(path), tmp_path / "out")

    def test_continued_with_another_student(self, tmp_path):
        """Compared by content: the file may move; a campaign of plain steps is not continued with mts."""
        path = prepared(tmp_path)
        campaigns.write(plan(load(path), tmp_path / "out"))
        content = yaml.safe_load(path.read_text())
        (tmp_path / "student.pt").rename(tmp_path / "moved.pt")
        content["mts"]["inner"] = "moved.pt"
        path.write_text(yaml.safe_dump(content))
        campaigns.write(plan(load(path), tmp_path / "out"))
        [item] = plan(load(path), tmp_path / "out").runs
        assert "moved.pt" in (item.directory / "in.lmp").read_text()
        write_model(tmp_path / "moved.pt", epsilon=0.009)
        with pytest.raises(BadInput, match="inner_sha256 was"):
            campaigns.write(plan(load(path), tmp_path / "out"))
        path.write_text(yaml.safe_dump({**content, "mts": None}))
        with pytest.raises(BadInput, match="mts was {'inner': 'a file', 'every': 4}, is None"):
            campaigns.write(plan(load(path), tmp_path / "out"))


def test_extras_of_ipi_are_those_of_the_model(tmp_path, native_build):
    """Of entries that two forces have i-PI keeps the last ones: dipoles are not the student's."""
    [item] = plan(load(prepared(tmp_path), "ipi"), tmp_path / "out").runs
    forces = ElementTree.fromstring(xml(item, "simulation")).iter("force")
    assert [force.get("forcefield") for force in forces] == ["inner", "model"]


def test_what_is_said(tmp_path, capsys, native_build):
    """Both steps, and the resonance of hydrogen; direct forces are a keyword of the deck."""
    path = prepared(tmp_path, mts={"inner": "direct", "every": 8}, engine="lammps")
    write_direct(tmp_path / "model.pt", 3)
    atoms = ase.io.read(tmp_path / "argon.extxyz")
    atoms.set_masses(np.where(np.arange(len(atoms)) == 5, 1.008, atoms.get_masses()))
    ase.io.write(tmp_path / "argon.extxyz", atoms)
    assert main(["simulate", str(path), "--write-only", "-o", str(tmp_path / "out")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "direct forces of model.pt every 1 fs (the inner step), model.pt every 8 fs (the outer" in said
    assert "an outer step of 8 fs with hydrogen" in said
    [item] = plan(load(path), tmp_path / "other").runs
    text = deck(item)
    assert f"mlplugins {tmp_path / 'model.pt'} device cpu inner direct" in text
    assert "run_style       respa 2 8 inner 1 1.0 2.0 outer 2" in text
    assert "timestep        0.008" in text
    assert "run_style" not in deck(plan(load(prepared(tmp_path, mts=None)), tmp_path / "o").runs[0])
