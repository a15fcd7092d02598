import json
import lzma
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.io import write

from mlplugins import MLCalculator
from mlplugins.cli.main import main
from mlplugins.errors import BadInput
from mlplugins.model_file import artifact
from mlplugins.models import d3, zbl
from mlplugins.models.base import TrainingStatistics
from mlplugins.structures.batch import graph_of

SMALL = Path(__file__).parents[1] / "regression" / "sevennet_0130_even.pth"
TWO_HEADS = SMALL.parent / "data" / "mace_two_heads.model.xz"


def test_convert(tmp_path, capsys):
    output, record = tmp_path / "m.pt", tmp_path / "m.json"
    words = ["-o", str(output), "--json", str(record), "--dtype", "float64", "--elements", "Li", "P", "S"]
    assert main(["convert", str(SMALL), *words]) == 0
    text = capsys.readouterr().out
    assert "SevenNet (version 0.13.0), Li P S, cutoff 4.7 Å, 3 layers" in text
    assert f"{output}: nequip, float64" in text
    result = json.loads(record.read_text())
    assert result["elements"] == ["Li", "P", "S"]
    assert (result["cutoff_A"], result["layers"], result["dtype"]) == (4.7, 3, "float64")
    model = artifact.load(output)
    assert (model.dtype, model.elements) == ("float64", ("Li", "P", "S"))
    assert model.record["source"]["sha256"] == result["source"]["sha256"]


def test_default_output_and_portable(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["convert", str(SMALL), "--portable"]) == 0
    assert artifact.load(tmp_path / "model.pt").record["portable"] is True


def test_heads(tmp_path, capsys):
    path, output = tmp_path / "two.model", tmp_path / "m.pt"
    path.write_bytes(lzma.decompress(TWO_HEADS.read_bytes()))
    assert main(["convert", str(path), "-o", str(output)]) == 2
    assert "heads a, b; choose one (`mlplugins convert --head`, `base.head`" in capsys.readouterr().err
    assert main(["convert", str(path), "-o", str(output), "--head", "b", "--elements", "O"]) == 0
    assert "two.model: MACE, head 'b', O, cutoff 4 Å, 2 layers" in capsys.readouterr().out
    assert artifact.load(output).record["source"]["head"] == "b"
    assert main(["convert", str(SMALL), "-o", str(output), "--head", "b"]) == 2
    assert "task 'b' of a SevenNet of one fidelity" in capsys.readouterr().err


def test_radial_tables(tmp_path, capsys):
    exact, tables, record = (tmp_path / name for name in ("e.pt", "t.pt", "t.json"))
    words = ["convert", str(SMALL), "--dtype", "float64", "-o"]
    assert main([*words, str(exact)]) == 0
    structures = tmp_path / "s.xyz"
    write(structures, bulk("NaCl", "rocksalt", a=5.6).repeat(2))
    more = ["--radial-tables", "257", "--structures", str(structures), "--json", str(record)]
    assert main([*words, str(tables), *more]) == 0
    assert "radial tables of 257 knots: force error" in capsys.readouterr().out
    error = json.loads(record.read_text())["radial_tables"]
    assert artifact.load(tables).record["radial_tables"] == error
    atoms = bulk("NaCl", "rocksalt", a=5.4, cubic=True)
    atoms.rattle(0.1, seed=0)
    first, second = (artifact.load(path).evaluate([atoms])[0] for path in (exact, tables))
    assert 0 < np.abs(second.forces - first.forces).max() < 1e-4 * np.abs(first.forces).max()


@pytest.mark.long
def test_zbl_is_added_once(tmp_path, capsys):
    """The sum is the model and the repulsion; what it holds survives reading, other elements, tables."""
    plain, whole, part = (str(tmp_path / f"{name}.pt") for name in ("plain", "whole", "part"))
    record = tmp_path / "r.json"
    words = ["--dtype", "float64", "-o"]
    assert main(["convert", str(SMALL), *words, plain]) == 0
    assert main(["convert", str(SMALL), *words, whole, "--zbl", "0.8", "1.6", "--json", str(record)]) == 0
    assert "whole.pt: nequip + zbl (0.8 to 1.6 Å), float64" in capsys.readouterr().out
    assert json.loads(record.read_text())["parts"][1] == {"family": "zbl", "inner": 0.8, "outer": 1.6}
    tables = ["--elements", "S", "Li", "--radial-tables", "2049"]
    assert main(["convert", whole, *words, part, *tables]) == 0
    atoms = Atoms("LiSLi", positions=[[0, 0, 0], [1.2, 0, 0], [0, 2.4, 0.3]])
    repulsion = zbl.Model(["Li", "S"], zbl.Hyperparameters(0.8, 1.6))
    added = float(repulsion(graph_of(atoms, ["Li", "S"], 1.6))["energy"].detach().sum())
    energy = {path: artifact.load(path).evaluate([atoms])[0].energy for path in (plain, whole, part)}
    assert added > 1.0
    assert energy[whole] - energy[plain] == pytest.approx(added, abs=1e-10)
    assert energy[part] == pytest.approx(energy[whole], abs=1e-4)
    assert main(["convert", whole, *words, part, "--zbl"]) == 2
    assert "zbl: sevennet_0130_even.pth has a screened nuclear repulsion already" in capsys.readouterr().err
    assert main(["convert", str(SMALL), *words, part, "--zbl", "1.0"]) == 2
    assert "zbl: expected two distances, inner and outer (Å), or none, got [1.0]" in capsys.readouterr().err
    assert main(["info", whole]) == 0
    assert "nequip + zbl (0.8 to 1.6 Å)" in capsys.readouterr().out


