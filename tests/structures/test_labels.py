"""Which labels are taken, which are listed, and which keys are refused."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.units import Bohr

from mlplugins.errors import BadInput
from mlplugins.structures import labels
from mlplugins.structures.dataset import Keys, from_atoms, read


def argon(n=6):
    """Rattled fcc argon with the labels of ASE's Lennard-Jones calculator in `info` and `arrays`."""
    found = []
    for k in range(n):
        atoms = bulk("Ar", "fcc", a=5.3 + 0.03 * k, cubic=True)
        atoms.rattle(0.15, seed=k)
        atoms.calc = LennardJones(epsilon=0.0104, sigma=3.4, rc=6.0, smooth=True)
        copy = atoms.copy()
        stress = atoms.get_stress(voigt=False)
        copy.info.update(REF_energy=atoms.get_potential_energy(), REF_stress=stress)
        copy.info["REF_virial"] = -atoms.get_volume() * stress
        copy.arrays["REF_forces"] = atoms.get_forces()
        found.append(copy)
    return found


NAMED = Keys(energy="REF_energy", forces="REF_forces", stress="REF_stress")


@pytest.mark.parametrize(
    ("label", "typo"),
    [("energy", "REF_Energy"), ("forces", "REF_force"), ("stress", "ref_stress"), ("virial", "REF_virials")],
)
def test_a_named_key_that_no_frame_has_is_refused_with_the_nearest(label, typo):
    keys = replace(NAMED, **{label: typo})
    structures = [from_atoms(a, keys) for a in argon()]
    with pytest.raises(BadInput, match=f"data.keys: {label}: no frame holds .*nearest: 'REF_{label}'"):
        labels.require_named(structures, keys)
    labels.require_named([from_atoms(a, NAMED) for a in argon()], NAMED)
    labels.require_named([from_atoms(a) for a in argon()], Keys())  # defaults are no promise


def test_a_copied_default_is_no_error_but_said():
    keys = Keys("REF_energy", "REF_forces", named=frozenset({"energy", "forces", "stress"}))
    structures = [from_atoms(a, keys) for a in argon()]
    labels.require_named(structures, keys)
    assert any("no frame holds the stress that data.keys names" in n for n in labels.notes(structures, keys))


def test_a_named_virial_beats_the_default_stress():
    frames = argon()
    for atoms in frames:
        atoms.info["stress"] = -160.2 * atoms.info["REF_stress"]  # GPa, VASP's sign
        s = from_atoms(atoms, Keys("REF_energy", "REF_forces", virial="REF_virial"))
        np.testing.assert_allclose(s.stress, atoms.info["REF_stress"], atol=1e-12)
    atoms = frames[0]
    both = Keys(stress="REF_stress", virial="REF_virial")
    np.testing.assert_allclose(from_atoms(atoms, both).stress, atoms.info["REF_stress"], atol=1e-12)
    for wrong in (Keys(stress="stress", virial="REF_virial", named=frozenset({"stress", "virial"})),):
        with pytest.raises(BadInput, match="stress .* and virial .* contradict each other"):
            from_atoms(atoms, wrong)


def test_frames_with_only_the_default_stress_do_not_stand_in_for_a_named_virial():
    atoms = argon(1)[0]
    atoms.info["stress"] = np.eye(3)
    del atoms.info["REF_virial"]
    assert from_atoms(atoms, Keys(virial="REF_virial")).stress is None


def test_unused_labels_are_listed_with_the_remedy():
    keys = replace(NAMED, stress="stress")
    structures = [from_atoms(a, keys) for a in argon()]
    (note,) = labels.notes(structures, keys)
    assert "not used: REF_stress, REF_virial" in note
    assert "set data.keys: {stress: REF_stress}" in note
    (note,) = labels.notes(structures, replace(NAMED, stress=None))  # declined: listed, no advice
    assert note.endswith("not used: REF_stress, REF_virial")
    structures = [from_atoms(a, NAMED) for a in argon()]
    (note,) = labels.notes(structures, NAMED)
    assert note == "labels in the frames that are not used: REF_virial"
    assert labels.notes(structures, NAMED, ["REF_virial"]) == []


def test_options_and_per_atom_columns_are_no_labels():
    atoms = argon(1)[0]
    del atoms.info["REF_virial"]
    atoms.info.update(calculate_stress=True, elec_energy_tol=1e-8, virial_comment="none")
    assert labels.notes([from_atoms(atoms, NAMED)], NAMED) == []


