import json

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from mlplugins.cli.main import main
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones


@pytest.fixture
def model(tmp_path):
    potential = lennard_jones.Model(
        ["Ar"], lennard_jones.Hyperparameters(epsilon=0.05, sigma=3.4, cutoff=6.0)
    )
    save(potential, tmp_path / "model.pt", ModelCard("lennard-jones", ["Ar"], [-2.0]), "float64")
    return tmp_path / "model.pt"


def dimer(r: float, energy_shift: float = 0.0, force_shift: float = 0.0) -> Atoms:
    """Dimer whose labels are off the model's (within the plain range, r < 4.8 Å) by known amounts."""
    atoms = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, r]])
    x6 = (3.4 / r) ** 6
    energy = 4 * 0.05 * (x6 * x6 - x6) - 4.0
    slope = 4 * 0.05 * (-12 * x6 * x6 + 6 * x6) / r
    forces = np.array([[0, 0, slope], [0, 0, -slope]]) + force_shift
    atoms.calc = SinglePointCalculator(atoms, energy=energy + energy_shift, forces=forces)
    return atoms


def evaluate(tmp_path, *words) -> dict:
    assert main(["evaluate", *map(str, words), "--json", str(tmp_path / "e.json")]) == 0
    return json.loads((tmp_path / "e.json").read_text())


def test_errors_are_the_known_offsets(model, tmp_path):
    write(tmp_path / "a.extxyz", [dimer(3.7, 0.02, 0.1), dimer(4.1, -0.06, -0.3)])
    result = evaluate(tmp_path, model, tmp_path / "a.extxyz")
    assert set(result) == {"n_structures", "energy", "forces", "stress"}
    assert result["n_structures"] == 2
    assert result["stress"] is None
    energy, forces = result["energy"], result["forces"]
    assert energy["mae_meV_per_atom"] == pytest.approx(20.0, abs=1e-4)
    assert energy["rmse_meV_per_atom"] == pytest.approx(np.sqrt((10**2 + 30**2) / 2), abs=1e-4)
    assert forces["mae_meV_per_A"] == pytest.approx(200.0, abs=1e-4)
    assert forces["rmse_meV_per_A"] == pytest.approx(np.sqrt((100**2 + 300**2) / 2), abs=1e-4)


def test_several_files_and_a_picture(model, tmp_path, capsys, drawn):
    write(tmp_path / "a.extxyz", [dimer(3.7, 0.02)])
    write(tmp_path / "b.extxyz", [dimer(3.9), dimer(4.0)])
    picture = tmp_path / "new" / "parity.png"
    files = [tmp_path / "a.extxyz", tmp_path / "b.extxyz"]
    result = evaluate(tmp_path, model, *files, "--plot", picture)
    assert result["n_structures"] == 3
    assert result["energy"]["mae_meV_per_atom"] == pytest.approx(10.0 / 3, abs=1e-4)
    assert result["files"][str(files[1])]["energy"]["mae_meV_per_atom"] == pytest.approx(0.0, abs=1e-4)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "meV/atom" in capsys.readouterr().out


@pytest.mark.long
def test_numbers_equal_those_of_the_training_run(li6ps5cl, tmp_path):
    """A failure means that the exported model is not the trained one, or that the two report other errors."""
    config = tmp_path / "c.yaml"
    config.write_text(
        f"data: {{train: '{li6ps5cl}/train.extxyz@:6', validation: 0.2, test: {li6ps5cl}/test.extxyz}}\n"
        "model: {family: nequip, cutoff: 4.0, num_layers: 2, num_features: 4, radial_mlp: [8]}\n"
        "training: {epochs: 1, batch_size: 2, dtype: float64, devices: 1}\n"
    )
    assert main(["train", str(config), "-o", str(tmp_path / "run")]) == 0
    expected = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]
    result = evaluate(tmp_path, tmp_path / "run" / "model.pt", li6ps5cl / "test.extxyz")
    assert result["n_structures"] == expected["n_structures"] == 9
    for quantity in ("energy", "forces", "stress"):
        assert result[quantity] == pytest.approx(expected[quantity], rel=1e-6)


