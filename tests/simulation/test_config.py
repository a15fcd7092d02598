from pathlib import Path

import numpy as np
import pytest
import yaml

from mlplugins.errors import BadInput
from mlplugins.simulation.config import load, load_all

MINIMAL = {"model": "m.pt", "structure": "sub/a.cif@3", "temperatures": 600, "steps": 100}


def _load(tmp_path: Path, override=None, **changes):
    path = tmp_path / "md.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, **changes}))
    return load(path, override)


def test_defaults_and_paths_relative_to_the_file(tmp_path):
    config = _load(tmp_path)
    assert (config.engine, config.ensemble, config.thermostat.kind) == ("lammps", "nvt", "csvr")
    assert config.temperatures == [600.0]
    assert config.model == tmp_path / "m.pt"
    assert config.structure == str(tmp_path / "sub/a.cif@3")
    assert config.total_steps == 1100


def test_the_content_is_taken_as_it_stands():
    """Paths relative to the working directory, numpy's numbers and paths as Python has them."""
    content = {
        **MINIMAL,
        "model": Path("m.pt"),
        "temperatures": np.arange(300, 500, 100),
        "engine": ["ase", "ipi"],
    }
    configs = load_all(content)
    assert [config.engine for config in configs] == ["ase", "ipi"]
    for config in configs:
        assert (config.model, config.structure) == (Path("m.pt"), "sub/a.cif@3")
        assert config.temperatures == [300.0, 400.0]
    with pytest.raises(BadInput, match="^configuration: unknown key 'step': did you mean 'steps'"):
        load({**MINIMAL, "step": 5})


def test_engine_of_the_command_line_wins(tmp_path):
    assert _load(tmp_path, "ase", engine="ipi").engine == "ase"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"temperaturs": [300]}, "unknown key 'temperaturs': did you mean 'temperatures'?"),
        ({"equilibration": {"step": 5}}, "unknown key 'equilibration.step': did you mean 'steps'?"),
        ({"mobile": {"species": "Li", "charge": 1, "ion": 2}}, "unknown key 'mobile.ion'"),
        ({"thermostat": {"kind": "bussi"}}, "'thermostat.kind': input should be 'csvr'"),
        ({"timestep": "fast"}, "'timestep': input should be a valid number"),
        ({"timestep": float("nan")}, "'timestep'"),
        ({"steps": 0}, "'steps'"),
        ({"temperatures": []}, "'temperatures'"),
        ({"temperatures": [300, 300]}, "'temperatures' holds a value twice"),
        ({"seeds": [0]}, "'seeds.0'"),
        ({"steps": 5}, "no frame would be written"),
        ({"engine": "ase", "ranks": 2}, "engine ase runs on 1 rank, got 2"),
        ({"engine": "ipi", "thermostat": {"kind": "nose-hoover"}}, "i-PI has no nose-hoover"),
        (
            {"engine": "ase", "barostat": {"coupling": "aniso"}},
            "aniso needs engine ipi or lammps, got ase",
        ),
        ({"engine": "gromacs"}, "'engine'"),
    ],
)
def test_refusals_name_the_key(tmp_path, changes, text):
    with pytest.raises(BadInput) as refusal:
        _load(tmp_path, **changes)
    assert text in str(refusal.value)
    assert "md.yaml" in str(refusal.value)


def test_all_mistakes_are_named_at_once(tmp_path):
    path = tmp_path / "md.yaml"
    path.write_text("model: m.pt\nstructure: a.cif\ntemperatures: 1\nstepz: 4\n")
    with pytest.raises(BadInput, match=r"missing key 'steps'.*unknown key 'stepz'"):
        load(path)


@pytest.mark.parametrize("text", ["[1, 2", "- a\n- b\n", ""])
def test_not_a_mapping(tmp_path, text):
    path = tmp_path / "md.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match="not valid YAML|expected a mapping with keys"):
        load(path)


def test_no_file(tmp_path):
    with pytest.raises(BadInput, match="no such configuration file"):
        load(tmp_path / "none.yaml")


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"pressure": NAN}, "'pressure'"),
        ({"pressure": INF}, "'pressure'"),
        ({"pressure": 101325}, "'pressure': 101325 GPa; expected at most 10000 GPa (1 bar = 1e-4 GPa)"),
        ({"timestep": 0.002}, "'timestep': 0.002 fs; expected 0.01 to 1000 fs"),
        ({"timestep": INF}, "'timestep'"),
        ({"timestep": True}, "'timestep': expected a number, got true"),
        ({"temperatures": True}, "expected a number, got true"),
        ({"temperatures": [300, True]}, "'temperatures.1': expected a number, got true"),
        ({"temperatures": [0]}, "'temperatures.0'"),
        ({"temperatures": [-300]}, "'temperatures.0'"),
        ({"temperatures": [NAN]}, "'temperatures.0'"),
        ({"temperatures": [1e9]}, "'temperatures': 1e+09 K; expected 0.001 to 1e+06 K"),
        ({"temperatures": [300, 300.0001]}, "would share the folder T0300"),
        ({"temperatures": [300, 300.0]}, "holds a value twice"),
        ({"temperatures": ["hot"]}, "'temperatures.0': input should be a valid number"),
        ({"seeds": True}, "expected a number, got true"),
        ({"seeds": [900_000_001]}, "'seeds.0'"),
        ({"steps": True}, "'steps': expected a number, got true"),
        ({"steps": 10**40}, "'steps'"),
        ({"steps": 100.5}, "'steps'"),
        ({"dump_interval": 0}, "'dump_interval'"),
        ({"equilibration": {"steps": -1}}, "'equilibration.steps'"),
        ({"thermostat": {"time_constant": NAN}}, "'thermostat.time_constant'"),
        ({"barostat": {"time_constant": 0}}, "'barostat.time_constant'"),
        ({"mobile": {"species": "Li", "charge": NAN}}, "'mobile.charge'"),
        ({"mobile": {"species": "Li", "charge": 0}}, "'mobile.charge': expected the ion's charge in e"),
        ({"mobile": {"species": "Li", "charge": True}}, "'mobile.charge': expected a number, got true"),
        ({"beads": 8}, "'beads': 8 needs engine ipi, got lammps"),
        ({"engine": "ipi", "thermostat": {"kind": "pile"}}, "needs 'beads' of 2 or more"),
        ({"engine": "ase", "barostat": {"coupling": "flexible"}}, "flexible needs engine ipi or lammps"),
        ({"velocities": "warm"}, "'velocities'"),
        ({"supercell": [1, 1, True]}, "'supercell.2': expected a number, got true"),
    ],
)
def test_numbers_that_mean_nothing(tmp_path, changes, text):
    with pytest.raises(BadInput) as refusal:
        _load(tmp_path, **changes)
    assert text in str(refusal.value)


def test_numbers_as_people_write_them(tmp_path):
    """YAML 1.1 reads 1e5 as a word."""
    path = tmp_path / "md.yaml"
    path.write_text("model: m.pt\nstructure: a.cif\ntemperatures: 1e3\nsteps: 1e5\ntimestep: 5e-1\n")
    config = load(path)
    assert (config.temperatures, config.steps, config.timestep) == ([1000.0], 100_000, 0.5)


@pytest.mark.parametrize("engine", [[{"a": 1}], [["lammps"]], [], ["lammps", "lammps"], 3])
def test_engines_that_are_none(tmp_path, engine):
    path = tmp_path / "md.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, "engine": engine}))
    with pytest.raises(BadInput, match="'engine'"):
        load_all(path)
