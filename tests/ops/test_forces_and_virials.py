"""Forces and virials from edge gradients: the derivatives of an energy, and their own derivatives."""

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from mlplugins.ops import reference

pytestmark = pytest.mark.usefixtures("compiled")

N, SYSTEM = 7, torch.tensor([0, 0, 0, 0, 1, 1, 1])


def _edges(n_edges=40, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(0, 2, (n_edges,), generator=generator) * 4  # edges stay within one structure
    ends = [first + torch.randint(0, 3, (n_edges,), generator=generator) for _ in range(2)]
    shifts = torch.randn(n_edges, 3, dtype=torch.float64, generator=generator)
    positions = torch.randn(N, 3, dtype=torch.float64, generator=generator)
    return positions.to(dtype), shifts.to(dtype), *ends


def _energies(vectors):
    return torch.exp(-vectors.norm(dim=1)) * (1 + vectors[:, 0].sin())


def test_they_are_the_derivatives_of_the_energy():
    """Finite differences of the energy by positions and by a strain of each structure."""
    positions, shifts, i, j = _edges()

    def vectors(moved, strain):
        return (moved[j] - moved[i] + shifts) @ (torch.eye(3, dtype=torch.float64) + strain)

    def energy(system, moved, strain):
        return float(_energies(vectors(moved, strain))[SYSTEM[i] == system].sum())

    none = torch.zeros(3, 3, dtype=torch.float64)
    leaf = vectors(positions, none).requires_grad_()
    (g,) = torch.autograd.grad(_energies(leaf).sum(), leaf)
    forces, virial, virials = torch.ops.mlplugins.forces_and_virials(g, leaf.detach(), i, j, SYSTEM, 2, True)
    step = 1e-5
    for atom in range(N):
        for k in range(3):
            move = torch.zeros_like(positions)
            move[atom, k] = step
            rise = sum(energy(s, positions + move, none) - energy(s, positions - move, none) for s in (0, 1))
            assert float(forces[atom, k]) == pytest.approx(-rise / (2 * step), abs=1e-8)
    for system in (0, 1):
        for a, b in np.ndindex(3, 3):
            strain = torch.zeros(3, 3, dtype=torch.float64)
            strain[a, b] += step / 2
            strain[b, a] += step / 2
            rise = energy(system, positions, strain) - energy(system, positions, -strain)
            assert float(virial[system, a, b]) == pytest.approx(-rise / (2 * step), abs=1e-8)
        torch.testing.assert_close(
            virials[system == SYSTEM].sum(dim=0), virial[system], rtol=1e-12, atol=1e-12
        )
    assert virial.abs().max() > 0.1


@pytest.mark.parametrize("precision", [(torch.float32, torch.float32), (torch.float32, torch.float64)])
def test_sums_are_made_in_double_precision(precision):
    """In float32 the op rounds exact sums; in the engines float32 gradients meet float64 vectors."""
    _, shifts, i, j = _edges(4000)
    g, v = shifts.flip(0).to(precision[0]), shifts.to(precision[1])
    found = torch.ops.mlplugins.forces_and_virials(g, v, i, j, SYSTEM, 2, True)
    exact = reference.forces_and_virials(g.double(), v.double(), i, j, SYSTEM, 2, True)
    for a, b in zip(found, exact):
        assert a.dtype == precision[1]
        assert b.abs().max() > 1
        torch.testing.assert_close(
            a, b.to(a.dtype), rtol=1.2e-7 if a.dtype == torch.float32 else 1e-13, atol=1e-11
        )


@pytest.mark.parametrize("per_atom", [False, True])
def test_derivatives_to_second_order(per_atom):
    _, shifts, i, j = _edges(9)
    g, v = shifts.flip(0).clone().requires_grad_(), shifts.clone().requires_grad_()

    def function(g, v):
        found = torch.ops.mlplugins.forces_and_virials(g, v, i, j, SYSTEM, 2, per_atom)
        return found if per_atom else found[:2]

    assert torch.autograd.gradcheck(function, (g, v))
    assert torch.autograd.gradgradcheck(function, (g, v))


def test_no_edges_and_bad_input():
    none, empty = torch.zeros(0, dtype=torch.long), torch.zeros(0, 3)
    forces, virial, virials = torch.ops.mlplugins.forces_and_virials(
        empty, empty, none, none, SYSTEM, 2, False
    )
    assert (forces.shape, virial.shape, virials.shape) == ((N, 3), (2, 3, 3), (0, 3, 3))
    assert not forces.any()
    assert not virial.any()
    edge = torch.ones(1, 3)
    with pytest.raises(RuntimeError, match="edge 0 has no such atom"):
        torch.ops.mlplugins.forces_and_virials(
            edge, edge, none.new_tensor([N]), none.new_zeros(1), SYSTEM, 2, True
        )
    with pytest.raises(RuntimeError, match="no such atom or system"):
        torch.ops.mlplugins.forces_and_virials(
            edge, edge, none.new_tensor([N - 1]), none.new_zeros(1), SYSTEM, 1, True
        )
    with pytest.raises(RuntimeError, match="must be int64"):
        torch.ops.mlplugins.forces_and_virials(edge, edge, *2 * [torch.zeros(1).int()], SYSTEM, 2, True)
    with pytest.raises(RuntimeError, match=r"vectors \(E, 3\)"):
        torch.ops.mlplugins.forces_and_virials(edge, edge[:, :2], *2 * [none.new_zeros(1)], SYSTEM, 2, True)


def test_forward_mode_derivatives_are_refused():
    positions, shifts, i, j = _edges()
    vectors = positions[j] - positions[i] + shifts
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(vectors, torch.ones_like(vectors))
        for arguments in ((dual, vectors), (vectors, dual)):
            with pytest.raises(RuntimeError, match="jvp is not implemented"):
                torch.ops.mlplugins.forces_and_virials(*arguments, i, j, SYSTEM, 2, False)
