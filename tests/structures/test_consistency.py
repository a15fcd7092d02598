"""Units, signs and orders that labels contradict: exact labels scaled on purpose are named."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from mlplugins.structures import close_frames, consistency, pair_fit
from mlplugins.structures.dataset import Keys, Structure, from_atoms, read

KEYS = Keys()
VOIGT_TO_VASP = [0, 1, 2, 5, 3, 4]  # xx yy zz xy yz zx out of xx yy zz yz xz xy


def labelled(atoms: Atoms, calculator) -> Structure:
    atoms.calc = calculator
    atoms.get_potential_energy()
    atoms.get_forces()
    if atoms.pbc.all():
        atoms.get_stress()
    return from_atoms(atoms)


def snapshots(n: int, step: float, strain: float, seed: int = 0) -> list[Structure]:
    """Independent rattled and strained copies of fcc argon or copper (ASE's own labels)."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        atoms = bulk("Ar", "fcc", a=5.4, cubic=True) * (2, 1, 1)
        deformation = np.eye(3) + rng.normal(0, strain, (3, 3))
        atoms.set_cell(atoms.cell @ (0.5 * (deformation + deformation.T)), scale_atoms=True)
        atoms.positions += rng.normal(0, step, atoms.positions.shape)
        found.append(labelled(atoms, LennardJones(epsilon=0.0104, sigma=3.4, rc=6.0, smooth=True)))
    return found


def path(n: int, seed: int = 0, size: float = 0.01) -> list[Structure]:
    """A smooth path of copper, many-body (EMT), positions and cell: each frame is close to the next."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Cu", "fcc", a=3.7, cubic=True)
    atoms.rattle(0.15, seed=seed)
    move, strain = rng.normal(0, size, (len(atoms), 3)), rng.normal(0, size / 3, (3, 3))
    found = []
    for k in range(n):
        copy = atoms.copy()
        copy.positions += k * move
        copy.set_cell(copy.cell @ (np.eye(3) + np.sin(k) * (strain + strain.T)), scale_atoms=True)
        found.append(labelled(copy, EMT()))
    return found


INDEPENDENT = snapshots(24, 0.12, 0.02)
CLOSE = path(16)
SETS = {"independent": INDEPENDENT, "close": CLOSE}


def scaled(structures, energy=1.0, forces=1.0, stress=1.0):
    return [
        replace(s, energy=s.energy * energy, forces=s.forces * forces, stress=s.stress * stress)
        for s in structures
    ]


@pytest.mark.parametrize("name", SETS)
def test_right_labels_pass(name):
    assert consistency.check(SETS[name], Keys()) == []


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("GPa", 1 / units.GPa),
        ("kbar", 10 / units.GPa),
        ("bar", 1 / units.bar),
        ("hartree/bohr³", units.Bohr**3 / units.Hartree),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_units_of_the_stress_are_named(name, unit, factor, sign):
    notes = consistency.check(scaled(SETS[name], stress=sign * factor), Keys())
    (note,) = [n for n in notes if n.startswith("stress (key 'stress')")]
    assert f"{unit} (factor {factor:.4g})" in note
    assert ("opposite sign" in note) == (sign < 0)


@pytest.mark.parametrize("name", SETS)
def test_the_sign_of_the_stress_and_a_virial_are_named(name):
    (note,) = consistency.check(scaled(SETS[name], stress=-1.0), Keys())
    assert "of the opposite sign" in note
    assert "factor" not in note
    virials = [replace(s, stress=-s.stress * s.volume) for s in SETS[name]]
    (note,) = consistency.check(virials, Keys())
    assert "a virial V·σ in eV" in note
    assert "opposite sign" in note
    stresses = [replace(s, stress=-s.stress / s.volume, taken=("w",)) for s in SETS[name]]
    (note,) = consistency.check(stresses, Keys(virial="w"))
    assert "a stress in eV/Å³ instead of a virial" in note


@pytest.mark.parametrize(
    ("energy", "forces", "text"),
    [
        (1 / units.Hartree, 1, "energies in hartree"),
        (1 / units.Rydberg, 1, "energies in Ry"),
        (units.mol / units.kcal, 1, "energies in kcal/mol"),
        (units.mol / units.kJ, 1, "energies in kJ/mol"),
        (1, units.Bohr / units.Hartree, "forces in hartree/bohr"),
        (1, units.Bohr / units.Rydberg, "forces in Ry/bohr"),
        (1, units.mol / units.kcal, "forces in kcal/mol/Å"),
        (1 / units.Hartree, units.Bohr / units.Hartree, "both in atomic units"),
        (0.25, 1, "energies per atom"),
        (1, -1, "forces of the opposite sign (gradients dE/dr)"),
    ],
)
def test_units_of_energies_and_forces_are_named(energy, forces, text):
    notes = consistency.check(scaled(CLOSE, energy, forces), Keys())
    (note,) = [n for n in notes if n.startswith("energies and forces do not belong together")]
    assert text in note
    if 1 in (energy, forces):  # the stress belongs to the other one
        assert not [n for n in notes if n.startswith("stress")]


def test_gradients_are_seen_in_independent_frames_too():
    for frames in (snapshots(24, 0.12, 0.0), INDEPENDENT):
        assert consistency.check(frames, Keys()) == []
        (note,) = consistency.check(scaled(frames, forces=-1.0), Keys())
        assert "forces of the opposite sign (gradients dE/dr)" in note


def test_vasp_order_of_the_shear_is_named():
    swapped = []
    for s in INDEPENDENT:
        v = np.array([s.stress[i, j] for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))])
        xx, yy, zz, yz, xz, xy = v[VOIGT_TO_VASP]
        swapped.append(replace(s, stress=np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])))
    (note,) = consistency.check(swapped, Keys())
    assert note.endswith("as xx yy zz xy yz xz")


def test_the_order_of_the_shear_is_named_of_ten_frames_too():
    frames = []
    for k in range(10):
        atoms = bulk("Ar", "fcc", a=5.2 + 0.03 * k, cubic=True)
        atoms.rattle(0.15, seed=k)
        strain = np.eye(3) + 0.03 * np.random.default_rng(k).normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        frames.append(labelled(atoms, LennardJones(epsilon=0.0104, sigma=3.4, rc=6.0, smooth=True)))
    assert consistency.check(frames, Keys()) == []
    turned = [replace(s, stress=s.stress[np.ix_([1, 2, 0], [1, 2, 0])]) for s in frames]
    cyclic = []  # the diagonal right, yz xz xy as xy yz zx
    for s, other in zip(frames, turned):
        tensor = other.stress.copy()
        np.fill_diagonal(tensor, np.diag(s.stress))
        cyclic.append(replace(s, stress=tensor))
    (note,) = consistency.check(cyclic, Keys())
    assert "not in the order xx yy zz yz xz xy" in note


def test_factors_of_close_frames_are_exact():
    found = close_frames.factors(close_frames.pairs(CLOSE))
    assert found.energy == pytest.approx(1.0, abs=0.02)
    assert found.stress == pytest.approx(1.0, abs=0.05)


def test_the_energy_that_the_forces_differentiate_is_found():
    rng = np.random.default_rng(3)
    frames = []
    for s in CLOSE:
        other = s.energy + rng.normal(0, 0.05)
        frames.append(replace(s, energy=other, energies={"E0": other, "F": s.energy}, taken=("E0", "forces")))
    (note,) = consistency.check(frames, Keys(energy="E0"))
    assert note.startswith("the forces belong to 'F' rather than to 'E0'")
    right = [replace(s, energies={"E0": s.energy, "F": s.energy + 0.1}, taken=("E0",)) for s in CLOSE]
    assert consistency.check(right, Keys(energy="E0")) == []


def test_absurd_magnitudes_need_no_other_frame():
    one = CLOSE[:1]
    (note,) = consistency.check(scaled(one, stress=1 / units.bar), Keys())
    assert "largest component of the median frame" in note
    (note,) = consistency.check(scaled(one, forces=100.0), Keys())
    assert "RMS force of the median frame" in note


def test_a_pair_potential_reproduces_itself():
    fit = pair_fit.implied(INDEPENDENT)
    assert fit.r2 > 0.99
    labels = np.array([s.stress * s.volume for s in fit.structures])
    shear = [(1, 2), (0, 2), (0, 1)]
    x = np.array([[w[i, j] for i, j in shear] for w in fit.virial]).ravel()
    y = np.array([[w[i, j] for i, j in shear] for w in labels]).ravel()
    assert x @ y / (x @ x) == pytest.approx(1.0, abs=0.1)


def metal(symbol, strain, n=24):
    """Rattled cubic cells of four atoms (EMT, many-body) with lower triangular strain."""
    rng = np.random.default_rng(7)
    found = []
    for _ in range(n):
        atoms = bulk(symbol, cubic=True)
        deformation = np.eye(3) + np.tril(rng.normal(0, strain, (3, 3)))
        atoms.set_cell(atoms.cell @ deformation, scale_atoms=True)
        atoms.positions += rng.normal(0, 0.12, atoms.positions.shape)
        found.append(labelled(atoms, EMT()))
    return found


@pytest.mark.parametrize("symbol", ["Al", "Au"])
def test_small_factors_are_seen_where_pairs_explain_the_forces(symbol):
    """Four atoms: energies per atom; atomic units of both, with positions in Å (1/0.529)."""
    frames = [replace(s, stress=None) for s in metal(symbol, 0.03)]
    assert consistency.check(frames, KEYS) == []
    [note] = consistency.check(scaled_energies(frames, 0.25), KEYS)
    assert "energy differences are 0.25" in note
    assert "energies per atom instead of totals" in note
    atomic = [replace(s, energy=s.energy / 27.2114, forces=s.forces / 51.4221) for s in frames]
    [note] = consistency.check(atomic, KEYS)
    assert "both in atomic units" in note


def scaled_energies(frames, factor):
    return [replace(s, energy=s.energy * factor) for s in frames]


@pytest.mark.parametrize("strain", [0.005, 0.02])
def test_transposed_cells_are_seen_at_small_strain(strain):
    frames = [replace(s, stress=None) for s in metal("Cu", strain)]
    assert consistency.check(frames, KEYS) == []
    [note] = consistency.check([replace(s, cell=s.cell.T.copy()) for s in frames], KEYS)
    assert note.startswith("the cells are transposed")


def test_too_little_says_nothing():
    assert consistency.check(CLOSE[:2], Keys()) == []
    assert consistency.check([replace(s, forces=None) for s in CLOSE], Keys()) == []
    assert consistency.check([], Keys()) == []


@pytest.mark.long
def test_dft_of_the_example_passes():
    frames = read("examples/data/li6ps5cl_pbe/train.extxyz")
    assert consistency.check(frames, Keys()) == []
    (note,) = consistency.check(scaled(frames, stress=-10 / units.GPa), Keys())
    assert "kbar (factor 1602)" in note
    assert "opposite sign" in note


@pytest.mark.parametrize("periodic", [True, False])
def test_forces_that_do_no_work_of_the_energies_are_said(periodic):
    """In another order of the atoms, or of turned positions, around one structure; right ones pass."""
    rng = np.random.default_rng(2)
    frames = []
    for _ in range(14):
        atoms = bulk("Cu", "fcc", a=3.7, cubic=True)
        atoms.symbols[0] = "Au"
        atoms.pbc = periodic
        atoms.positions += [[0.1, 0.2, 0.0], [0, 0, 0.2], [0.2, 0, 0], [0, 0.3, 0.1]]
        atoms.positions += rng.normal(0, 0.04, atoms.positions.shape)
        frames.append(labelled(atoms, EMT()))
    assert not [text for text in consistency.check(frames, KEYS) if "belong together" in text]
    turn = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    for wrong in (lambda f: f[[1, 2, 3, 0]], lambda f: f @ turn):
        notes = consistency.check([replace(s, forces=wrong(s.forces)) for s in frames], KEYS)
        assert [text for text in notes if "belong together" in text]


REAL = read("examples/data/li6ps5cl_pbe/train.extxyz")
OTHERS = {
    "of the next frame": lambda k, s: REAL[(k + 1) % len(REAL)].forces,
    "sorted by element": lambda k, s: s.forces[np.argsort(s.numbers, kind="stable")],
    "turned": lambda k, s: s.forces[:, [1, 2, 0]],
}


@pytest.mark.parametrize("how", OTHERS)
def test_forces_of_other_positions(how):
    """Independent frames, none of which is close to another."""
    wrong = [replace(s, forces=OTHERS[how](k, s)) for k, s in enumerate(REAL)]
    [note] = [text for text in consistency.check(wrong, KEYS) if "positions" in text]
    assert "the forces do not belong to the positions: a pair potential explains 0 %" in note
    assert not [text for text in consistency.check(REAL, KEYS) if "positions" in text]
