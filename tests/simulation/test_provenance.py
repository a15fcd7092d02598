"""How the runs were made: what `simulate` knows reaches the report."""

import yaml

from mlplugins.analysis.study import load as load_study
from mlplugins.simulation import campaign as campaigns
from mlplugins.simulation.config import load, load_all
from mlplugins.simulation.plan import conductivity_inputs, plan
from mlplugins.simulation.provenance import _errors

from .test_plan import write_campaign


def made(tmp_path, **keys):
    campaign = plan(load(write_campaign(tmp_path, **keys)), tmp_path)
    files = [[run.directory / "a.dump"] for run in campaign.runs]
    return yaml.safe_load(conductivity_inputs(campaign, files, tmp_path, "2026-11-30"))["dynamics"]


def test_all_that_a_referee_asks_for(tmp_path):
    found = made(tmp_path, seeds=[1, 2], supercell=[2, 1, 1], timestep=4.0, dump_interval=5, steps=1000)
    assert found["structure"].startswith("Ar")
    assert "2 × 1 × 1 cells of the file" in found["structure"]
    assert found["potential"] == "model.pt: lennard-jones, cutoff 5 Å, float64"
    assert found["test errors of the potential"] == "not recorded in the model"
    assert found["engine"] == "LAMMPS"
    assert found["ensemble"] == "NVT; csvr thermostat, 100 fs"
    assert found["time step"] == "4 fs, a frame every 20 fs"
    assert found["length of a run"].startswith("1000 steps (4 ps) after ")
    assert found["seeds"] == "1, 2 at each temperature"
    assert found["begun"] == "2026-11-30"


def test_other_ensembles(tmp_path):
    npt = made(
        tmp_path, ensemble="npt", pressure=0.1, thermostat={"kind": "nose-hoover", "time_constant": 50}
    )
    assert npt["ensemble"] == "NPT; nose-hoover thermostat, 50 fs; iso barostat, 1000 fs, 0.1 GPa"
    nve = made(tmp_path, ensemble="nve", equilibration={"steps": 0})
    assert nve["ensemble"] == "NVE"
    assert nve["length of a run"].endswith("after no equilibration")


def test_errors_of_the_frames_that_were_not_fitted():
    energy, forces = {"rmse_meV_per_atom": 2.9}, {"rmse_meV_per_A": 78.04}
    errors = {
        "train": {"n_structures": 34, "energy": energy, "forces": forces},
        "test": {"n_structures": 9, "energy": energy, "forces": forces},
    }
    assert _errors(errors) == "RMSE of energy 2.9 meV/atom, forces 78 meV/Å (9 test structures)"
    validation = {"validation": {"n_structures": 4, "energy": None, "forces": forces}}
    assert _errors(validation) == "RMSE of forces 78 meV/Å (4 validation structures)"
    assert _errors({"train": errors["train"]}) == "not recorded in the model"


def test_of_several_engines_and_with_the_first_date(tmp_path):
    """The analysis reads the file; a second call of the same campaign keeps the date of the first."""
    path = write_campaign(tmp_path, engine=["lammps", "ase"], temperatures=[60], seeds=[1])
    planned = [plan(config, tmp_path / "out") for config in load_all(path)]
    for campaign in planned:
        campaigns.write(campaign)
    campaigns.write_together(planned)
    whole = tmp_path / "out" / "conductivity.yaml"
    assert load_study(whole).dynamics["engine"] == "LAMMPS; ASE"
    single = tmp_path / "out" / "lammps" / "conductivity.yaml"
    day = yaml.safe_load(single.read_text(encoding="utf-8"))["dynamics"]["begun"]
    single.write_text(single.read_text(encoding="utf-8").replace(day, "2020-02-02"), encoding="utf-8")
    campaigns.write(planned[0])
    assert yaml.safe_load(single.read_text(encoding="utf-8"))["dynamics"]["begun"] == "2020-02-02"
