"""What the i-PI driver says of the uncertainty of forces, and the steps that it looks at."""

import json

import numpy as np
import pytest
import torch
from ase.io import read, write
from ipi.utils.units import unit_to_internal, unit_to_user

from mlplugins.dynamics.watch import read_rows
from mlplugins.engines.ipi.driver import MLDriver
from mlplugins.errors import BadInput, RunStopped
from mlplugins.model_file.artifact import load
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import nequip

from .conftest import crystal


@pytest.fixture
def unsure(tmp_path):
    """A network of argon with some posterior, and a driver's template."""
    potential = nequip.Model(["Ar"], nequip.Hyperparameters(cutoff=5.0, num_layers=1, num_features=4))
    generator = torch.Generator().manual_seed(0)
    factor = 0.1 * torch.randn(potential.feature_width, 4, dtype=torch.float64, generator=generator)
    potential.last_layer.set(factor, 0.01, 0.6, 0.02)
    save(potential, tmp_path / "unsure.pt", ModelCard("nequip", ["Ar"], [0.0]), "float64")
    atoms = crystal()
    write(tmp_path / "init.extxyz", atoms)
    return {"model": str(tmp_path / "unsure.pt"), "template": str(tmp_path / "init.extxyz")}, atoms


def in_bohr(atoms):
    cell = unit_to_internal("length", "angstrom", np.asarray(atoms.cell).T)
    return cell, unit_to_internal("length", "angstrom", atoms.positions)


def test_force_uncertainty_in_the_extras(unsure):
    options, atoms = unsure
    driver = MLDriver(**options, force_uncertainty="on", probes=0)
    extras = json.loads(driver(*in_bohr(atoms)).extras)
    [exact] = load(options["model"]).evaluate([atoms], probes=0)
    found = unit_to_user("force", "ev/ang", np.array(extras["forces_uncertainty"]))
    np.testing.assert_allclose(found, exact.forces_uncertainty.ravel(), rtol=0, atol=1e-9)
    assert unit_to_user("force", "ev/ang", extras["max_force_uncertainty"]) == pytest.approx(found.max())


def test_a_driver_looks_at_the_worst_bead_of_some_steps(unsure, tmp_path, monkeypatch):
    """Steps 10, 11, 12 of two beads, every second one; the last is above the limit."""
    options, atoms = unsure
    monkeypatch.chdir(tmp_path)
    model = load(options["model"])

    def worst(structure):
        [found] = model.evaluate([structure], probes=3)
        return np.linalg.norm(found.forces_uncertainty, axis=1).max()

    beads = [atoms.copy() for _ in range(6)]
    for seed, (bead, size) in enumerate(zip(beads, (0.05, 0.1, 0.5, 0.5, 0.05, 0.3))):
        bead.rattle(size, seed=seed)
    values = [worst(bead) for bead in beads]
    first, last = max(values[:2]), max(values[4:])
    assert last > first > min(values[:2])
    limits = {"stop_above": 0.5 * (first + last), "keep_above": 0.99 * first}
    driver = MLDriver(**options, **limits, watch_interval=2, first_step=10, beads=2, probes=3)
    for bead in beads[:5]:
        driver(*in_bohr(bead))
    with pytest.raises(RunStopped, match=r"at step 12 .* of atom \d+ \(Ar\) is .* above stop_above"):
        driver(*in_bohr(beads[5]))
    rows = read_rows(tmp_path / "uncertainty.dat")
    assert [row.step for row in rows] == [10, 12]
    np.testing.assert_allclose([row.largest for row in rows], [first, last], rtol=1e-6)
    kept = read(tmp_path / "kept.extxyz", ":")
    assert [a.info["step"] for a in kept] == [10, 12]
    of_worst = (beads[int(np.argmax(values[:2]))], beads[4 + int(np.argmax(values[4:]))])
    for frame, bead in zip(kept, of_worst):
        np.testing.assert_allclose(frame.positions, bead.positions, atol=1e-7)


def test_a_model_without_uncertainty_is_not_watched(argon_model, tmp_path):
    write(tmp_path / "init.extxyz", crystal())
    options = {"model": str(argon_model), "template": str(tmp_path / "init.extxyz")}
    with pytest.raises(BadInput, match="stop_above, keep_above: .* predicts no uncertainty: add one with"):
        MLDriver(**options, stop_above=0.5)
    with pytest.raises(BadInput, match="force_uncertainty: .* predicts none: add one with"):
        MLDriver(**options, force_uncertainty="on")
    with pytest.raises(BadInput, match="probes: expected a whole number from 0 on, got '1.5'"):
        MLDriver(**options, probes=1.5)
