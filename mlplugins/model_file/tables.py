"""Radial tables at export: cubic interpolation in place of radial networks, with its error."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from ase import Atoms
from ase.build import bulk
from numpy.typing import NDArray

from mlplugins.elements import covalent_radius
from mlplugins.models.base import Potential, energy_derivatives
from mlplugins.models.capabilities import use_radial_tables
from mlplugins.structures.batch import graph_of


@dataclass(frozen=True)
class TableError:
    """Error of the tables, in float64, without round-off.

    Attributes:
        n_knots: knots of every table.
        force_eV_A: largest difference of a force component, eV/Å.
        relative_force: the same over the largest force component.
        energy_meV_per_atom: largest difference of a structure's energy, meV/atom.
    """

    n_knots: int
    force_eV_A: float
    relative_force: float
    energy_meV_per_atom: float

    def __str__(self) -> str:
        return (
            f"radial tables of {self.n_knots} knots: force error {self.force_eV_A:.1e} eV/Å "
            f"({self.relative_force:.1e} of the largest force), "
            f"energy error {self.energy_meV_per_atom:.1e} meV/atom"
        )


def tabulated(
    potential: Potential, elements: Sequence[str], n_knots: int, structures: Sequence[Atoms] = ()
) -> tuple[Potential, TableError]:
    """A copy of `potential` with radial tables, and its error on `structures`.

    Args:
        potential: a family with radial networks of the distance alone.
        elements: symbols, in the order of the species index.
        n_knots: knots between r = 0 and the cutoff.
        structures: where the error is measured; without any, on rattled crystals of the model's elements.

    Raises:
        BadInput: the family has nothing to tabulate, or too few knots.
    """
    exact = copy.deepcopy(potential).double().eval().requires_grad_(False)
    table = copy.deepcopy(exact)
    use_radial_tables(table, n_knots)
    worst, largest, worst_energy = 0.0, 0.0, 0.0
    for atoms in structures or samples(elements):
        energy, forces = _evaluate(exact, elements, atoms)
        table_energy, table_forces = _evaluate(table, elements, atoms)
        worst = max(worst, float(np.abs(table_forces - forces).max()))
        largest = max(largest, float(np.abs(forces).max()))
        worst_energy = max(worst_energy, abs(table_energy - energy) / len(atoms))
    error = TableError(n_knots, worst, worst / largest if largest else 0.0, 1e3 * worst_energy)
    return table.to(next(chain(potential.parameters(), potential.buffers())).dtype), error


def samples(elements: Sequence[str]) -> list[Atoms]:
    """Rattled fcc crystals of up to ten of the elements, compressed and expanded, 32 atoms each.

    >>> [len(atoms) for atoms in samples(["Li", "S"])]
    [32, 32, 32]
    """
    generator = np.random.default_rng(0)
    chosen = list(elements)[:: max(1, len(elements) // 10)]
    diameter = 2 * float(np.mean([covalent_radius(symbol) for symbol in chosen]))
    structures = []
    for stretch in (0.95, 1.1, 1.3):
        atoms = bulk("Cu", "fcc", a=np.sqrt(2) * diameter * stretch, cubic=True) * (2, 2, 2)
        atoms.symbols = generator.choice(chosen, len(atoms))
        atoms.positions += generator.normal(0, 0.05 * diameter, atoms.positions.shape)
        structures.append(atoms)
    return structures


def _evaluate(
    potential: Potential, elements: Sequence[str], atoms: Atoms
) -> tuple[float, NDArray[np.float64]]:
    graph = graph_of(atoms, elements, potential.cutoff)
    graph.vectors.requires_grad_()
    energy = potential(graph)["energy"]
    forces, _ = energy_derivatives(energy, graph, 1)
    return float(energy.detach().sum()), forces.detach().numpy()
