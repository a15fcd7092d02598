"""Candidates of a neighbour list that are within the cutoff."""

import ase.build
import pytest
import torch

from mlplugins.model_file.pairs import _candidates
from mlplugins.model_file.structure import prepare
from mlplugins.ops import reference

pytestmark = pytest.mark.usefixtures("compiled")


def _crystal():
    atoms = ase.build.bulk("NaCl", "rocksalt", 5.6, cubic=True)
    atoms.rattle(0.1, seed=3)
    structure = prepare(atoms, 0)
    return (
        torch.from_numpy(structure.positions),
        torch.from_numpy(structure.cell),
        _candidates(structure, 6.0, True),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_as_the_reference(dtype):
    positions, cell, samples = _crystal()
    arguments = positions.to(dtype), cell.to(dtype), samples, 5.0
    found, expected = torch.ops.mlplugins.near_pairs(*arguments), reference.near_pairs(*arguments)
    for a, b in zip(found[:3], expected[:3]):
        assert torch.equal(a, b)
    assert 0 < len(found[0]) < len(samples)
    assert found[3].dtype == dtype
    torch.testing.assert_close(found[3], expected[3])
    assert float(found[3].norm(dim=1).max()) < 5.0


def test_the_cutoff_itself_is_too_far():
    positions = torch.tensor([[0.0, 0, 0], [3, 4, 0]], dtype=torch.float64)
    samples = torch.tensor([[0, 1, 0, 0, 0]], dtype=torch.int32)
    cell = torch.zeros(3, 3, dtype=torch.float64)
    assert len(torch.ops.mlplugins.near_pairs(positions, cell, samples, 5.0)[0]) == 0
    assert len(torch.ops.mlplugins.near_pairs(positions, cell, samples, 5.000001)[0]) == 1


def test_no_candidates_and_bad_input():
    positions, cell, samples = _crystal()
    assert torch.ops.mlplugins.near_pairs(positions, cell, samples[:0], 5.0)[3].shape == (0, 3)
    with pytest.raises(RuntimeError, match="sample 0 has no such atom"):
        torch.ops.mlplugins.near_pairs(positions, cell, samples[:1] - 1, 5.0)
    with pytest.raises(RuntimeError, match=r"samples \(P, 5\)"):
        torch.ops.mlplugins.near_pairs(positions, cell, samples[:, :2], 5.0)
    with pytest.raises(RuntimeError, match="samples must be int32"):
        torch.ops.mlplugins.near_pairs(positions, cell, samples.long(), 5.0)
    with pytest.raises(RuntimeError, match="both be float32 or float64"):
        torch.ops.mlplugins.near_pairs(positions, cell.float(), samples, 5.0)
