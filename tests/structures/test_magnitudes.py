"""Sets that are consistent in themselves, in other units: total energies, force constants and sizes tell."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene, molecule
from ase.calculators.emt import EMT
from ase.neighborlist import neighbor_list

from mlplugins.structures import magnitudes
from mlplugins.structures.dataset import Structure, read

HARTREE, BOHR = 27.211386, 0.529177
TOTAL = {"CH4": -40.22, "H2O": -76.07, "N2": -108.99, "CH3CH2OH": -154.13, "C6H6": -230.77, "HCN": -92.91}
"""Hartree–Fock energies near the basis-set limit, hartree."""
VALENCE = {"CH4": -24.04, "H2O": -14.22, "N2": -16.64}
"""As VASP's PBE gives them, against its own atoms, eV."""


def molecules(energies, unit=1.0):
    return [
        Structure(m.numbers, m.positions, np.zeros((3, 3)), np.zeros(3, bool), energy=e * unit)
        for m, e in ((molecule(name), e) for name, e in energies.items())
    ]


@pytest.mark.parametrize(("unit", "name"), [(1.0, "hartree"), (627.5095, "kcal/mol"), (2625.5, "kJ/mol")])
def test_total_energies_in_other_units_are_named(unit, name):
    [note] = magnitudes.check(molecules(TOTAL, unit))
    assert f"total energies in {name} " in note


def test_energies_in_ev_pass():
    assert magnitudes.check(molecules(TOTAL, HARTREE)) == []
    assert magnitudes.check(molecules(VALENCE)) == []


def diatomics(symbols, k, r0, n=20):
    """Harmonic diatomic molecules: E = k (r − r0)²/2, in eV."""
    rng = np.random.default_rng(3)
    found = []
    for r in r0 + rng.normal(0, 0.04, n):
        pull = -k * (r - r0)
        positions = np.array([[0, 0, 0], [0, 0, r]])
        forces = np.array([[0, 0, -pull], [0, 0, pull]])
        energy = 0.5 * k * (r - r0) ** 2
        numbers = Atoms(symbols).numbers
        found.append(Structure(numbers, positions, np.zeros((3, 3)), np.zeros(3, bool), energy, forces))
    return found


def scaled(frames, energy, forces):
    return [replace(s, energy=s.energy / energy, forces=s.forces / forces) for s in frames]


# force constants of Huber and Herzberg, mdyn/Å (6.2415 eV/Å²): the stiffest and some of the softest
CONSTANTS = [("CO", 19.02, 1.128), ("H2", 5.76, 0.741), ("F2", 4.70, 1.412), ("Cl2", 3.23, 1.988)]
CONSTANTS += [("I2", 1.72, 2.666), ("HI", 3.14, 1.609), ("NaCl", 1.09, 2.361), ("Li2", 0.255, 2.673)]


@pytest.mark.parametrize(("symbols", "mdyn", "r0"), CONSTANTS)
def test_force_constants_of_molecules(symbols, mdyn, r0):
    frames = diatomics(symbols, 6.2415 * mdyn, r0)
    kind = tuple(sorted(Atoms(symbols).numbers.tolist()))
    assert magnitudes.bond_stiffness(frames)[kind] == pytest.approx(2 * 6.2415 * mdyn, rel=1e-6)
    assert magnitudes.check(frames) == []
    [note] = magnitudes.check(scaled(frames, HARTREE, HARTREE / BOHR))
    assert "impossibly soft" in note
    assert "hartree/bohr" in note


def springs(crystal, length, k, size, n=8):
    """Displaced crystals of springs between neighbours, E = k (r − length)²/2, to first order."""
    rng = np.random.default_rng(2)
    i, j, bonds = neighbor_list("ijD", crystal, 1.1 * length)
    bonds /= length
    found = []
    for _ in range(n):
        moved = rng.normal(0, size, crystal.positions.shape)
        pull = k * np.einsum("ea,ea->e", moved[j] - moved[i], bonds)
        forces = np.zeros_like(moved)
        np.add.at(forces, i, pull[:, None] * bonds)
        found.append(
            Structure(
                crystal.numbers,
                crystal.positions + moved,
                crystal.cell.array,
                crystal.pbc,
                -9.0 * len(crystal),
                forces,
            )
        )
    return found


@pytest.mark.parametrize("size", [0.005, 0.03])
@pytest.mark.parametrize("cells", [1, 2])
def test_two_phases_with_small_displacements_keep_their_stiffness(size, cells):
    """Diamond and graphene: 7/3 and 5/2 of the spring by the angles between bonds; one cell: 8/3 and 3."""
    diamond = bulk("C", a=3.567) * cells
    sheet = graphene(a=2.46, vacuum=6.0) * (cells, cells, 1)
    frames = [*springs(diamond, 1.5446, 30.0, size), *springs(sheet, 1.4203, 30.0, size)]
    assert 2.2 * 30 < magnitudes.bond_stiffness(frames)[6, 6] < 3.1 * 30
    assert magnitudes.check(frames) == []
    [note] = magnitudes.check([replace(s, forces=s.forces / 51.4) for s in frames])
    assert "impossibly soft" in note


def test_kilocalories_make_stiff_bonds():
    [note] = magnitudes.check(scaled(diatomics("CO", 119.0, 1.128), 1 / 23.06, 1 / 23.06))
    assert "impossibly stiff" in note
    assert "kcal/mol/Å" in note


def metal(symbol, n=12, cells=(1, 2)):
    """Rattled and strained crystals of EMT, of one and of eight cubic cells."""
    rng = np.random.default_rng(1)
    found = []
    for k in range(n):
        atoms = bulk(symbol, cubic=True).repeat(cells[k % len(cells)])
        atoms.set_cell(atoms.cell * rng.uniform(0.96, 1.04), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy() - 3.5 * len(atoms), atoms.get_forces()
        found.append(
            Structure(atoms.numbers, atoms.positions, atoms.cell.array, np.ones(3, bool), energy, forces)
        )
    return found


@pytest.mark.parametrize("symbol", ["Al", "Pt"])
def test_energies_per_atom_do_not_grow(symbol):
    frames = metal(symbol)
    assert magnitudes.check(frames) == []
    [note] = magnitudes.check([replace(s, energy=s.energy / len(s)) for s in frames])
    assert "energies per atom?" in note
    [note] = magnitudes.check(scaled(frames, HARTREE, HARTREE / BOHR))
    assert "impossibly soft" in note


def test_dft_of_the_example_passes():
    frames = read("examples/data/li6ps5cl_pbe/train.extxyz")
    assert magnitudes.check(frames) == []
    [note] = magnitudes.check(scaled(frames, HARTREE, HARTREE / BOHR))
    assert note.startswith("the forces make bonds impossibly soft: P–S has 0.441 eV/Å²")