@pytest.mark.long
def test_dispersion_is_added_once(tmp_path, capsys):
    pytest.importorskip("tad_dftd3", reason="pip install 'mlplugins[d3]'")
    plain, whole, part = (str(tmp_path / f"{name}.pt") for name in ("plain", "whole", "part"))
    words = ["--dtype", "float64", "-o"]
    assert main(["convert", str(SMALL), *words, plain]) == 0
    assert main(["convert", str(SMALL), *words, whole, "--d3", "pbe-bj", "9", "--zbl"]) == 0
    assert "nequip + zbl (to 0.7 of the covalent radii) + d3 (pbe-bj, 9 Å)" in capsys.readouterr().out
    assert main(["convert", whole, *words, part, "--elements", "S", "Li"]) == 0
    atoms = Atoms("LiSLi", positions=[[0, 0, 0], [2.2, 0, 0], [0, 2.4, 0.3]])
    term = d3.Model(["Li", "S"], d3.Hyperparameters(**d3.parameters("pbe-bj", 9.0)))
    term.initialise(TrainingStatistics(1.0, 1.0))
    added = float(term(graph_of(atoms, ["Li", "S"], 9.0))["energy"].detach().sum())
    energy = {path: artifact.load(path).evaluate([atoms])[0].energy for path in (plain, whole, part)}
    assert added < -0.01
    assert energy[whole] - energy[plain] == pytest.approx(added, abs=1e-10)
    assert energy[part] == pytest.approx(energy[whole], abs=1e-10)
    assert main(["convert", whole, *words, part, "--d3", "pbe-bj"]) == 2
    assert "d3: sevennet_0130_even.pth holds dispersion already" in capsys.readouterr().err
    shutil.copy(SMALL, tmp_path / "PBE-D3.pth")
    assert main(["convert", str(tmp_path / "PBE-D3.pth"), *words, part, "--d3", "pbe-bj"]) == 2
    assert "d3: PBE-D3.pth was trained with dispersion ('PBE-D3.pth')" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["pbe-bj", "x"], ["pbe-bj", "1", "2"]])
def test_what_follows_the_functional_is_a_cutoff(tmp_path, capsys, words):
    assert main(["convert", str(SMALL), "-o", str(tmp_path / "m.pt"), "--d3", *words]) == 2
    assert "d3: expected a functional with its damping and perhaps a cutoff (Å)" in capsys.readouterr().err


def test_the_format_is_found_by_content(tmp_path):
    shutil.copy(SMALL, tmp_path / "anything.model")
    assert main(["convert", str(tmp_path / "anything.model"), "-o", str(tmp_path / "m.pt")]) == 0


def test_wrong_files_are_refused(tmp_path, capsys):
    output = tmp_path / "m.pt"
    bad = tmp_path / "bad.pth"

    def refused(text):
        assert main(["convert", str(bad), "-o", str(output)]) == 2
        assert text in capsys.readouterr().err
        assert not output.exists()

    refused("no such file")
    bad.write_bytes(SMALL.read_bytes()[:5000])
    refused("not a checkpoint of torch.save, or truncated")
    torch.save({"weights": torch.ones(3)}, bad)
    refused("not a checkpoint of a known format (exported, mace, nequip, nequip06, nequix, sevennet")
    torch.save({"family": "nequip", "format": 1, "hyperparameters": {}}, bad)
    refused("use `mlplugins export`")


