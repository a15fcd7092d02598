"""Structures too long for vesin's cells are refused, and those just short of it are not."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from mlplugins.errors import BadInput
from mlplugins.structures.neighbors import neighbor_list, require_extent

FREE = np.zeros(3, dtype=bool)
NO_CELL = np.zeros((3, 3))


@pytest.mark.parametrize("distance", [1e2, 1e4, 1e5])
def test_pairs_of_two_distant_molecules(distance):
    positions = [[0, 0, 0], [1.5, 0, 0], [distance, 0, 0], [distance, 2, 0]]
    edges = neighbor_list(positions, NO_CELL, FREE, 5.0)
    assert edges.centers.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(np.abs(edges.vectors).sum(axis=1), [1.5, 1.5, 2, 2], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("far", "what"),
    [
        ([1e6, 0, 0], "makes the structure too long for neighbours within 5 Å"),
        ([0, 3e7, 5], "makes the structure too long"),
        ([0, 0, 2e8], "is not finite or out of bounds"),
        ([0, np.nan, 0], "is not finite or out of bounds"),
        ([-np.inf, 0, 0], "is not finite or out of bounds"),
    ],
)
def test_an_atom_far_away_is_named(far, what):
    """The check alone: it must come before vesin sees these numbers."""
    positions = np.array([[0.0, 0, 0], [1.0, 0, 0], far, [0, 1.0, 0]])
    with pytest.raises(BadInput, match=rf"atom 2 at .*{what}"):
        require_extent(positions, NO_CELL, FREE, 5.0)


def test_large_and_flat_systems_are_no_false_alarms():
    cube = np.array([[0.0, 0, 0], [900.0, 900, 900]])
    require_extent(cube, NO_CELL, FREE, 2.0)
    all_periodic = np.ones(3, dtype=bool)
    require_extent(cube, np.diag([1000.0, 1000, 1000]), all_periodic, 4.0)
    require_extent(cube, np.diag([2000.0, 2000, 30]), all_periodic, 5.0)
    require_extent(cube, np.diag([3.0, 3.0, 3.0]), all_periodic, 5.0)
    slab = np.array([True, True, False])
    require_extent(np.array([[0.0, 0, 0], [0, 0, 300.0]]), np.diag([50.0, 50, 0]), slab, 5.0)


def test_a_slab_with_a_lost_atom_is_refused_before_it_takes_minutes():
    slab = np.array([True, True, False])
    positions = np.array([[0.0, 0, 0], [1.0, 0, 2.0], [0, 0, 9e4]])
    with pytest.raises(BadInput, match="atom 2 at"):
        require_extent(positions, np.diag([20.0, 20, 0]), slab, 5.0)


def test_batches_of_training_refuse_it_too():
    atoms = Atoms("Ar3", [[0, 0, 0], [1, 0, 0], [2e6, 0, 0]])
    with pytest.raises(BadInput, match="atom 2 at"):
        neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, 5.0)
