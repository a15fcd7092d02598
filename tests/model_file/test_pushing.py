"""The Hessian without differentiating convolutions twice: equal to doing so, for what has convolutions."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from ase.build import bulk

from mlplugins.model_file import hessian, pushing
from mlplugins.model_file.artifact import load
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.radial import RadialTables
from mlplugins.model_file.write import save
from mlplugins.models import committee, lennard_jones, mace, nequip

SMALL = {"cutoff": 3.2, "num_basis": 4, "radial_mlp": [6]}
NEQUIP = {**SMALL, "num_features": 3}
MACE = {**SMALL, "num_channels": 3, "l_max": 2, "readout_mlp": 4}
PAIRS = {"Na": {"Na": 2.9, "Cl": 3.1}, "Cl": {"Cl": 3.2}}


def crystal():
    atoms = bulk("NaCl", "rocksalt", a=4.4, cubic=True)
    atoms.rattle(0.1, seed=2)
    return atoms


def of_nequip(**changes):
    return nequip.Model(["Na", "Cl"], nequip.Hyperparameters(**NEQUIP, **changes))


def of_mace(**changes):
    return mace.Model(["Na", "Cl"], mace.Hyperparameters(**MACE, **changes))


def written(folder, model, dtype="float64", portable=False, knots="off"):
    card = ModelCard("nequip", ["Na", "Cl"], [0.0, 0.0])
    save(model.double(), folder / "model.pt", card, dtype, portable, RadialTables(knots))
    return load(folder / "model.pt")


def both(model, monkeypatch, copies=None):
    """By pushing, which has to apply, and by differentiating twice."""
    applied = []

    def watched(*arguments):
        applied.append(pushing.pushed(*arguments))
        return applied[-1]

    with monkeypatch.context() as patch:
        patch.setattr(hessian, "pushed", watched)
        if copies is not None:
            patch.setattr(hessian, "EDGES", copies * 300)
        found = model.hessian(crystal())
        patch.setattr(hessian, "pushed", lambda *_: None)
        return applied[0] is not None, found, model.hessian(crystal())


CASES = {
    "three layers": (lambda: of_nequip(l_max=2), True),
    "zbl, cutoffs of pairs": (lambda: of_nequip(num_layers=2, zbl=True, pair_cutoffs=PAIRS), True),
    "normalised": (lambda: of_nequip(num_layers=2, layer_norm=True, neighbors_by_element=True), True),
    "mace": (lambda: of_mace(correlation=3, distance_transform="agnesi"), True),
    "density": (lambda: of_mace(interaction="RealAgnosticDensityResidual"), False),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_what_differentiating_twice_gives(tmp_path, monkeypatch, case):
    """To rounding, with copies that do not divide the coordinates; densities, where edges act together, are
    left to the other way."""
    torch.manual_seed(3)
    make, applies = CASES[case]
    applied, found, expected = both(written(tmp_path, make()), monkeypatch, copies=5)
    assert applied == applies
    assert np.abs(expected).max() > 1e-4
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * np.abs(expected).max())


@pytest.mark.long
def test_tables_committees_single_precision(tmp_path, monkeypatch):
    torch.manual_seed(3)
    tables = {  # one; by pair of elements; with densities
        "one": (of_nequip(num_layers=2), True),
        "by pair": (of_mace(distance_transform="agnesi"), True),
        "density": (of_mace(interaction="RealAgnosticDensityResidual"), False),
    }
    for model, applies in tables.values():
        applied, found, expected = both(written(tmp_path, model, knots=64), monkeypatch)
        assert applied == applies
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * np.abs(expected).max())
    members = committee.Model.of([of_nequip(num_layers=2), of_mace()], torch.zeros(2, 2, dtype=torch.float64))
    applied, found, expected = both(written(tmp_path, members), monkeypatch)
    assert applied
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * np.abs(expected).max())
    applied, found, expected = both(written(tmp_path, of_nequip(num_layers=2), "float32"), monkeypatch)
    assert applied
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_members_of_several_cutoffs_are_left_to_the_other_way(tmp_path, monkeypatch):
    """Convolutions of the shorter cutoff have fewer edges than the graph: against differences of forces."""
    torch.manual_seed(3)
    shorter = nequip.Hyperparameters(**{**NEQUIP, "cutoff": 2.6, "num_layers": 2})
    members = [nequip.Model(["Na", "Cl"], shorter), of_nequip(num_layers=2)]
    model = written(tmp_path, committee.Model.of(members, torch.zeros(2, 2, dtype=torch.float64)))
    applied, found, _ = both(model, monkeypatch)
    forces = []
    for side in (1e-3, -1e-3):
        moved = crystal()
        moved.positions[2, 1] += side
        forces.append(model.evaluate([moved])[0].forces.ravel())
    assert not applied
    expected = -(forces[0] - forces[1]) / 2e-3
    np.testing.assert_allclose(found[7], expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_what_has_no_convolution_or_too_many_atoms(tmp_path, monkeypatch):
    torch.manual_seed(3)
    argon = lennard_jones.Model(
        ["Na", "Cl"], lennard_jones.Hyperparameters(epsilon=0.1, sigma=2.0, cutoff=3.2)
    )
    for model in (argon, of_nequip(num_layers=2)):
        assert not both(written(tmp_path, model, portable=model is not argon), monkeypatch)[0]
    monkeypatch.setattr(pushing, "MOST_BYTES", 1000)
    assert not both(written(tmp_path, of_nequip(num_layers=2)), monkeypatch)[0]


def test_others_evaluate_meanwhile(tmp_path):
    """Another thread gets its own forces while this one has the convolutions on its tape."""
    torch.manual_seed(3)
    model = written(tmp_path, of_nequip(num_layers=2))
    expected = model.evaluate([crystal()])[0].forces
    found = []
    with pushing.taped(pushing.Tape()):
        other = threading.Thread(target=lambda: found.append(model.evaluate([crystal()])[0].forces))
        other.start()
        other.join()
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(model.evaluate([crystal()])[0].forces, expected)
