import json

import ase.io
import numpy as np
import pytest
from ase.build import bulk

from mlplugins.cli.main import main
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones


@pytest.fixture
def data(tmp_path):
    """Eight nearly equal crystals, and two that are unlike them and each other."""
    frames = []
    for k in range(8):
        atoms = bulk("Ar", cubic=True, a=5.3)
        atoms.rattle(0.01, seed=k)
        atoms.info["dft_energy"] = -0.1 * k
        atoms.arrays["dft_forces"] = atoms.positions - k
        frames.append(atoms)
    frames += [bulk("Ar", cubic=True, a=4.6), bulk("Ar", "bcc", a=4.0, cubic=True) * (1, 1, 2)]
    path = tmp_path / "data.extxyz"
    ase.io.write(path, frames)
    return path


@pytest.mark.parametrize("method", ["fps", "cur"])
def test_unlike_structures_are_chosen_first(data, tmp_path, method):
    output, report = tmp_path / "subset.extxyz", tmp_path / "report.json"
    assert (
        main(["select", str(data), "-n", "3", "--method", method, "-o", str(output), "--json", str(report)])
        == 0
    )
    chosen = json.loads(report.read_text())["chosen"]
    assert {8, 9} < set(chosen)
    frames = ase.io.read(data, ":")
    for atoms, k in zip(ase.io.read(output, ":"), chosen, strict=True):
        np.testing.assert_allclose(atoms.positions, frames[k].positions, atol=1e-7)
        assert atoms.info == frames[k].info
        assert set(atoms.arrays) == set(frames[k].arrays)


def test_the_input_is_not_overwritten(data, capsys):
    before = data.read_bytes()
    assert main(["select", f"{data}@::2", "-n", "2", "-o", str(data)]) == 2
    assert "an input, which would be overwritten" in capsys.readouterr().err
    assert data.read_bytes() == before


def test_committee_finds_the_strained_structure(data, tmp_path, capsys):
    models = []
    for epsilon in (0.010, 0.012):
        path = tmp_path / f"{epsilon}.pt"
        potential = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters(epsilon=epsilon))
        save(potential, path, ModelCard("lennard-jones", ["Ar"], [0.0]), "float64")
        models.append(str(path))
    frames = ase.io.read(data, ":")
    frames[8].rattle(0.1, seed=1)
    ase.io.write(data, frames)
    report = tmp_path / "report.json"
    words = ["select", str(data), "-n", "1", "--method", "uncertainty", "--model", *models]
    assert main([*words, "-o", str(tmp_path / "x.extxyz"), "--json", str(report)]) == 0
    assert json.loads(report.read_text())["chosen"] == [8]
    words[-1] = models[0]
    assert main([*words, "-o", str(tmp_path / "x.extxyz")]) == 2
    assert "copies of one model? Then the spread, which is zero, is no uncertainty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-n", "11"], "there are only 10 structures"),
        (["-n", "0"], "expected 1 or more"),
        (["-n", "2", "--method", "uncertainty"], "go together"),
        (["-n", "2", "--cutoff", "-1"], "expected a length"),
    ],
)
def test_wrong_use_is_refused(data, tmp_path, capsys, words, text):
    assert main(["select", str(data), *words, "-o", str(tmp_path / "x.extxyz")]) == 2
    assert text in capsys.readouterr().err


def test_model_without_uncertainty_is_refused(data, tmp_path, capsys):
    path = tmp_path / "lj.pt"
    save(
        lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters()),
        path,
        ModelCard("lennard-jones", ["Ar"], [0.0]),
        "float64",
    )
    words = ["select", str(data), "-n", "1", "--method", "uncertainty", "--model", str(path)]
    assert main([*words, "-o", str(tmp_path / "x.extxyz")]) == 2
    assert "predicts no uncertainty" in capsys.readouterr().err
