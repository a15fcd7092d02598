import ase.io
import pytest
import yaml
from ase.build import bulk, molecule

from mlplugins.analysis.study import Config
from mlplugins.dynamics.start import read_structure
from mlplugins.errors import BadInput
from mlplugins.simulation import campaign as campaigns
from mlplugins.simulation.config import load, load_all
from mlplugins.simulation.plan import conductivity_inputs, plan

from .argon import write_campaign


def test_every_temperature_with_every_seed(tmp_path):
    path = write_campaign(tmp_path, temperatures=[80, 1000.5], seeds=[1, 7], supercell=[1, 1, 2])
    campaign = plan(load(path), tmp_path / "out")
    assert [run.name for run in campaign.runs] == [
        "T0080_seed1",
        "T0080_seed7",
        "T1000.5_seed1",
        "T1000.5_seed7",
    ]
    assert campaign.runs[0].directory == tmp_path / "out/lammps/T0080_seed1"
    assert len(campaign.runs[0].atoms) == 64
    assert not (tmp_path / "out").exists()


def test_the_inputs_of_the_analysis_are_what_it_reads(tmp_path):
    campaign = plan(load(write_campaign(tmp_path, temperatures=[80, 90])), tmp_path)
    files = [[run.directory / "a.dump"] for run in campaign.runs]
    content = Config.model_validate(yaml.safe_load(conductivity_inputs(campaign, files, tmp_path)))
    assert (content.species, content.charge) == ("Ar", 1.0)
    assert [(run.temperature, run.timestep, run.interval) for run in content.runs] == [(80, 4, 5), (90, 4, 5)]
    assert content.runs[1].files == ["lammps/T0090_seed1/a.dump"]


def test_without_a_mobile_ion_the_file_says_so(tmp_path):
    campaign = plan(load(write_campaign(tmp_path, mobile=None)), tmp_path)
    text = conductivity_inputs(campaign, [[campaign.runs[0].directory / "a.dump"]], tmp_path)
    assert "name the ion that moves" in text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"structure": "none.cif"}, "no such structure file"),
        ({"structure": "argon.extxyz@9"}, "ASE cannot read it"),
        ({"model": "none.pt"}, "no such model file"),
        ({"mobile": {"species": "Li", "charge": 1}}, "'mobile.species': 'Li' is not in the structure"),
        ({"structure": "nacl.extxyz"}, "holds Cl, Na, which 'model.pt' does not know; it knows Ar"),
        ({"structure": "molecule.xyz", "ensemble": "npt"}, "periodic in three directions"),
        ({"structure": "molecule.xyz", "supercell": [2, 1, 1]}, "not periodic"),
        ({"structure": "one.extxyz"}, "one atom has no temperature"),
    ],
)
def test_refused_before_computing(tmp_path, changes, text):
    path = write_campaign(tmp_path, **changes)
    ase.io.write(tmp_path / "nacl.extxyz", bulk("NaCl", "rocksalt", a=5.6))
    pair = molecule("O2")
    pair.symbols = "Ar2"
    ase.io.write(tmp_path / "molecule.xyz", pair)
    ase.io.write(tmp_path / "one.extxyz", bulk("Ar", "fcc", a=5.3))
    with pytest.raises(BadInput, match=text):
        plan(load(path), tmp_path / "out")


def test_the_last_frame_is_the_default(tmp_path):
    frames = [bulk("Ar", "fcc", a=a) for a in (5.2, 5.3, 5.4)]
    ase.io.write(tmp_path / "a.extxyz", frames)
    assert read_structure(str(tmp_path / "a.extxyz")).cell == pytest.approx(frames[2].cell)
    assert read_structure(str(tmp_path / "a.extxyz@1")).cell == pytest.approx(frames[1].cell)


def test_several_engines_from_one_file(tmp_path):
    """Every temperature and seed in each engine; one conductivity.yaml pools them."""
    path = write_campaign(tmp_path, engine=["lammps", "ase"], temperatures=[60, 100], seeds=[1, 2])
    configs = load_all(path)
    assert [config.engine for config in configs] == ["lammps", "ase"]
    assert [config.engine for config in load_all(path, "ipi")] == ["ipi"]
    planned = [plan(config, tmp_path / "out") for config in configs]
    campaigns.write_together(planned)
    together = yaml.safe_load((tmp_path / "out" / "conductivity.yaml").read_text())
    files = [run["files"][0] for run in together["runs"]]
    assert len(files) == 8
    assert files[0] == "lammps/T0060_seed1/trajectory.lammpstrj"
    assert files[-1] == "ase/T0100_seed2/trajectory.traj"
    write_campaign(tmp_path, engine=["lammps", "lammps"])
    with pytest.raises(BadInput, match="expected engines, each once"):
        load_all(path)
