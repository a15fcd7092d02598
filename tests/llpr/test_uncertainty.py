"""`mlplugins uncertainty`: the same energies, and standard deviations that the held-out errors calibrate."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

import mlplugins
from mlplugins.cli.main import main
from mlplugins.errors import BadInput
from mlplugins.model_file.artifact import load
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones, nequip
from mlplugins.models.capabilities import predicts_variance
from mlplugins.structures import dataset, validation
from mlplugins.training.finetune import base_reader
from tests import pictures
from tests.training.argon import argon

PARAMETERS = {"cutoff": 5.5, "num_layers": 1, "num_features": 4, "num_basis": 4, "radial_mlp": [8]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network of argon, nearly the one labelled with, and frames for the posterior and the calibration."""
    folder = tmp_path_factory.mktemp("uncertainty")
    write(folder / "train.extxyz", argon(12, 1))
    write(folder / "held.extxyz", argon(12, 2))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        potential = nequip.Model(["Ar", "Kr"], nequip.Hyperparameters(**PARAMETERS))
    potential.average_neighbors.fill_(40.0)
    potential.energy_scale.fill_(0.05)
    train = dataset.read(folder / "train.extxyz")
    hashes = {"train": validation.data_hash(train)}
    data = {"sha256": hashes, "train_frames": validation.frame_marks(train)}
    details = {"hyperparameters": PARAMETERS, "data": data}
    frames = read(folder / "train.extxyz", ":")
    baseline = [0.0, 1.0]
    for _ in range(2):  # the second time with the mean of the labels
        card = ModelCard("nequip", ["Ar", "Kr"], baseline, details=details)
        save(potential, folder / "model.pt", card, "float64")
        predicted = load(folder / "model.pt").evaluate(frames)
        off = [atoms.get_potential_energy() - p.energy for atoms, p in zip(frames, predicted)]
        baseline = [float(np.mean(off)) / 4, 1.0]
    return folder


@pytest.fixture(scope="module")
def made(folder):
    words = [folder / "model.pt", folder / "train.extxyz", "--held-out", folder / "held.extxyz"]
    words += ["-o", folder / "u.pt", "--plot", folder / "u.png", "--json", folder / "u.json"]
    with pictures.drawn():
        assert main(["uncertainty", *map(str, words)]) == 0
    return json.loads((folder / "u.json").read_text())


def test_info_says_where_the_deviations_come_from(folder, made, capsys):
    assert main(["info", str(folder / "u.pt")]) == 0
    assert "of the energy, llpr, calibrated with 12 held-out frames" in capsys.readouterr().out


def test_energies_stay_and_deviations_come(folder, made):
    frames = read(folder / "held.extxyz", ":4")
    before, after = (load(folder / name) for name in ("model.pt", "u.pt"))
    assert not before.has_uncertainty
    assert after.dtype == "float64"
    for one, other in zip(before.evaluate(frames), after.evaluate(frames, uncertainty=True)):
        assert one.energy == other.energy
        np.testing.assert_array_equal(one.forces, other.forces)
        assert other.uncertainty > 0
        assert other.uncertainties.shape == (4,)
    assert made["features"] == 4 + 2
    assert (made["n_frames"], made["n_held_out"]) == (12, 12)
    assert made["n_values"] == 12 * (1 + 12)
    assert made["quality"]["forces"]["z_rms"] == pytest.approx(1.0, abs=0.15)  # of largest likelihood
    assert (folder / "u.png").stat().st_size > 10_000
    assert load(folder / "u.pt").record["uncertainty"]["calibration"] == made["calibration"]


def test_evaluate_says_how_good_they_are(folder, made):
    found = mlplugins.evaluate(folder / "u.pt", folder / "held.extxyz")["uncertainty"]["energy"]
    assert found["n"] == 12
    assert found["z_rms"] == pytest.approx(made["quality"]["energy"]["z_rms"], rel=1e-6)
    assert "uncertainty" not in mlplugins.evaluate(folder / "model.pt", folder / "held.extxyz")


