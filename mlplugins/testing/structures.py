"""The structures every family and every engine is tested on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc111, molecule


def standard_structures(elements: Sequence[str] = ("Li", "S"), seed: int = 0) -> dict[str, Atoms]:
    """Molecule, crystal, triclinic cell, slab, one atom, empty neighbourhood, cell below the cutoff.

    Every structure uses only `elements`, is rattled, and keeps its atoms at sensible distances.

    >>> sorted(standard_structures())[:3]
    ['crystal', 'lone_pair', 'molecule']
    """
    rng = np.random.default_rng(seed)
    first = elements[0]
    crystal = bulk(first, "fcc", a=4.4, cubic=True) * (2, 2, 1)
    triclinic = bulk(first, "fcc", a=4.4) * (2, 2, 2)
    triclinic.set_cell(triclinic.cell.array @ _shear(), scale_atoms=True)
    slab = fcc111(first, (2, 2, 3), a=4.4, vacuum=6.0, periodic=False)
    slab.pbc = (True, True, False)
    far = Atoms([first, first], positions=[[0, 0, 0], [0, 0, 40.0]])
    structures = {
        "molecule": _relabelled(molecule("CH3CH2OH"), first),
        "crystal": crystal,
        "triclinic": triclinic,
        "slab": slab,
        "small_cell": bulk(first, "fcc", a=3.9, cubic=True),
        "one_atom": Atoms([first], positions=[[0.3, 0.1, 0.2]]),
        "lone_pair": far,
    }
    for atoms in structures.values():
        atoms.rattle(0.08, rng=rng)
        atoms.symbols = [elements[k % len(elements)] for k in range(len(atoms))]
    return structures


def _shear() -> np.ndarray:
    return np.array([[1.0, 0.0, 0.0], [0.15, 1.05, 0.0], [-0.1, 0.2, 0.97]])


def _relabelled(atoms: Atoms, symbol: str) -> Atoms:
    atoms.positions *= 1.6  # bond lengths of the heavier elements used in tests
    atoms.symbols = [symbol] * len(atoms)
    return atoms
