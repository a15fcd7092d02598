"""Every check passes for a sound potential, and fails for the defect it is there to find."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.calculator import all_changes

from mlplugins import MLCalculator
from mlplugins.checks import physics
from mlplugins.checks.physics import NVE_FEWEST, PhysicsChecks
from mlplugins.errors import RunFailed
from mlplugins.model_file import artifact

from ..simulation.argon import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return artifact.load(write_model(tmp_path_factory.mktemp("model") / "model.pt"))


def _crystal():
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.rattle(0.1, seed=3)
    return atoms


def _failed(model, atoms, nve_steps=0):
    return {
        row.name
        for row in PhysicsChecks(model, atoms, "x").run(nve_steps, lambda name: None)
        if not row.passed
    }


def _molecule():
    atoms = molecule("CH4")
    atoms.positions *= 3
    atoms.symbols = "Ar5"
    return atoms


def _triclinic():
    atoms = bulk("Ar", "fcc", a=5.3) * (2, 1, 1)
    atoms.set_cell(atoms.cell.array @ [[1, 0.1, 0], [0, 1, 0.2], [0, 0, 1]], scale_atoms=True)
    atoms.rattle(0.1, seed=4)
    return atoms


@pytest.mark.parametrize("atoms", [_crystal(), _molecule(), _triclinic(), bulk("Ar", "fcc", a=5.3)])
def test_lennard_jones_passes(model, atoms):
    rows = PhysicsChecks(model, atoms, "x").run(50, lambda name: None)
    assert [row for row in rows if not row.passed] == []
    names = {row.name for row in rows}
    assert ("stress = dE/dε/V" in names) == bool(atoms.pbc.all())
    assert ("NVE drift" in names) == (len(atoms) > 1)
    assert {
        "rotation: energy",
        "permutation: forces",
        "isolated atoms: force",
        "cutoff: jump of energy",
    } < names


class Defective:
    """A model whose results are changed on the way out; everything else is the model's own."""

    def __init__(self, model, change):
        self._model, self._change = model, change

    def __getattr__(self, name):
        return getattr(self._model, name)

    def evaluate(self, structures):
        return [
            self._change(atoms, result) for atoms, result in zip(structures, self._model.evaluate(structures))
        ]


def _extra_energy(result, per_atom):
    return replace(result, energy=result.energy + per_atom.sum(), energies=result.energies + per_atom)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda a, r: replace(r, forces=1.00001 * r.forces), {"forces = -dE/dr"}),
        (
            lambda a, r: replace(r, stress=1.0001 * r.stress) if r.stress is not None else r,
            {"stress = dE/dε/V"},
        ),
        (lambda a, r: replace(r, stress=-r.stress) if r.stress is not None else r, {"stress = dE/dε/V"}),
        (
            lambda a, r: _extra_energy(r, np.full(len(a), 1e-9 * len(a))),
            {"extensivity: energy"},
        ),
        (
            lambda a, r: _extra_energy(r, 1e-9 * np.arange(len(a)) * a.positions[:, 0]),
            {"rotation: energy", "inversion: energy", "translation: energy", "permutation: energy"},
        ),
        (lambda a, r: replace(r, forces=r.forces + 1e-7), {"rotation: forces", "isolated atoms: force"}),
    ],
)
def test_a_defect_is_found(model, change, expected):
    assert _failed(Defective(model, change), _crystal()) >= expected


EVEN = {"family": "nequip", "parity": "even"}


@pytest.mark.parametrize(
    "hyperparameters",
    [EVEN, {"terms": [EVEN, {"family": "d3"}]}, {"members": [{"family": "sum", "terms": [EVEN]}]}],
)
def test_mirror_images_of_a_model_without_parity_are_only_reported(model, hyperparameters):
    def change(atoms, result):
        handed = np.sign(np.linalg.det(atoms.cell.array))
        return _extra_energy(result, np.full(len(atoms), 1e-3 * handed))

    defective = Defective(model, change)
    assert "inversion: energy" in _failed(defective, _crystal())
    defective.record = {"hyperparameters": hyperparameters}
    assert "inversion: energy" not in _failed(defective, _crystal())
    rows = PhysicsChecks(defective, _crystal(), "x").symmetry()
    (row,) = [row for row in rows if row.name == "inversion: energy"]
    assert row.value == pytest.approx(2e-3)
    assert row.note == "without parity by construction"


def test_a_cliff_at_the_cutoff_is_found(tmp_path):
    cliff = artifact.load(write_model(tmp_path / "cliff.pt", onset=1 - 1e-7))
    assert "cutoff: jump of energy" in _failed(cliff, _crystal())


def test_a_curl_is_found(model):
    """Forces with a curl have every symmetry, but no energy belongs to them."""

    def turn(atoms, result):
        centre = atoms.positions - atoms.positions.mean(axis=0)
        return replace(result, forces=result.forces + 1e-5 * np.cross([0, 0, 1.0], centre))

    assert "forces = -dE/dr" in _failed(Defective(model, turn), _molecule())


class Curl(MLCalculator):
    """Adds forces to which no energy belongs."""

    size = 0.0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        centre = atoms.positions - atoms.positions.mean(axis=0)
        self.results["forces"] = self.results["forces"] + self.size * np.cross([0, 0, 1.0], centre)


@pytest.mark.parametrize("steps", [NVE_FEWEST, 100])
@pytest.mark.parametrize(("size", "passes"), [(0.0, True), (0.02, False)])
def test_energy_drifts_where_forces_have_a_curl_and_else_not(model, monkeypatch, steps, size, passes):
    """Whatever the number of steps; at these distances the slope of the energy itself is beyond the limit."""
    monkeypatch.setattr(physics, "MLCalculator", Curl)
    monkeypatch.setattr(Curl, "size", size)
    close = _molecule()
    close.positions *= 0.66
    (row,) = PhysicsChecks(model, close, "x").nve(steps)
    assert row.passed == passes, row


def test_a_model_that_fails_on_one_structure_fails_that_row(model):
    def nan(atoms, result):
        if len(atoms) == 1:
            raise RunFailed("the model gave NaN")
        return result

    rows = PhysicsChecks(Defective(model, nan), _crystal(), "x").run(0, lambda name: None)
    [row] = [row for row in rows if not row.passed]
    assert (row.name, row.note) == ("isolated atoms", "the model gave NaN")
    assert np.isnan(row.value)
