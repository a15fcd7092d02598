"""Labels under unusual names are taken if there is one, said, and never guessed between two."""

import numpy as np
import pytest
from ase import Atoms

from mlplugins.errors import BadInput
from mlplugins.structures import labels, validation
from mlplugins.structures.dataset import Keys, from_atoms

CELL = 5.0 * np.eye(3)


def frame(**named) -> Atoms:
    atoms = Atoms("Ar2", [[0, 0, 0], [0, 0, 3.0]], cell=CELL, pbc=True)
    for name, value in named.items():
        (atoms.arrays if np.shape(value) == (2, 3) else atoms.info)[name] = value
    return atoms


@pytest.mark.parametrize(
    "energy", ["REF_energy", "energy_dft", "TotEnergy", "dft-energy", "PBE_total_energy"]
)
@pytest.mark.parametrize("forces", ["REF_forces", "dft_force", "forces_pbe"])
def test_unusual_names(energy, forces):
    s = from_atoms(frame(**{energy: -1.5, forces: np.ones((2, 3))}))
    assert s.energy == -1.5
    assert np.array_equal(s.forces, np.ones((2, 3)))
    notes = "\n".join(labels.notes([s], Keys()))
    assert f"'{energy}' is taken as the energy: no label has the usual name, and no other" in notes
    assert f"'{forces}' is taken as the forces" in notes
    assert "data.keys: {energy: NAME}" in notes


def test_virials_are_minus_volume_times_stress():
    s = from_atoms(frame(energy=-1.0, virials=np.diag([1.0, 2.0, 3.0])))
    assert np.allclose(s.stress, -np.diag([1.0, 2.0, 3.0]) / 125.0, rtol=1e-14)
    assert "'virials' is taken as the virial (−V·stress, eV)" in "\n".join(labels.notes([s], Keys()))


def test_six_numbers_under_an_unusual_name_have_no_known_order():
    """The copper set of mlearn has its virials in VASP's order: xx yy zz xy yz xz."""
    s = from_atoms(frame(energy=-1.0, dft_virial=np.arange(6.0)))
    assert s.stress is None
    notes = "\n".join(labels.notes([s], Keys()))
    assert "labels in the frames that are not used: dft_virial" in notes
    assert "set data.keys: {virial: dft_virial}" in notes


@pytest.mark.parametrize(
    "named",
    [
        {"energy_dft": -1.0, "energy_xtb": -2.0},
        {"energy_per_atom": -0.5},
        {"predicted_energy": -1.0},
        {"MACE_energy": -1.0},
        {"energy_uncertainty": 0.1},
        {"kinetic_energy": 0.1},
        {"REF_energy": "text"},
        {"dft_energies": np.ones(2)},
    ],
)
def test_what_is_not_taken(named):
    s = from_atoms(frame(**named))
    assert s.energy is None
    with pytest.raises(BadInput, match="no energy"):
        validation.check([s], Keys(), need_forces=False)


def test_two_tensors_are_not_chosen_between():
    s = from_atoms(frame(energy=-1.0, dft_stress=np.eye(3), dft_virial=np.eye(3)))
    assert s.stress is None


def test_a_usual_or_a_named_label_counts_alone():
    atoms = frame(energy=-1.0, REF_energy=-2.0, REF_forces=np.ones((2, 3)))
    assert from_atoms(atoms).energy == -1.0
    named = Keys(forces="force", named=frozenset({"forces"}))
    assert from_atoms(atoms, named).forces is None
    assert from_atoms(atoms, Keys(forces=None)).forces is None
    both = "\n".join(labels.notes([from_atoms(atoms)], Keys()))
    assert "is taken as the energy" not in both