def vasp(e0, free, forces=0.1):
    atoms = Atoms("Al", cell=np.eye(3) * 4, pbc=True)
    atoms.calc = SinglePointCalculator(atoms, energy=e0, free_energy=free, forces=np.full((1, 3), forces))
    return atoms


def test_the_free_energy_is_taken_and_said(tmp_path):
    write(tmp_path / "a.traj", [vasp(-9.5, -10.0), vasp(-9.4, -9.8)])
    write(tmp_path / "a.extxyz", [vasp(-9.5, -10.0), vasp(-9.4, -9.8)])
    for name in ("a.traj", "a.extxyz"):
        structures = read(tmp_path / name)
        assert [s.energy for s in structures] == [-10.0, -9.8]
        (note,) = labels.notes(structures, Keys())
        assert "'free_energy' is learned" in note
        assert "by up to 500 meV/atom" in note
        keys = Keys(named=frozenset({"energy"}))
        structures = read(tmp_path / name, keys)
        assert [s.energy for s in structures] == [-9.5, -9.4]
        (note,) = labels.notes(structures, keys)
        assert note.startswith("'energy' is learned as named, but it differs from 'free_energy'")
    assert labels.notes([from_atoms(vasp(-9.5, -9.5))], Keys()) == []


def test_the_free_energy_is_what_forces_differentiate():
    """EMT gives both names; the work of the forces is the change of the one that is read."""
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    energies, step = [], np.random.default_rng(0).normal(0, 1e-4, (4, 3))
    for sign in (-1, 1):
        moved = atoms.copy()
        moved.positions += sign * step
        moved.calc = EMT()
        moved.get_forces()
        energies.append(from_atoms(moved).energy)
    atoms.calc = EMT()
    assert energies[1] - energies[0] == pytest.approx(-2 * (atoms.get_forces() * step).sum(), rel=1e-5)


def test_the_stress_of_molecules_is_no_target():
    atoms = molecule("H2O", vacuum=5.0)
    results = dict(energy=-1.0, forces=np.ones((3, 3)) * 0.1, stress=np.zeros(6))
    atoms.calc = SinglePointCalculator(atoms, **results)
    s = from_atoms(atoms)
    assert s.stress is None
    assert labels.notes([s], Keys()) == []
    atoms.info["v"] = np.zeros((3, 3))
    assert from_atoms(atoms, Keys(virial="v")).stress is None
    alone = Atoms("O")  # no cell at all
    alone.info.update(energy=-1.0, v=np.zeros((3, 3)))
    assert from_atoms(alone, Keys(virial="v")).stress is None


def test_a_stress_of_exactly_zero_was_not_computed():
    atoms = argon(1)[0]
    atoms.info["REF_stress"] = np.zeros((3, 3))
    s = from_atoms(atoms, NAMED)
    assert s.stress is None
    assert any("stress of exactly zero" in note for note in labels.notes([s], NAMED))
    atoms.arrays["REF_forces"][:] = 0.0  # a perfect crystal at its volume
    np.testing.assert_array_equal(from_atoms(atoms, NAMED).stress, np.zeros((3, 3)))


def test_a_solid_without_its_flag_is_refused():
    frames = argon()
    for atoms in frames:
        atoms.pbc = False
    with pytest.raises(BadInput, match="pbc F F F, .*was the flag lost"):
        labels.check_flags([from_atoms(a, NAMED) for a in frames])


def test_fractional_coordinates_are_refused():
    atoms = argon(1)[0]
    atoms.positions = atoms.get_scaled_positions()
    with pytest.raises(BadInput, match="all 4 atoms lie between 0 and 1 Å, which fractional coordinates do"):
        labels.check_flags([from_atoms(atoms, NAMED)])


@pytest.mark.parametrize("vacuum", [0.0, 0.5])
def test_clusters_in_a_bounding_box_pass(vacuum):
    """Images would lie on top of atoms: no cell of a solid."""
    cluster = bulk("Cu", "fcc", a=3.6, cubic=True).repeat(2)
    cluster.center(vacuum=vacuum)
    cluster.pbc = False
    labels.check_flags([from_atoms(cluster)])


@pytest.mark.parametrize("vacuum", [2.0, 5.0])
def test_molecules_in_boxes_pass(vacuum):
    frames = [molecule(name, vacuum=vacuum) for name in ("H2O", "CH3CH2OH", "C6H6")]
    labels.check_flags([from_atoms(a) for a in frames])


def test_forces_that_constraints_set_to_zero_are_noticed():
    structures = [from_atoms(a, NAMED) for a in argon()]
    assert labels.notes(structures, replace(NAMED, virial=None), ["REF_virial"]) == []
    forces = structures[2].forces.copy()
    forces[:2] = 0.0
    structures[2] = replace(structures[2], forces=forces, origin="frame 2")
    (note,) = labels.notes(structures, NAMED, ["REF_virial"])
    assert note.startswith("1 frame(s) have atoms whose forces are exactly zero")
    assert "frame 2 (2 atoms" in note


