"""Edges of the same pair of atoms share a row of radial weights."""

import ase.build
import numpy as np
import pytest
import torch

from mlplugins.ops import reference
from mlplugins.structures.neighbors import neighbor_list

pytestmark = pytest.mark.usefixtures("compiled")


def _edges(atoms, cutoff, dtype=torch.float64):
    edges = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    vectors = torch.from_numpy(edges.vectors).to(dtype)
    return torch.from_numpy(edges.centers), torch.from_numpy(edges.neighbors), vectors


def _rattled(atoms):
    atoms.rattle(0.1, seed=3)
    return atoms


STRUCTURES = {
    "molecule": _rattled(ase.build.molecule("CH3CH2OH")),
    "crystal": _rattled(ase.build.bulk("NaCl", "rocksalt", 5.6, cubic=True)),
    "one atom, images of itself": ase.build.bulk("Cu", "fcc", 3.6),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", STRUCTURES)
def test_every_pair_shares_and_nothing_else(name, dtype):
    centers, neighbors, vectors = _edges(STRUCTURES[name], 5.0, dtype)
    first, row = torch.ops.mlplugins.edge_rows(centers, neighbors, vectors)
    assert len(first) == len(centers) // 2
    assert torch.equal(torch.bincount(row), torch.full((len(first),), 2))
    assert torch.equal(row[first], torch.arange(len(first)))
    second = np.setdiff1d(np.arange(len(centers)), first.numpy())
    one, two = first[row[second]], torch.from_numpy(second)
    assert torch.equal(centers[one], neighbors[two])
    assert torch.equal(neighbors[one], centers[two])
    torch.testing.assert_close(
        vectors[one], -vectors[two], rtol=0, atol=4e-6 if dtype == torch.float32 else 1e-11
    )


def test_ghosts_and_moved_ends_keep_their_own_rows():
    centers, neighbors, vectors = _edges(STRUCTURES["molecule"], 5.0)
    half = centers < 4  # the other atoms are ghosts: no edges of their own
    first, row = torch.ops.mlplugins.edge_rows(centers[half], neighbors[half], vectors[half])
    inside = int((half & (neighbors < 4)).sum())
    assert len(first) == int(half.sum()) - inside // 2

    moved = vectors.clone()
    moved[0, 0] += 1e-6  # a finite difference of one vector, its reverse left alone
    first, row = torch.ops.mlplugins.edge_rows(centers, neighbors, moved)
    assert len(first) == len(centers) // 2 + 1
    assert torch.bincount(row)[row[0]] == 1


def test_reference_gives_every_edge_its_own():
    first, row = reference.edge_rows(*_edges(STRUCTURES["molecule"], 5.0))
    assert torch.equal(first, row)
    assert torch.equal(row, torch.arange(len(row)))


def test_no_edges_and_bad_input():
    none = torch.zeros(0, dtype=torch.long)
    first, row = torch.ops.mlplugins.edge_rows(none, none, torch.zeros(0, 3))
    assert len(first) == len(row) == 0
    edge = torch.tensor([1, 0])
    with pytest.raises(RuntimeError, match="sorted by centre"):
        torch.ops.mlplugins.edge_rows(edge, edge, torch.zeros(2, 3))
    with pytest.raises(RuntimeError, match="must be int64"):
        torch.ops.mlplugins.edge_rows(edge.int(), edge.int(), torch.zeros(2, 3))
    with pytest.raises(RuntimeError, match=r"vectors \(E, 3\)"):
        torch.ops.mlplugins.edge_rows(edge, edge, torch.zeros(3, 3))
