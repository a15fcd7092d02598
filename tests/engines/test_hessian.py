"""Second derivatives: those of finite differences, and what has none is refused."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.vibrations import VibrationsData

from mlplugins import MLCalculator
from mlplugins.errors import BadInput

from .conftest import crystal, small_cell
from .lammps_tools import write_nequip


def differences(calculator: MLCalculator, atoms: Atoms, h: float = 1e-4) -> np.ndarray:
    rows = []
    for k in range(3 * len(atoms)):
        forces = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[k // 3, k % 3] += sign * h
            forces.append(calculator.get_property("forces", moved))
        rows.append((forces[1] - forces[0]) / (2 * h))
    return np.array(rows).reshape(len(atoms), 3, len(atoms), 3)


@pytest.mark.parametrize("make", [lambda: crystal(1), small_cell])
def test_it_is_that_of_finite_differences(passing_model, make):
    """Two layers, in cells shorter than the range, where atoms see their own images."""
    atoms, calculator = make(), MLCalculator(passing_model)
    found = calculator.get_hessian(atoms)
    expected = differences(calculator, atoms)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * max(np.abs(expected).max(), 1e-3))
    np.testing.assert_array_equal(found, found.transpose(2, 3, 0, 1))
    np.testing.assert_allclose(found.sum(axis=2), 0.0, atol=1e-12)  # of a translation


def test_in_single_precision(passing_model, passing_model32, tmp_path):
    """Rounding stays that of the numbers; differences of forces would divide it by the step. Radial tables
    have steps in their second derivatives, which is said."""
    atoms, exact = crystal(1), write_nequip(tmp_path / "exact.pt", "float32", knots="off")
    found, expected = (MLCalculator(model).get_hessian(atoms) for model in (exact, passing_model))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    with pytest.warns(UserWarning, match=r"passing32\.pt has radial tables: second derivatives err"):
        found = MLCalculator(passing_model32).get_hessian(atoms)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert 1e-5 < error < 2e-3


def test_frequencies_of_a_dimer(argon_committee):
    """ASE takes it as it is: ω² = 2k/m, and five free motions; of a committee the mean."""
    dimer = Atoms("Ar2", [[0, 0, 0], [0, 0, 3.4 * 2 ** (1 / 6)]])
    hessian = MLCalculator(argon_committee).get_hessian(dimer)
    k = 72 * 0.0104 * 1.1 / 2 ** (1 / 3) / 3.4**2
    assert hessian[0, 2, 0, 2] == pytest.approx(k, rel=1e-9)
    energies = VibrationsData(dimer, hessian).get_energies()
    assert np.abs(energies[:5]).max() < 1e-8
    assert energies[5].real == pytest.approx(np.sqrt(2 * k / dimer.get_masses()[0]) * 0.0646541, rel=1e-4)


def test_of_a_model_of_others(tmp_path):
    from .general_model import write

    write(tmp_path / "general.pt", per_atom=True, bohr_and_hartree=False)
    with pytest.raises(BadInput, match="Hessian of 'general.pt': mlplugins did not write this model"):
        MLCalculator(tmp_path / "general.pt").get_hessian(crystal(1))
