"""A toy quantity in what is generic over the table: symmetry tests, sums, refusals; and what they find."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

from mlplugins import models
from mlplugins.checks.physics import PhysicsChecks
from mlplugins.errors import BadInput, RunFailed
from mlplugins.model_file import artifact
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import sum as sums
from mlplugins.quantities import QUANTITIES, Quantity
from mlplugins.structures import labels
from mlplugins.structures.dataset import Keys, from_atoms
from mlplugins.testing.families import FamilySuite
from mlplugins.testing.structures import standard_structures
from tests import toy_quantity
from tests.checks.test_physics import Defective
from tests.test_quantities import MOMENT, RECORD, dipole, molecules

_table: dict[str, Quantity] = {}
exec(RECORD, {"QUANTITIES": _table, "Quantity": Quantity})
DIPOLE = _table["polarization"]


@pytest.fixture(autouse=True)
def record(monkeypatch):
    monkeypatch.setitem(QUANTITIES, "polarization", DIPOLE)
    return monkeypatch


def _toy(elements=("Ne", "Ar"), cls=toy_quantity.Model):
    model = cls(list(elements), toy_quantity.Hyperparameters(5.0))
    with torch.no_grad():
        model.a.copy_(torch.tensor([[0.02, -0.01], [-0.01, 0.03]]))
        model.b.copy_(torch.from_numpy(MOMENT))
    return model


class TestDipole(FamilySuite):
    """Charges that flow along each pair."""

    def make_model(self):
        return _toy(self.elements)


class _Changed(toy_quantity.Model):
    def forward(self, graph):
        found = super().forward(graph)
        return {**found, "polarization": self.changed(found["polarization"], graph)}


class _Absolute(_Changed):
    def changed(self, moments, graph):
        return moments.abs()


class _Ordered(_Changed):
    def changed(self, moments, graph):
        return moments * torch.arange(len(moments)).unsqueeze(1)


class _Intensive(_Changed):
    def changed(self, moments, graph):
        return moments / len(moments)


@pytest.mark.parametrize(
    ("cls", "test"),
    [
        (_Absolute, "test_rotation_translation_inversion"),
        (_Ordered, "test_permutation"),
        (_Intensive, "test_supercell_is_extensive"),
        (_Intensive, "test_distant_fragments_add_up"),
        (_Intensive, "test_batch_equals_single"),
    ],
)
def test_the_suite_finds_a_broken_quantity(cls, test):
    suite = TestDipole()
    arguments = {"test_rotation_translation_inversion": 1, "test_permutation": 1}.get(test, 0)
    atoms = [standard_structures(suite.elements)["molecule"]] * arguments
    getattr(suite, test)(_toy(suite.elements), *atoms)
    with pytest.raises(AssertionError, match="polarization"):
        getattr(suite, test)(_toy(suite.elements, cls), *atoms)


def test_the_suite_finds_a_wrong_parity_in_the_record(record):
    record.setitem(QUANTITIES, "polarization", replace(DIPOLE, irreps="1e"))
    suite = TestDipole()
    atoms = standard_structures(suite.elements)["molecule"]
    with pytest.raises(AssertionError, match="polarization"):
        suite.test_rotation_translation_inversion(_toy(suite.elements), atoms)
    suite.mirror_images_are_equal = False
    suite.test_rotation_translation_inversion(_toy(suite.elements), atoms)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.pt"
    save(_toy(), path, ModelCard("toy", ["Ne", "Ar"], [0.0, 0.0]), "float64")
    return path


def _molecule():
    return molecules(1, 0)[0]


def _crystal():
    atoms = Atoms("NeAr", scaled_positions=[[0, 0, 0], [0.5, 0.4, 0.5]], cell=[3.6, 3.7, 3.8], pbc=True)
    return atoms * (2, 1, 1)


def _failed(model, atoms):
    rows = PhysicsChecks(model, atoms, "x").run(0, lambda name: None)
    return {row.name for row in rows if not row.passed}, {row.name for row in rows}


@pytest.mark.parametrize("atoms", [_molecule(), _crystal()], ids=["molecule", "crystal"])
def test_check_turns_every_quantity(file, atoms):
    failed, all_ = _failed(artifact.load(file), atoms)
    kinds = ("rotation", "inversion", "translation", "permutation", "extensivity")
    names = ["energy", "forces", "polarization"] + ["stress"] * bool(atoms.pbc.all())
    assert all_ >= {f"{kind}: {name}" for kind in kinds for name in names}
    assert failed == set()


def _with(change):
    return lambda atoms, result: replace(
        result, more={"polarization": change(atoms, result.more["polarization"])}
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda a, mu: np.abs(mu), {"rotation", "inversion"}),
        (lambda a, mu: mu * (1 + 1e-6 * a.positions[0, 0]), {"rotation", "inversion", "translation"}),
        (lambda a, mu: mu * (1 + 1e-6 * (a.numbers @ np.arange(len(a)))), {"permutation"}),
        (lambda a, mu: mu / len(a), {"extensivity"}),
        (lambda a, mu: np.full(3, np.nan), {"rotation", "inversion", "translation", "permutation"}),
    ],
)
def test_check_finds_a_broken_quantity(file, change, expected):
    failed, _ = _failed(Defective(artifact.load(file), _with(change)), _molecule())
    assert {name.partition(":")[0] for name in failed if name.endswith("polarization")} >= expected
    assert not {name for name in failed if not name.endswith("polarization")}


def test_check_knows_axial_vectors_and_tensors():
    """Turned as e3nn turns them: parity and rank are those of the record."""
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    rotation *= np.linalg.det(rotation)
    u, v = np.random.default_rng(1).normal(size=(2, 3))
    axial = replace(DIPOLE, irreps="1e")
    for q in (rotation, -rotation):
        np.testing.assert_allclose(axial.turned(np.cross(u, v), q), np.cross(q @ u, q @ v), atol=1e-14)
        np.testing.assert_allclose(
            QUANTITIES["stress"].turned(np.outer(u, v), q), np.outer(q @ u, q @ v), atol=1e-14
        )
    volume = replace(DIPOLE, irreps="0o", shape=())
    assert volume.turned(2.0, -np.eye(3)) == -2.0
    with pytest.raises(ValueError, match="no Cartesian tensor of shape"):
        replace(DIPOLE, irreps="2e").turned(np.ones(3), rotation)


def test_a_quantity_that_is_not_finite_is_refused(tmp_path):
    model = _toy()
    with torch.no_grad():
        model.b.fill_(float("nan"))
    save(model, tmp_path / "model.pt", ModelCard("toy", ["Ne", "Ar"], [0.0, 0.0]), "float64")
    with pytest.raises(RunFailed, match="polarization that is not finite"):
        artifact.load(tmp_path / "model.pt").evaluate([_molecule()])


@pytest.fixture
def families(tmp_path, record):
    """The toy as a family, found by name."""
    shutil.copy(Path(toy_quantity.__file__), tmp_path / "toy.py")
    record.setattr(models, "__path__", [*models.__path__, str(tmp_path)])


def _sum(*terms):
    return sums.Model(["Ne", "Ar"], sums.Hyperparameters(list(terms)))


@pytest.mark.parametrize("second", ["toy", "lennard-jones"])
def test_a_sum_passes_on_what_its_terms_predict(families, tmp_path, second):
    model = _sum({"family": "toy", "cutoff": 5.0}, {"family": second, "cutoff": 4.0})
    assert model.predicts == ("energy", "polarization")
    toys = [term for term in model.potentials() if "polarization" in term.predicts]
    for k, term in enumerate(toys):
        with torch.no_grad():
            term.b.copy_(torch.from_numpy((k + 1) * MOMENT))
    save(model, tmp_path / "sum.pt", ModelCard("sum", ["Ne", "Ar"], [0.0, 0.0]), "float64")
    atoms = _molecule()
    [found] = artifact.load(tmp_path / "sum.pt").evaluate([atoms])
    expected = dipole(atoms) + (2 * dipole(atoms, cutoff=4.0) if second == "toy" else 0)
    np.testing.assert_allclose(found.get("polarization"), expected, rtol=0, atol=1e-12)


def test_a_sum_refuses_what_does_not_add_up(families, record):
    record.setitem(QUANTITIES, "polarization", replace(DIPOLE, additive=False))
    with pytest.raises(BadInput, match="2 terms predict 'polarization', which does not add up"):
        _sum({"family": "toy"}, {"family": "toy"})
    assert _sum({"family": "toy"}, {"family": "lennard-jones"}).predicts == ("energy", "polarization")


@pytest.mark.parametrize(
    ("name", "value", "listed"),
    [
        ("REF_polarization", np.ones(3), True),
        ("polarization_au", 1.5, False),
        ("dft_polarizations", np.ones((4, 3)), False),
    ],
)
def test_labels_that_look_like_a_quantity_are_listed_by_its_shape(record, name, value, listed):
    atoms = _molecule()
    (atoms.arrays if np.shape(value) == (4, 3) else atoms.info)[name] = value
    record.delitem(QUANTITIES, "polarization")
    frames = [from_atoms(atoms, Keys())]
    record.setattr(Keys, "polarization", "polarization", raising=False)  # made for the shorter table
    record.setitem(QUANTITIES, "polarization", replace(DIPOLE, like="polarization"))
    found = labels.notes(frames, Keys())
    assert any(name in note for note in found) == listed