def test_two_copies_are_wrong_together(folder, made):
    """The weights err in both alike: σ doubles, but for the floor, which is each atom's own."""
    atoms = read(folder / "held.extxyz")
    floor = 4 * made["calibration"]["energy"]["floor"] ** 2
    one, two = load(folder / "u.pt").evaluate([atoms, atoms * (2, 1, 1)], uncertainty=True)
    assert two.uncertainty**2 - 2 * floor == pytest.approx(4 * (one.uncertainty**2 - floor), rel=1e-9)


@pytest.mark.long
def test_the_precision_and_portability_of_a_converted_model_stay(folder, tmp_path):
    """They were those of a foreign checkpoint: float32, not portable."""
    checkpoint = Path(__file__).parents[1] / "regression/sevennet_0130_even.pth"
    mlplugins.convert(checkpoint, tmp_path / "a.pt", dtype="float64", portable=True)
    before = load(tmp_path / "a.pt")
    rng = np.random.default_rng(0)
    frames = []
    for k in range(4):
        atoms = Atoms(list(before.elements) * 2, rng.uniform(0, 5, (2 * len(before.elements), 3)))
        atoms.set_cell([6.0 + 0.1 * k] * 3)
        atoms.pbc = True
        [found] = before.evaluate([atoms])
        energy, forces = found.energy + rng.normal(), found.forces + rng.normal(size=found.forces.shape)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    mlplugins.uncertainty(tmp_path / "a.pt", frames, tmp_path / "b.pt", 0.5)
    after = load(tmp_path / "b.pt")
    assert (after.dtype, after.record["portable"], after.extensions) == ("float64", True, ())
    assert after.unused == ()
    for one, other in zip(before.evaluate(frames), after.evaluate(frames)):
        np.testing.assert_array_equal(one.forces, other.forces)


def test_labels_that_the_model_made_itself_are_refused(folder, tmp_path):
    frames = read(folder / "held.extxyz", ":")
    for atoms, found in zip(frames, load(folder / "model.pt").evaluate(frames)):
        atoms.calc = SinglePointCalculator(atoms, energy=found.energy, forces=found.forces)
    with pytest.raises(BadInput, match="these labels are its own predictions"):
        mlplugins.uncertainty(folder / "model.pt", frames, tmp_path / "no.pt", 0.5)


def test_conversion_keeps_it_and_fine_tuning_forgets_it(folder, made):
    atoms = read(folder / "held.extxyz")
    mlplugins.convert(folder / "u.pt", folder / "ar.pt", elements=["Ar"], dtype="float64")
    [whole], [part] = (load(folder / n).evaluate([atoms], uncertainty=True) for n in ("u.pt", "ar.pt"))
    assert part.uncertainty == pytest.approx(whole.uncertainty, rel=1e-12)
    assert not predicts_variance(base_reader(folder / "u.pt")(None).potential)


@pytest.mark.parametrize(
    ("data", "held_out", "text"),
    [
        ("train.extxyz", 0.2, "was trained on all of these frames"),
        ("held.extxyz", ["train.extxyz"], "the frames that the model was trained on"),
        ("held.extxyz", ["held.extxyz@:3"], "also training frames"),
        ("train.extxyz", ["held.extxyz@:1"], "1 held out, expected"),
        ("held.extxyz", ["train.extxyz@2:7"], "was trained on 5 of the 5 held-out frames"),
        ("train.extxyz", 1.5, "a fraction between 0 and 1, got 1.5"),
    ],
)
def test_what_would_mean_nothing_is_refused(folder, monkeypatch, data, held_out, text):
    monkeypatch.chdir(folder)
    with pytest.raises(BadInput, match=text):
        mlplugins.uncertainty("model.pt", data, "no.pt", held_out)
    assert not (folder / "no.pt").exists()


def test_a_fraction_of_frames_that_are_new_to_the_model(folder):
    found = mlplugins.uncertainty(folder / "model.pt", folder / "held.extxyz", folder / "f.pt", 0.25)
    assert (found["n_frames"], found["n_held_out"]) == (9, 3)