def test_key_mapping_and_energies_alone(model, tmp_path):
    atoms = dimer(3.8, 0.03)
    atoms.info["E_ref"] = atoms.get_potential_energy()
    atoms.calc = None
    write(tmp_path / "a.extxyz", atoms)
    result = evaluate(tmp_path, model, tmp_path / "a.extxyz", "--keys", "energy=E_ref")
    assert result["energy"]["mae_meV_per_atom"] == pytest.approx(15.0, abs=1e-4)
    assert result["forces"] is None


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--keys", "enrgy=E"], "unknown label 'enrgy': did you mean 'energy'?"),
        (["--keys", "energy"], "expected LABEL=NAME, got 'energy'"),
        (
            ["--keys", "energy=E0"],
            "frame 0: no energy (looked for key 'E0'); the frame holds: energy, forces",
        ),
        (["--device", "gpu"], "device"),
    ],
)
def test_wrong_use_is_refused(model, tmp_path, capsys, words, text):
    write(tmp_path / "a.extxyz", [dimer(3.7)])
    assert main(["evaluate", str(model), str(tmp_path / "a.extxyz"), *words]) == 2
    assert text in capsys.readouterr().err


def test_foreign_element_and_missing_files(model, tmp_path, capsys):
    atoms = dimer(3.7)
    atoms.symbols[0] = "Kr"
    write(tmp_path / "a.extxyz", atoms)
    assert main(["evaluate", str(model), str(tmp_path / "a.extxyz")]) == 2
    assert "a.extxyz, frame 0: the model does not know Kr; it knows Ar" in capsys.readouterr().err
    assert main(["evaluate", str(model), str(tmp_path / "nowhere.xyz")]) == 2
    assert "no such data file" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "nowhere.pt"), str(tmp_path / "a.extxyz")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert read(tmp_path / "a.extxyz").symbols[0] == "Kr"


def mixture(shift_ar: float, shift_kr: float, kind: str) -> Atoms:
    """Argon and krypton far apart, whose forces are labelled off the model's zero by known amounts."""
    atoms = Atoms("ArKr", positions=[[0, 0, 0], [0, 0, 40.0]])
    forces = np.array([[shift_ar] * 3, [shift_kr] * 3])
    atoms.calc = SinglePointCalculator(atoms, energy=-5.0, forces=forces)
    atoms.info["config_type"] = kind
    return atoms


@pytest.fixture
def noble(tmp_path):
    potential = lennard_jones.Model(["Ar", "Kr"], lennard_jones.Hyperparameters(epsilon=0.05, sigma=3.4))
    save(potential, tmp_path / "noble.pt", ModelCard("lennard-jones", ["Ar", "Kr"], [-2.0, -3.0]), "float64")
    return tmp_path / "noble.pt"


def test_errors_per_element_and_config_type(noble, tmp_path, capsys):
    write(tmp_path / "a.extxyz", [mixture(0.01, 0.02, "gas"), mixture(0.03, 0.04, "melt")])
    result = evaluate(tmp_path, noble, tmp_path / "a.extxyz")
    elements = {z: row["forces"]["mae_meV_per_A"] for z, row in result["elements"].items()}
    assert elements == pytest.approx({"Ar": 20.0, "Kr": 30.0})
    kinds = {kind: row["forces"]["mae_meV_per_A"] for kind, row in result["config_types"].items()}
    assert kinds == pytest.approx({"gas": 15.0, "melt": 35.0})
    text = capsys.readouterr().out
    assert "config_type melt" in text
    assert "errors per element of forces in meV/Å" in text


def test_predictions_beside_labels(noble, tmp_path):
    """Under other names than labels have, so that neither ASE nor our reader takes one for the other."""
    source, target = tmp_path / "a.extxyz", tmp_path / "predicted.extxyz"
    write(source, [mixture(0.01, 0.02, "gas"), mixture(0.03, -0.04, "melt")])
    result = evaluate(tmp_path, noble, source, "-o", target)
    first, last = read(target, ":")
    assert first.calc is None
    assert first.info["config_type"] == "gas"
    assert first.info["REF_energy"] == first.info["predicted_energy"] == -5.0
    assert np.allclose(last.arrays["REF_forces"], [[0.03] * 3, [-0.04] * 3], rtol=0, atol=1e-8)
    assert np.allclose(last.arrays["predicted_forces"], 0.0, rtol=0, atol=1e-8)
    again = evaluate(tmp_path, noble, target)  # the labels are recognised, the predictions are none
    assert again["forces"]["mae_meV_per_A"] == pytest.approx(result["forces"]["mae_meV_per_A"], abs=1e-4)
    assert result["forces"]["mae_meV_per_A"] > 10
