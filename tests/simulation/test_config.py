from pathlib import Path

import pytest
import yaml

from mlplugins.errors import BadInput
from mlplugins.simulation.config import load

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
        ({"engine": "ase", "barostat": {"coupling": "aniso"}}, "aniso needs engine lammps"),
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