def test_a_malicious_checkpoint_is_refused(tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    # with the words of a SevenNet checkpoint, so that its reader takes it
    content = {"model_state_dict": {}, "config": {"_type_map": {}, "chemical_species": [Evil()]}}
    with zipfile.ZipFile(tmp_path / "evil.pth", "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(content, protocol=2))
    assert main(["convert", str(tmp_path / "evil.pth"), "-o", str(tmp_path / "m.pt")]) == 2
    assert "system', which this reader does not know; nothing of it was executed" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()


@pytest.mark.long
def test_a_model_of_ours_is_converted_too(tmp_path, capsys):
    """To fewer elements, another precision; with tables it goes back to the networks."""
    assert main(["convert", str(SMALL), "-o", str(tmp_path / "m.pt"), "--dtype", "float64"]) == 0
    words = ["convert", str(tmp_path / "m.pt"), "-o", str(tmp_path / "n.pt")]
    assert main([*words, "--elements", "Cl,Na", "--dtype", "float64"]) == 0
    model = artifact.load(tmp_path / "n.pt")
    assert model.elements == ("Cl", "Na")
    assert model.record["source"]["file"] == SMALL.name
    atoms = bulk("NaCl", "rocksalt", a=5.4, cubic=True)
    atoms.rattle(0.1, seed=0)
    first, second = (artifact.load(tmp_path / name).evaluate([atoms])[0] for name in ("m.pt", "n.pt"))
    assert second.energy == pytest.approx(first.energy, rel=1e-13)
    np.testing.assert_allclose(second.forces, first.forces, rtol=0, atol=1e-13)
    assert main([*words, "--radial-tables", "64"]) == 0
    assert "radial tables of 64 knots: force error" in capsys.readouterr().out
    words = ["convert", str(tmp_path / "n.pt"), "-o", str(tmp_path / "o.pt")]
    assert main([*words, "--dtype", "float64"]) == 0
    third = artifact.load(tmp_path / "o.pt").evaluate([atoms])[0]
    np.testing.assert_allclose(third.forces, first.forces, rtol=0, atol=1e-13)
    assert main(["info", str(tmp_path / "n.pt")]) == 0
    assert "tables of 64 knots: force error" in capsys.readouterr().out


def test_a_program_is_not_a_checkpoint(tmp_path, capsys):
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / "m.pt"))
    assert main(["convert", str(tmp_path / "m.pt"), "-o", str(tmp_path / "n.pt")]) == 2
    assert "a TorchScript program that is no metatomic model" in capsys.readouterr().err


def test_elements_that_the_model_lacks(tmp_path, capsys):
    words = ["convert", str(SMALL), "-o", str(tmp_path / "m.pt"), "--elements", "Li", "Uuo"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "Uuo" in error
    assert "knows C Cl H Li" in error


def test_an_element_that_was_filtered_out_is_refused(tmp_path):
    """Neither ignored nor taken for another one."""
    assert main(["convert", str(SMALL), "-o", str(tmp_path / "m.pt"), "--elements", "O", "H"]) == 0
    atoms = Atoms("OHNa", positions=[[0, 0, 0], [0, 0, 1], [0, 2, 0]])
    atoms.calc = MLCalculator(tmp_path / "m.pt")
    with pytest.raises(BadInput, match=r"Na"):
        atoms.get_potential_energy()


def test_what_cannot_be_meant_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(SMALL, "c.pth")
    write("salt.xyz", bulk("NaCl", "rocksalt", a=5.6))
    tables = ["--radial-tables", "64", "--structures", "salt.xyz"]
    for words, text in (
        (["c.pth", "-o", "c.pth"], "an input, which would be overwritten"),
        (["c.pth", "-o", "."], "-o .: a folder"),
        (["c.pth", "-o", "c.pth/m.pt"], "-o c.pth/m.pt: cannot be written"),
        (["--elements", "Li", "c.pth"], "no checkpoint named; it comes first: mlplugins convert FILE"),
        (["c.pth", *tables[2:], "--radial-tables", "off"], "--structures: only radial tables are measured"),
        (["c.pth", *tables[2:], "--dtype", "float64"], "--structures: only radial tables are measured on"),
        (["c.pth", "--radial-tables", "of"], "expected a number of knots or 'off', got 'of'"),
        (["c.pth", *tables, "--elements", "Na"], "salt.xyz, frame 0 holds Cl; the model to be written"),
    ):
        assert main(["convert", *words]) == 2
        assert text in capsys.readouterr().err
    assert Path("c.pth").read_bytes() == SMALL.read_bytes()
    assert main(["convert", "c.pth", "-o", "c.pt", *tables, "--elements", "Na", "Cl"]) == 0


@pytest.mark.parametrize("words", [["--dtype", "float16"], ["--elements"]])
def test_wrong_words(words, capsys):
    assert main(["convert", str(SMALL), *words]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"mlplugins: error: argument {words[0]}: ")
    assert "see `mlplugins convert --help`" in message
