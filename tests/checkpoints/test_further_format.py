"""A checkpoint format is one file: a further one is recognised, converted and refused by it alone."""

import json
import sys
from pathlib import Path

import pytest
from ase import Atoms

import mlplugins
from mlplugins import MLCalculator, checkpoints
from mlplugins.cli.main import main
from mlplugins.errors import BadInput

CONTENT = {"pair_json": 2, "cutoff": 12.0, "pairs": {"Ne": [0.003, 2.8, -1.5], "Ar": [0.0104, 3.4, 2.25]}}
"""ε (eV), σ (Å) and the energy of the isolated atom (eV)."""


@pytest.fixture
def file(monkeypatch, tmp_path):
    """A file of the format in the folder `more/` beside this file, which is one more place of formats."""
    monkeypatch.setattr(checkpoints, "__path__", [*checkpoints.__path__, str(Path(__file__).parent / "more")])
    (tmp_path / "a.json").write_text(json.dumps(CONTENT))
    yield tmp_path / "a.json"
    sys.modules.pop(f"{checkpoints.__name__}.pair_json", None)
    vars(checkpoints).pop("pair_json", None)


def test_it_is_converted_by_its_content(file, tmp_path, capsys):
    assert "pair-json" in checkpoints.formats()
    output = tmp_path / "m.pt"
    assert main(["convert", str(file), "-o", str(output), "--dtype", "float64"]) == 0
    assert "a.json: pair_json (version 2), Ne Ar, cutoff 12 Å" in capsys.readouterr().out
    for r in (3.1, 3.5, 4.4):
        dimer = Atoms("NeAr", [[0, 0, 0], [0, 0, r]])
        epsilon, x6 = (0.003 * 0.0104) ** 0.5, (3.1 / r) ** 6
        expected = 4 * epsilon * (x6**2 - x6) - 1.5 + 2.25
        energy = MLCalculator(output).get_property("energy", dimer)
        assert energy == pytest.approx(expected, abs=1e-12)
    assert mlplugins.info(output)["record"]["source"]["format"] == "pair_json"


def test_elements_are_kept_and_refused_as_in_every_format(file, tmp_path):
    record = mlplugins.convert(file, tmp_path / "m.pt", elements=["Ar"])
    assert (record["family"], record["elements"]) == ("lennard-jones", ["Ar"])
    with pytest.raises(BadInput, match="elements Kr: expected different symbols that the model knows"):
        checkpoints.read(file, ["Kr"])
    with pytest.raises(BadInput, match="a format without heads"):
        checkpoints.read(file, head="pbe")


def test_a_damaged_file_is_refused_by_name(file):
    file.write_text(json.dumps({**CONTENT, "pairs": {"Ne": [0.003, 2.8]}}))
    with pytest.raises(BadInput, match=r"a\.json: not an intact file of pair_json"):
        checkpoints.read(file)
