"""Candidates of a neighbour list that are within the cutoff, and how far atoms are from where they were."""

import ase.build
import pytest
import torch
from torch.autograd import forward_ad

from mlplugins.model_file.pairs import _candidates
from mlplugins.model_file.structure import prepare
from mlplugins.ops import reference

pytestmark = pytest.mark.usefixtures("compiled")


def _crystal():
    atoms = ase.build.bulk("NaCl", "rocksalt", 5.6, cubic=True)
    atoms.rattle(0.1, seed=3)
    structure = prepare(atoms, 0)
    positions = torch.from_numpy(structure.positions)
    return (
        positions,
        positions + torch.linspace(-0.3, 0.2, 24, dtype=torch.float64).reshape(8, 3),
        torch.from_numpy(structure.cell),
        _candidates(structure, 6.0, True),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_as_the_reference(dtype):
    *tensors, samples = _crystal()
    arguments = *(t.to(dtype) for t in tensors), samples, 5.0
    found, expected = torch.ops.mlplugins.near_pairs(*arguments), reference.near_pairs(*arguments)
    for a, b in zip(found[:3], expected[:3]):
        assert torch.equal(a, b)
    assert 0 < len(found[0]) < len(samples)
    assert found[3].dtype == dtype
    torch.testing.assert_close(found[3], expected[3])
    assert float(found[3].norm(dim=1).max()) < 5.0
    assert (found[4].shape, found[4].dtype) == ((), dtype)
    torch.testing.assert_close(found[4], expected[4])
    steps = torch.linspace(-0.3, 0.2, 24, dtype=torch.float64)[:3]
    assert float(found[4]) == pytest.approx(float(steps.norm()), rel=1e-5)


def test_no_atoms_have_not_moved_and_nan_is_no_distance():
    none, no_samples = torch.zeros(0, 3, dtype=torch.float64), torch.zeros(0, 5, dtype=torch.int32)
    cell = torch.eye(3, dtype=torch.float64)
    for op in (torch.ops.mlplugins.near_pairs, reference.near_pairs):
        assert float(op(none, none, cell, no_samples, 5.0)[4]) == 0.0
    still = torch.zeros(3, 3, dtype=torch.float64)
    for atom in range(3):
        moved = torch.ones(3, 3, dtype=torch.float64)
        moved[atom, 1] = torch.nan
        for op in (torch.ops.mlplugins.near_pairs, reference.near_pairs):
            assert bool(op(moved, still, cell, no_samples, 5.0)[4].isnan())


def test_the_cutoff_itself_is_too_far():
    positions = torch.tensor([[0.0, 0, 0], [3, 4, 0]], dtype=torch.float64)
    samples = torch.tensor([[0, 1, 0, 0, 0]], dtype=torch.int32)
    cell = torch.zeros(3, 3, dtype=torch.float64)
    assert len(torch.ops.mlplugins.near_pairs(positions, positions, cell, samples, 5.0)[0]) == 0
    assert len(torch.ops.mlplugins.near_pairs(positions, positions, cell, samples, 5.000001)[0]) == 1


def test_no_candidates_and_bad_input():
    positions, moved, cell, samples = _crystal()
    assert torch.ops.mlplugins.near_pairs(positions, moved, cell, samples[:0], 5.0)[3].shape == (0, 3)
    with pytest.raises(RuntimeError, match="sample 0 has no such atom"):
        torch.ops.mlplugins.near_pairs(positions, moved, cell, samples[:1] - 1, 5.0)
    with pytest.raises(RuntimeError, match=r"samples \(P, 5\)"):
        torch.ops.mlplugins.near_pairs(positions, moved, cell, samples[:, :2], 5.0)
    with pytest.raises(RuntimeError, match="samples must be int32"):
        torch.ops.mlplugins.near_pairs(positions, moved, cell, samples.long(), 5.0)
    for wrong in ((positions, moved, cell.float()), (positions, moved.float(), cell)):
        with pytest.raises(RuntimeError, match="all be float32 or float64"):
            torch.ops.mlplugins.near_pairs(*wrong, samples, 5.0)
    for few in (moved[:1], moved[:, :2], moved.flatten()):
        with pytest.raises(RuntimeError, match=r"positions \(N, 3\) twice"):
            torch.ops.mlplugins.near_pairs(positions, few, cell, samples, 5.0)


def test_forward_mode_derivatives_are_refused():
    positions, moved, cell, samples = _crystal()
    with forward_ad.dual_level(), torch.no_grad():
        dual = forward_ad.make_dual(positions, torch.ones_like(positions))
        with pytest.raises(RuntimeError, match="jvp is not implemented"):
            torch.ops.mlplugins.near_pairs(dual, moved, cell, samples, 5.0)
