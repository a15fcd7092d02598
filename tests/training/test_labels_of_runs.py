"""Labels from the file to the trained model: keys, energies alone, and the constant beneath a short run."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.io import write

from mlplugins import MLCalculator
from mlplugins.checkpoints import native
from mlplugins.cli.main import main
from mlplugins.errors import BadInput
from mlplugins.models.composition import Composition
from mlplugins.structures.dataset import read
from mlplugins.training import config, data, sections
from mlplugins.training.references import settle
from mlplugins.training.run import train

from .toy import Quiet

MODEL = {"family": "nequip", "cutoff": 5.0, "num_layers": 1, "num_features": 4, "num_basis": 4}
SHIFT = -412.5
"""Energy per atom that the baseline has to carry, eV."""


@pytest.fixture(scope="module")
def frames():
    found = []
    for k in range(10):
        atoms = bulk("Ar", "fcc", a=5.2 + 0.04 * k, cubic=True)
        atoms.rattle(0.1, seed=k)
        atoms.calc = LennardJones(epsilon=0.0104, sigma=3.4, rc=6.0, smooth=True)
        copy = atoms.copy()
        copy.info["REF_energy"] = atoms.get_potential_energy() + SHIFT * len(atoms)
        copy.info["REF_stress"] = atoms.get_stress()
        copy.arrays["REF_forces"] = atoms.get_forces()
        found.append(copy)
    return found


def configured(folder, frames, keys, **more):
    write(folder / "d.extxyz", frames, format="extxyz")
    content = {
        "data": {"train": str(folder / "d.extxyz"), "validation": 0.2, "keys": keys} | more.pop("data", {}),
        "model": MODEL,
        "training": {"epochs": 1, "lr": 1e-4} | more.pop("training", {}),
        **more,
    }
    (folder / "c.yaml").write_text(yaml.safe_dump(content))
    return config.load(folder / "c.yaml")


ALL = {"energy": "REF_energy", "forces": "REF_forces", "stress": "REF_stress"}


def test_right_labels_leave_no_warning(frames, tmp_path):
    sets = data.load(configured(tmp_path, frames, ALL))
    assert sets.warnings == []
    assert all(s.stress is not None for s in sets.train)


@pytest.mark.parametrize(
    "wrong", [{"stress": "REF_stres"}, {"virial": "REF_virial"}, {"forces": "REF_force"}]
)
def test_a_key_that_no_frame_has_is_refused(frames, tmp_path, wrong):
    with pytest.raises(BadInput, match=next(iter(wrong.values()))):
        data.load(configured(tmp_path, frames, ALL | wrong))


def test_the_message_of_energy_only_data_names_the_word_that_works(frames, tmp_path, capsys):
    bare = [atoms.copy() for atoms in frames]
    for atoms in bare:
        del atoms.arrays["REF_forces"]
    configured(tmp_path, bare, {"energy": "REF_energy"})
    assert main(["train", str(tmp_path / "c.yaml"), "-o", str(tmp_path / "run")]) == 2
    assert "to learn from energies alone, set data.keys: {forces: null}" in capsys.readouterr().err
    configured(tmp_path, bare, {"energy": "REF_energy", "forces": None})
    assert main(["train", str(tmp_path / "c.yaml"), "-o", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert "MAE: energy" in printed
    assert "forces nan" not in printed
    assert "forces 0" not in printed


def test_energies_alone_against_a_loss_of_forces_is_refused(frames, tmp_path):
    configuration = configured(
        tmp_path, frames, ALL | {"forces": None}, training={"loss": {"forces": 10.0, "energy": 1.0}}
    )
    with pytest.raises(BadInput, match="{forces: null} reads no forces, but training.loss.forces or"):
        data.load(configuration)


def test_energies_alone_in_closed_form():
    content = {"data": {"train": "a.xyz", "keys": {"forces": None}}, "model": {"family": "krr-cm"}}
    assert config.parse(content, "c.yaml").targets == "energies"
    assert config.parse({**content, "model": {"family": "kreg"}}, "c.yaml").needs_forces is False
    both = {**content, "model": {"family": "kreg"}, "training": {"targets": "forces"}}
    assert config.parse(both, "c.yaml").needs_forces  # and the first frame is refused


def test_the_constant_of_a_short_run_goes_into_the_baseline(frames, tmp_path):
    """Forces only, one epoch: the energy of the model is arbitrary, its mean residual is not."""
    configuration = configured(tmp_path, frames, ALL, training={"loss": {"energy": 0.0, "forces": 1.0}})
    trained = train(configuration, tmp_path / "run", Quiet())
    model = MLCalculator(str(tmp_path / "run" / "model.pt"))
    residual = []
    for s in trained.sets.train:
        atoms = s.to_atoms()
        atoms.calc = model
        residual.append((atoms.get_potential_energy() - s.energy) / len(s))
    assert abs(np.mean(residual)) < 1e-5
    stored = native.read(tmp_path / "run" / "checkpoint.ckpt").baseline
    assert stored == trained.sets.baseline.energies == trained.card.baseline
    assert stored == list(trained.metrics["composition_eV"].values())
    (recorded,) = [artifact.record["data"]["closest_A"] for artifact in model.artifacts]
    pairs = [s.to_atoms().get_all_distances(mic=True)[np.triu_indices(4, 1)] for s in trained.sets.train]
    assert recorded == {"Ar-Ar": pytest.approx(np.min(pairs), abs=1e-4)}


def test_a_given_baseline_stays_and_the_constant_is_said(frames, tmp_path):
    observer = Quiet()
    configuration = configured(tmp_path, frames, ALL, data={"baseline": {"Ar": SHIFT + 2.0}})
    trained = train(configuration, tmp_path / "run", observer)
    assert trained.sets.baseline.energies == [SHIFT + 2.0]
    (note,) = [n for n in observer.notes if "meV/atom from the labels on average" in n]
    assert "data.baseline is kept as given" in note
    assert note in trained.metrics["warnings"]


@pytest.mark.long
def test_a_committee_does_not_disagree_by_a_constant(frames, tmp_path):
    """Members of other seeds, trained for one epoch: their spread is that of energy differences."""
    energies = []
    for seed in (0, 1, 2):
        configuration = configured(
            tmp_path, frames, ALL, seed=seed, training={"loss": {"energy": 0.0, "forces": 1.0}}
        )
        configuration = configuration.model_copy(
            update={"data": configuration.data.model_copy(update={"validation": 0.0})}
        )
        train(configuration, tmp_path / f"run{seed}", Quiet())
        model = MLCalculator(str(tmp_path / f"run{seed}" / "model.pt"))
        values = []
        for s in read(f"{tmp_path}/d.extxyz"):
            atoms = s.to_atoms()
            atoms.calc = model
            values.append(atoms.get_potential_energy())
        energies.append(values)
    spread = np.std(energies, axis=0)  # eV per frame
    labels = [atoms.info["REF_energy"] for atoms in frames]
    assert spread.mean() < 2 * np.std(labels)
    assert np.abs(np.mean(energies, axis=1) - np.mean(labels)).max() < 1e-4


def test_settle_is_least_squares_per_element():
    numbers = ([3, 3, 17], [3, 17, 17], [3, 17])
    frames = [
        replace(read("examples/data/li6ps5cl_pbe/test.extxyz@:1")[0], numbers=np.array(z), energy=float(e))
        for z, e in zip(numbers, (1.0, 2.0, 1.0))
    ]
    old = Composition(["Li", "Cl", "P"], [0.5, 0.25, 7.0], 2)
    new, _ = settle(frames, [0.0, 0.0, 0.0], old)
    np.testing.assert_allclose(new.energies, [0.5 + 0.0, 0.25 + 1.0, 7.0], atol=1e-8)


def test_frames_without_forces_are_not_errors_of_zero(frames, tmp_path):
    """Forces that some frames lack do not enter the sums that are logged."""
    from mlplugins.structures import batch
    from mlplugins.training.loss import residuals

    s = read(frames_file(frames, tmp_path), sections.KeySection(**ALL).names)[:2]
    s = [s[0], replace(s[1], forces=None)]
    joined = batch.concatenate([batch.single(x, ["Ar"], 5.0, 0.0, torch.float64) for x in s])
    errors = residuals({"forces": torch.ones(8, 3).double()}, joined)["forces"]
    np.testing.assert_allclose(errors.error.numpy(), 1.0 - s[0].forces, atol=1e-12)
    assert errors.weight.shape == (4, 1)


def frames_file(frames, folder):
    write(folder / "d.extxyz", frames, format="extxyz")
    return folder / "d.extxyz"
