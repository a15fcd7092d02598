"""Water molecules labelled by Morse pair potentials: exact energies and forces, two equivalent hydrogens."""

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

DEPTH = {"HO": 4.0, "HH": 1.0}
RANGE = {"HO": 0.96, "HH": 1.52}
ALPHA = 1.8
REFERENCE = np.array([[0.0, 0.0, 0.0], [0.76, 0.59, 0.0], [-0.76, 0.59, 0.0]])


def label(atoms: Atoms) -> Atoms:
    """Morse energies and forces."""
    energy, forces = 0.0, np.zeros((len(atoms), 3))
    for i in range(len(atoms)):
        for j in range(i):
            pair = "".join(sorted(atoms[i].symbol + atoms[j].symbol))
            v = atoms.positions[i] - atoms.positions[j]
            r = np.linalg.norm(v)
            x = np.exp(-ALPHA * (r - RANGE[pair]))
            energy += DEPTH[pair] * ((1 - x) ** 2 - 1)
            slope = 2 * DEPTH[pair] * ALPHA * x * (1 - x)
            forces[i] -= slope * v / r
            forces[j] += slope * v / r
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def water(n: int, seed: int, spread: float = 0.08) -> list[Atoms]:
    """Frames around the equilibrium, turned at random."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        positions = (REFERENCE + rng.normal(0, spread, (3, 3))) @ rotation
        frames.append(label(Atoms("OH2", positions)))
    return frames