@pytest.mark.parametrize(
    ("forces", "text"),
    [
        (np.zeros((3, 4)), r"expected shape \(4, 3\), got \(3, 4\)"),
        (np.zeros(12), r"expected shape \(4, 3\), got \(12,\)"),
        ("none", "expected numbers of shape"),
    ],
)
def test_forces_of_another_shape_are_refused(forces, text):
    atoms = argon(1)[0]
    atoms.info["F"] = forces
    with pytest.raises(BadInput, match=text):
        from_atoms(atoms, replace(NAMED, forces="F"))


@pytest.mark.parametrize("pbc", [[False] * 3, [True, True, False], [False, True, True]])
def test_a_solid_with_a_flag_lost_along_one_vector_is_refused(pbc):
    solid = bulk("Cu", "fcc", a=3.6, cubic=True) * (2, 2, 2)
    labels.check_flags([from_atoms(solid)])
    solid.pbc = pbc
    with pytest.raises(BadInput, match=f"pbc {labels.flags(np.array(pbc))}, but across its faces"):
        labels.check_flags([from_atoms(solid)])


def test_slabs_and_wires_pass():
    slab = fcc111("Cu", (2, 2, 4), vacuum=5.0)
    wire = bulk("Cu", "fcc", a=3.6, cubic=True) * (1, 1, 3)
    wire.center(vacuum=4.0, axis=(0, 1))
    wire.pbc = [False, False, True]
    labels.check_flags([from_atoms(slab), from_atoms(wire)])


def copper(n=6):
    frames = []
    for k in range(n):
        atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
        atoms.rattle(0.1, seed=k)
        atoms.calc = EMT()
        result = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **result)
        frames.append(atoms)
    return frames


def _said(frames, text):
    return [note for note in labels.notes([from_atoms(a) for a in frames], Keys()) if text in note]


def test_frames_of_forces_that_were_never_computed_are_said():
    frames = copper()
    perfect = bulk("Cu", "fcc", a=3.6, cubic=True)
    perfect.calc = SinglePointCalculator(perfect, energy=0.0, forces=np.zeros((4, 3)))
    far = Atoms("Cu2", [[0, 0, 0], [0, 0, 20.0]])
    far.calc = SinglePointCalculator(far, energy=0.0, forces=np.zeros((2, 3)))
    assert _said([*frames, perfect, far], "exactly zero") == []  # by symmetry, and without neighbours
    for atoms in frames[:2]:
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((4, 3)))
    [note] = _said([*frames, perfect], "exactly zero on all atoms")
    assert note.startswith("2 of 7 frames")


@pytest.mark.parametrize("name", ["H2O", "CH3CH2OH", "LiH", "NaCl"])
def test_lengths_in_bohr_are_said(name):
    atoms = molecule(name)
    assert _said([atoms], "bohr") == []
    atoms.positions /= Bohr
    [note] = _said([atoms], "bohr")
    assert _said([atoms, molecule(name)], "bohr") == []  # some bonds are right
    assert "positions and cell in bohr (1.89 per Å)?" in note


def test_stretched_bonds_and_noble_gases_are_no_bohr():
    curve = [Atoms("H2", [[0, 0, 0], [0, 0, r]]) for r in np.linspace(0.5, 5.0, 20)]
    assert _said(curve, "bohr") == []
    assert _said(argon(), "bohr") == []


def test_electronic_states_that_differ_are_said():
    frames = copper()
    for k, atoms in enumerate(frames):
        atoms.info |= {"charge": k % 2, "spin": 1, "head": "pbe"}
    structures = [from_atoms(atoms) for atoms in frames]
    [note] = labels.unseen_states(structures)
    assert note.startswith("the frames differ in 'charge' (0, 1), which the model does not see")
    assert labels.unseen_states(structures, ["charge"]) == []


@pytest.mark.parametrize(("key", "said"), [("energy_per_atom", True), ("E_pa", True), ("dft_energy", False)])
def test_a_key_called_like_an_energy_per_atom_is_said(key, said):
    keys, found = Keys(energy=key, forces="REF_forces"), []
    for atoms in argon(2):
        atoms.info[key] = atoms.info.pop("REF_energy") / len(atoms)
        found.append(from_atoms(atoms, keys))
    assert any("like an energy per atom" in note for note in labels.notes(found, keys)) == said
