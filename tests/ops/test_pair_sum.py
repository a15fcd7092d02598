"""Sums over pairs: the values of their formulas, gradients, and what they refuse."""

import math

import pytest
import torch

from mlplugins.ops import reference

from . import cases

pytestmark = pytest.mark.usefixtures("compiled")
FORMS = [name for name in cases.arguments() if name.startswith("pair_sum") and "backward" not in name]


def _of_two(form, parameters, constants, r):
    """Energy of one edge of length r."""
    vectors = torch.tensor([[0.0, 0.6 * r, 0.8 * r]], dtype=torch.float64)
    edges, kind = [torch.tensor([0]), torch.tensor([1])], torch.tensor([0, 0])
    left, right = torch.tensor([[2.0, 3.0]]).double(), torch.tensor([[[0.0, 0.0]], [[0.5, 0.25]]]).double()
    pairs = torch.tensor([[parameters]], dtype=torch.float64)
    return float(torch.ops.mlplugins.pair_sum(vectors, [left, right], kind, edges, pairs, form, constants))


@pytest.mark.parametrize("r", [0.7, 1.3, 1.9, 2.5])
def test_values_are_those_of_the_formulas(r):
    x, t = r / 0.5, max(0.0, (r / 2.0 - 0.75) / 0.25)
    switch = 1 - t**3 * (10 - 15 * t + 6 * t * t) if r < 2.0 else 0.0
    factor = 1.75 * switch
    bj = 0.9 / (x**6 + 3.0) + 7.0 / (x**8 + 5.0)
    assert _of_two("becke-johnson", [3.0, 5.0, 7.0], [0.5, 2.0, 0.75, 0.9], r) == pytest.approx(factor * bj)
    six, eight = 1 + 6 * (1.2 * 2.0 / x) ** 14, 1 + 6 * (1.1 * 2.0 / x) ** 16
    zero = [0.5, 2.0, 0.75, 0.9, 1.2, 1.1, 14.0]
    expected = factor * (0.9 / six + 7.0 / (eight * x * x)) / x**6
    assert _of_two("zero", [2.0, 7.0], zero, r) == pytest.approx(expected, rel=1e-12)
    count = 1 / (1 + math.exp(-16 * (2.0 / x - 1)))
    assert _of_two("count", [2.0], [0.5, 2.0, 0.75, 16.0], r) == pytest.approx(factor * count, rel=1e-12)


@pytest.mark.parametrize("case", FORMS)
def test_derivatives_to_second_order(case):
    vectors, factors, *rest = cases.arguments()[case]

    def function(vectors, left, right):
        return torch.ops.mlplugins.pair_sum(vectors, [left, right], *rest)

    assert torch.autograd.gradcheck(function, (vectors, *factors), fast_mode=True)
    assert torch.autograd.gradgradcheck(function, (vectors, *factors), fast_mode=True)


@pytest.mark.parametrize("threads", [1, 2])
def test_many_edges_in_both_precisions(threads):
    """More edges of a centre than are evaluated at a time, some too far; a power that is no integer."""
    generator = torch.Generator().manual_seed(1)
    n, n_edges = 90, 9000
    centers = torch.randint(0, n, (n_edges,), generator=generator).sort().values
    neighbors = torch.randint(0, n + 5, (n_edges,), generator=generator)
    vectors = 2.5 * torch.randn(n_edges, 3, generator=generator)
    left, right = torch.rand(n, 5, generator=generator), torch.rand(n + 5, 3, 5, generator=generator)
    kind = torch.randint(0, 3, (n + 5,), generator=generator)
    pairs = 2 + torch.rand(3, 3, 2, generator=generator)
    constants = [0.53, 6.0, 0.9, 1.0, 1.2, 1.0, 13.5]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = {}
        for dtype in (torch.float32, torch.float64):
            leaves = [t.to(dtype).requires_grad_() for t in (vectors, left, right)]
            rest = (kind, [centers, neighbors], pairs.to(dtype), "zero", constants)
            for name, op in {"op": torch.ops.mlplugins.pair_sum, "reference": reference.pair_sum}.items():
                energy = op(leaves[0], leaves[1:], *rest)
                weights = torch.linspace(-1, 1, n, dtype=dtype)
                gradients = torch.autograd.grad(energy, leaves, weights)
                found[name, dtype] = [energy.detach(), *gradients]
    finally:
        torch.set_num_threads(before)
    exact = found["reference", torch.float64]
    for mine, theirs in zip(found["op", torch.float64], exact):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-13 * float(theirs.abs().max()))
    for name in ("op", "reference"):
        for mine, theirs in zip(found[name, torch.float32], exact):
            assert float((mine - theirs).abs().max()) < 3e-6 * float(theirs.abs().max()), name


def test_bad_input():
    vectors, factors, kind, edges, *rest = cases.detached(cases.arguments()["pair_sum"])

    def refused(message, *arguments):
        with pytest.raises(RuntimeError, match=message):
            torch.ops.mlplugins.pair_sum(*arguments)

    left, right = factors
    refused("sorted by centre", vectors, [left, right], kind, [edges[0].flip(0), edges[1]], *rest)
    refused("an edge has no such atom", vectors, [left[:3], right], kind, edges, *rest)
    refused("an edge has no such atom", vectors, [left, right], kind, [edges[0], edges[1] - 6], *rest)
    refused("node 0 is of kind 5", vectors, [left, right], kind + 5, edges, *rest)
    refused("must all be float32 or float64", vectors.float(), [left, right], kind, edges, *rest)
    refused(r"right \(N, P, M\)", vectors, [left, right[:, :, :1]], kind, edges, *rest)
    refused("unknown form 'cosine'", vectors, [left, right], kind, edges, rest[0], "cosine", rest[2])
    refused("expected 4 constants, got 2", vectors, [left, right], kind, edges, *rest[:2], [1.0, 2.0])
    refused("must be int64", vectors, [left, right], kind.int(), edges, *rest)
