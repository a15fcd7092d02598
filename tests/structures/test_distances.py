"""Distances without a neighbour list, against vesin's."""

from __future__ import annotations

import numpy as np
import pytest

from mlplugins.errors import BadInput
from mlplugins.structures.distances import distances
from mlplugins.structures.neighbors import neighbor_list


def test_the_same_pairs_as_in_a_neighbour_list():
    random, compared = np.random.default_rng(5), 0
    for _ in range(60):
        cell, pbc = random.normal(size=(3, 3)) * random.uniform(1, 8), random.random(3) < 0.6
        if abs(np.linalg.det(cell)) < 8:
            continue
        positions = 10 * random.normal(size=(random.integers(1, 20), 3))
        reach = random.uniform(1, 7)
        edges = neighbor_list(positions, cell, pbc, reach)
        expected = np.linalg.norm(edges.vectors, axis=1)
        first, second, found = distances(positions, cell, pbc, reach)
        one, other = (
            np.lexsort((expected, edges.neighbors, edges.centers)),
            np.lexsort((found, second, first)),
        )
        np.testing.assert_array_equal(first[other], edges.centers[one])
        np.testing.assert_array_equal(second[other], edges.neighbors[one])
        np.testing.assert_allclose(found[other], expected[one], rtol=1e-12)
        compared += len(found)
    assert compared > 1000


def test_atoms_at_one_place_are_a_pair():
    assert distances([[0, 0, 0], [0, 0, 0]], np.eye(3), [False] * 3, 1.0)[2].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("positions", "width", "said"),
    [([[0, np.nan, 0]], 3.0, "position of atom 0"), ([[0, 0, 0]], 1e-3, "thin"), ([[0, 0, 0]], 0.1, "thin")],
)
def test_what_has_no_distances(positions, width, said):
    with pytest.raises(BadInput, match=said):
        distances(positions, width * np.eye(3), [True] * 3, 5.0)


def test_atoms_inside_count_for_nothing(monkeypatch):
    """As many of them as fit into memory: only the images around a cell make it too thin."""
    monkeypatch.setattr("mlplugins.structures.distances.MOST", 2000)
    lattice = np.argwhere(np.ones((10, 10, 10)))
    assert len(distances(3.0 * lattice, 30 * np.eye(3), [True] * 3, 3.1)[0]) == 6000