def test_another_reference_of_the_energy_is_no_error(folder, made):
    """Labels that are 7 eV per atom away: the same posterior, and a note."""
    for name in ("train", "held"):
        frames = read(folder / f"{name}.extxyz", ":")
        for atoms in frames:
            atoms.calc.results["energy"] += 7.0 * len(atoms)
        write(folder / f"{name}-7.extxyz", frames)
    notes = []

    class Notes(type(mlplugins.observer.SILENT)):
        def note(self, text):
            notes.append(text)

    for data, held in (("train-7", "held"), ("train", "held-7")):
        with pytest.raises(BadInput, match="with the same zero of energy"):
            mlplugins.uncertainty(
                folder / "model.pt", folder / f"{data}.extxyz", folder / "no.pt", folder / f"{held}.extxyz"
            )
    words = (folder / "model.pt", folder / "train-7.extxyz", folder / "7.pt", folder / "held-7.extxyz")
    found = mlplugins.uncertainty(*words, observer=Notes())
    assert any("differ from the labels by a constant of each element, -7000" in note for note in notes)
    assert found["calibration"]["energy"]["scale"] < 10 * made["calibration"]["energy"]["scale"]
    assert (
        load(folder / "7.pt").evaluate(read(folder / "held.extxyz", ":1"), uncertainty=True)[0].uncertainty
        < 1.0
    )


def test_hot_frames_have_no_other_zero_of_energy(folder):
    """Energies far off in the mean where the forces are, too: the model fails there. With good forces it is
    another zero."""
    rng, model = np.random.default_rng(3), load(folder / "model.pt")

    def labelled(name, path, shift, force):
        frames = read(folder / f"{name}.extxyz", ":")
        for atoms, said in zip(frames, model.evaluate(frames)):
            energy = said.energy + len(atoms) * (shift + rng.normal(0.0, 1e-3))
            forces = said.forces + rng.normal(0.0, force, (len(atoms), 3))
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        write(folder / path, frames)

    labelled("train", "cold.extxyz", 0.0, 0.1)
    labelled("held", "hot.extxyz", 0.4, 0.9)
    labelled("held", "moved.extxyz", 0.4, 0.1)
    words = folder / "model.pt", folder / "cold.extxyz", folder / "hot.pt"
    found = mlplugins.uncertainty(*words, folder / "hot.extxyz")
    assert found["n_held_out"] == 12
    with pytest.raises(BadInput, match="held-out frames are -(399|400).* meV/atom off, those of DATA"):
        mlplugins.uncertainty(*words, folder / "moved.extxyz")


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (lambda n: 1 / 27.211386, "in hartree"),
        (lambda n: 23.0605, "in kcal/mol"),
        (lambda n: 1 / n, "per atom"),
    ],
)
def test_energies_in_another_unit_are_no_other_reference(folder, factor, said):
    """The energies of a network in hartree, which differ from those in eV by a constant and little else."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        potential = nequip.Model(["Ar", "Kr"], nequip.Hyperparameters(**PARAMETERS))
    potential.average_neighbors.fill_(40.0)
    potential.energy_scale.fill_(500.0)
    model = folder / "loud.pt"
    card = ModelCard("nequip", ["Ar", "Kr"], [0.0, 1.0], details={"hyperparameters": PARAMETERS})
    save(potential, model, card, "float64")
    frames = [atoms for name in ("train", "held") for atoms in read(folder / f"{name}.extxyz", ":")]
    for atoms, p in zip(frames, load(model).evaluate(frames)):
        energy = factor(len(atoms)) * (1.01 * p.energy + 30.0 * len(atoms))
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=1.01 * p.forces)
    with pytest.raises(BadInput, match=f"{said}.*: such errors calibrate nothing; convert the files"):
        mlplugins.uncertainty(model, frames[:12], folder / "no.pt", frames[12:])


def test_families_without_a_last_layer_are_named(folder, capsys):
    potential = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters())
    card = ModelCard("lennard-jones", ["Ar"], [0.0], details={"hyperparameters": {}})
    save(potential, folder / "lj.pt", card, "float64")
    words = ["uncertainty", "lj.pt", "train.extxyz", "--held-out", "held.extxyz", "-o", "no.pt"]
    assert main([str(folder / w) if "." in w else w for w in words]) == 2
    assert "lennard-jones has no part with a last layer" in capsys.readouterr().err.replace("\n", " ")
