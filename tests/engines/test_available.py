"""An engine is one folder: a further one is found, configured, run, checked and diagnosed by it alone."""

import inspect
import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml
from ase.build import bulk

from mlplugins import engines
from mlplugins.analysis.trajectory import read_frames
from mlplugins.checks import installation
from mlplugins.cli.main import main
from mlplugins.dynamics.output import table
from mlplugins.engines.base import Abilities, Engine
from mlplugins.errors import BadInput
from mlplugins.simulation import load, simulate
from tests.simulation.argon import write_campaign

NVE = {"engine": "verlet", "ensemble": "nve", "thermostat": {"kind": "langevin"}, "timestep": 2.0}


@pytest.fixture
def verlet(monkeypatch):
    """The folder `more/` beside this file, as one more place of engines."""
    monkeypatch.setattr(engines, "__path__", [*engines.__path__, str(Path(__file__).parent / "more")])
    return engines.load("verlet")


@pytest.mark.parametrize("name", ["ase", "ipi", "lammps", "verlet"])
def test_an_engine_has_every_name_of_the_contract(verlet, name):
    engine = engines.load(name)
    assert isinstance(engine.TITLE, str)
    assert isinstance(engine.ABILITIES, Abilities)
    wanted = {n: f for n, f in vars(Engine).items() if inspect.isfunction(f) and not n.startswith("_")}
    assert len(wanted) == 12
    for member, function in wanted.items():
        [_, *parameters] = inspect.signature(function).parameters
        assert list(inspect.signature(getattr(engine, member)).parameters) == parameters, member


def test_engines_are_found_by_their_folders_without_import(verlet):
    assert engines.available() == ["ase", "ipi", "lammps", "verlet"]
    with pytest.raises(BadInput, match="unknown engine 'verlett': did you mean 'verlet'"):
        engines.load("verlett")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"engine": "verlett"}, "unknown engine 'verlett': did you mean 'verlet'?"),
        ({"engine": "verlet"}, "'thermostat.kind': Verlet has no csvr; use langevin"),
        ({**NVE, "ranks": 2}, "engine verlet runs on 1 rank, got 2; use engine lammps"),
        ({**NVE, "beads": 4}, "'beads': 4 needs engine ipi, got verlet"),
        (
            {**NVE, "barostat": {"coupling": "aniso"}},
            "aniso needs engine ipi or lammps, got verlet; use iso",
        ),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(verlet, tmp_path, changes, text):
    with pytest.raises(BadInput) as refusal:
        load(write_campaign(tmp_path, **changes))
    assert text in str(refusal.value)


@pytest.mark.engine
@pytest.mark.usefixtures("warm_start")
def test_a_campaign_is_run_repeated_and_lengthened(verlet, tmp_path):
    """NVE from Python and by the command: the energy is conserved, and 60 + 40 steps are 100 steps."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    frames, energies = {}, {}
    for folder in (whole, parts):
        folder.mkdir()
        path = write_campaign(folder, **NVE, equilibration={"steps": 0}, steps=100)
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "steps": 60}))
    [outcome] = simulate(parts / "md.yaml", parts / "out")
    assert (outcome.state, outcome.step) == ("finished", 60), outcome
    for folder in (whole, parts):
        text = yaml.safe_load((folder / "md.yaml").read_text())
        (folder / "md.yaml").write_text(yaml.safe_dump({**text, "steps": 100}))
        assert main(["simulate", str(folder / "md.yaml"), "-o", str(folder / "out")]) == 0
        run = folder / "out" / "verlet" / "T0100_seed1"
        frames[folder] = np.array([frame.positions for frame in read_frames(run / "trajectory.xyz")])
        energies[folder] = table(run / "log")
        inputs = yaml.safe_load((folder / "out" / "conductivity.yaml").read_text())
        assert inputs["runs"][0]["files"] == ["verlet/T0100_seed1/trajectory.xyz"]
    assert len(frames[whole]) == 21
    np.testing.assert_allclose(frames[parts], frames[whole], rtol=0, atol=1e-9)
    total, potential = energies[whole][:, 3], energies[whole][:, 2]
    assert np.ptp(potential) > 0.05
    assert np.ptp(total) < 0.01 * np.ptp(potential)
    before = (whole / "out/verlet/T0100_seed1/trajectory.xyz").stat().st_mtime_ns
    [outcome] = simulate(whole / "md.yaml", whole / "out")
    assert outcome.state == "finished"
    assert (whole / "out/verlet/T0100_seed1/trajectory.xyz").stat().st_mtime_ns == before


def test_check_compares_it_with_the_others(verlet, tmp_path, monkeypatch):
    write_campaign(tmp_path)
    ase.io.write(tmp_path / "a.extxyz", bulk("Ar", "fcc", a=5.3, cubic=True))
    words = ["check", f"{tmp_path}/model.pt", f"{tmp_path}/a.extxyz", "--nve-steps", "0"]
    words += ["--engines", "verlet", "--json", str(tmp_path / "check.json")]
    assert main(words) == 0
    rows = json.loads((tmp_path / "check.json").read_text())["checks"]
    found = [row["name"] for row in rows if row["engine"] == "verlet"]
    assert found == ["energy = ASE", "forces = ASE", "stress = ASE"]
    right = verlet.single_points

    def strained(model, structures, way):  # by 1e-6: what parity is there to find
        moved = [atoms.copy() for atoms in structures]
        for atoms in moved:
            atoms.set_cell(atoms.cell * (1 + 1e-6), scale_atoms=True)
        return right(model, moved, way)

    monkeypatch.setattr(verlet, "single_points", strained)
    assert main(words) == 1
    rows = json.loads((tmp_path / "check.json").read_text())["checks"]
    assert {row["name"] for row in rows if not row["passed"]} >= {"energy = ASE", "stress = ASE"}


@pytest.mark.slow
@pytest.mark.engine
def test_doctor_asks_it(verlet):
    assert "Verlet" in [finding.name for finding in installation.diagnose()]
