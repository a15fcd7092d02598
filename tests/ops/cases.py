"""Arguments for every op, all float tensors of which ask for gradients; and the ops' registered names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlplugins.nn.irreps import o3
from mlplugins.nn.linear import Linear
from mlplugins.nn.sums import LinearSum
from mlplugins.ops import reference

Arguments = tuple[Any, ...]

ONLY_COMPILED = {
    "gate_backward",
    "harmonics_backward",
    "radial_convolution_backward",
    "table_convolution_backward",
    "symmetric_contraction_backward",
    "symmetric_contraction_double_backward",
    "pair_sum_backward",
}
"""Gradients that torch makes by itself of the ops registered from Python."""


def arguments() -> dict[str, Arguments]:
    """By the name of the op; those of the gradients (…_backward) are named with what is wanted of them."""
    torch.manual_seed(0)
    h, y, w = _leaf(6, 9), _leaf(11, 4), _leaf(11, 6)
    edges = [torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 3]), torch.randint(0, 6, (11,))]
    row = torch.tensor([0, 0, 1, 2, 2, 3, 4, 4, 5, 5, 5])
    # 3x0e + 2x1o times harmonics of degree 1: a scalar and a vector from each
    paths = torch.tensor([[0, 0, 0, 0, 3, 1, 3], [3, 9, 3, 3, 2, 3, 1], [3, 11, 4, 6, 2, 3, 3]])
    entries = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 1], [4, 2], [5, 3], [6, 1], [10, 2], [14, 3], [7, 0]])
    tables = [paths, entries, torch.randn(10, dtype=torch.float64)]
    graph = (edges, 4, tables)
    shared = ([*edges, row], 4, tables)
    radial = [_leaf(11), _leaf(6, 5), torch.randn(6, 5, dtype=torch.float64)]
    weights = [_leaf(5, 7).detach(), _leaf(7, 6).detach()]
    x, knots = torch.rand(11, dtype=torch.float64).requires_grad_(), _leaf(9, 3, 6).detach()
    several = [*edges, torch.arange(11), torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 0, 1, 0])]
    g, wanted = _leaf(4, 17), [True, True, True]
    contraction = _contraction()
    dx, dc = (_leaf(*t.shape) for t in contraction[:2])
    packed = reference.pack_points(_leaf(10, 6).detach(), _leaf(10, 6).detach())
    zero, count = ("zero", [0.9, 3.0, 0.5, 0.8, 0.7, 0.6, 4.0]), ("count", [0.9, 3.0, 0.5, 4.0])
    terms = [0, 0, 1, 3, 0, 0, 9, 0, 1, 2, 0, 3, 3, 4, 3, 2, 1, 0]
    return {
        "convolution": (h, y, w, *graph),
        "convolution of shared rows": (h, y, _leaf(6, 6), *shared),
        "convolution_backward": (g, h, y, w, *graph, wanted),
        "convolution_backward of two": (g, h, y, w, *graph, [True, False, True]),
        "radial_convolution": (h, y, radial, weights, *shared),
        "radial_convolution with weights that are trained": (h, y, radial, _leaves(weights), *shared),
        "radial_convolution_backward": (g, h, y, radial, weights, *shared, wanted),
        "table_convolution": (h, y, x, knots, *graph),
        "table_convolution of shared rows": (h, y, x.detach()[row].requires_grad_(), knots, *shared),
        "table_convolution of several tables": (h, y, x, torch.stack([knots, -knots]), several, 4, tables),
        "table_convolution_backward": (g, h, y, x, knots, *graph, wanted),
        "edge_rows": (*edges, _leaf(11, 3)),
        "linear": (_leaf(5, 11), [_leaf(5, 4), _leaf(2, 3)], terms, 14),
        "linear_sums": _sums(),
        "gate": (_leaf(5, 14), *GATE),
        "gate_backward": (_leaf(5, 11), _leaf(5, 14), *GATE),
        "harmonics": (_leaf(7, 3), 3, False),
        "harmonics of solid ones": (_leaf(7, 3), 2, True),
        "harmonics_backward": (_leaf(7), _leaf(7, 16), _leaf(7, 3), 3, False),
        "symmetric_contraction": contraction,
        "symmetric_contraction_backward": (_leaf(7, 6), *contraction, True),
        "symmetric_contraction_double_backward": (dx, dc, _leaf(7, 6), *contraction, True),
        "symmetric_contraction_double_backward along x": (dx, None, _leaf(7, 6), *contraction, False),
        "kernel_sum": (_leaf(5, 6), packed, torch.randn(16, dtype=torch.float64), "gaussian", 0.7),
        "kernel_sum of forces": (_leaf(5, 6), packed, torch.zeros(0, dtype=torch.float64), "matern52", 0.7),
        "molecular_kernel": _molecular_kernel(packed),
        "pair_sum": _pair_sum(edges, 3, 2, "becke-johnson", [0.9, 3.0, 0.5, 0.8]),
        "pair_sum of zero damping": _pair_sum(edges, 2, 3, *zero),
        "pair_sum of coordination": _pair_sum(edges, 1, 0, *count),
        "pair_sum_backward": (_leaf(4), *_pair_sum(edges, 2, 3, *zero)),
        "ghost_exchange": (_leaf(4, 3),),
        "near_pairs": (_leaf(6, 3), _leaf(6, 3), _leaf(3, 3), _candidates(edges), 2.0),
        "forces_and_virials": _forces(edges, [0, 0, 0, 0, 1, 1], 2, False),
        "forces_and_virials of atoms": _forces(edges, [0] * 6, 1, True),
    }


GATE = (
    [4, 2, 1, 3, 1, 1, 2],
    [1.5, 0.8, 1.2],
)  # and a logistic gate for a vector, one for each of two scalars


def _sums() -> Arguments:
    """Of 5x0e + 2x1o, and of 3x0e with weights by species, into 4x0e + 3x1o."""
    both = o3.Irreps("4x0e+3x1o")
    maps = [Linear(o3.Irreps("5x0e+2x1o"), both), Linear(o3.Irreps("3x0e"), both, n_species=2)]
    for each in maps:
        each.fold()
    packed = LinearSum(maps, [0.5, 2.0])
    species = torch.tensor([0, 1, 1, 0, 1])
    weights = [packed.weights, packed.transposed]
    return [_leaf(5, 11), _leaf(5, 3)], species, weights, packed.plan, packed.back


def _molecular_kernel(packed: Tensor) -> Arguments:
    """Two symmetric copies of four atoms."""
    pairs = torch.stack([torch.arange(6), torch.randperm(6)])
    tables = [*torch.rand(2, 6, dtype=torch.float64), pairs, packed, torch.randn(16, dtype=torch.float64)]
    return _leaf(2, 4, 3), tables, "matern52", 0.7


def _forces(edges: list[Tensor], structures: list[int], count: int, of_atoms: bool) -> Arguments:
    """Of six atoms in `count` structures."""
    return _leaf(11, 3), _leaf(11, 3), *edges, torch.tensor(structures), count, of_atoms


def operator(case: str) -> Any:
    """The op that a name of `arguments` belongs to."""
    return getattr(torch.ops.mlplugins, case.partition(" ")[0]).default


def detached(value: Any) -> Any:
    """The same without a graph, lists included."""
    if isinstance(value, tuple | list):
        return type(value)(detached(part) for part in value)
    return value.detach() if isinstance(value, Tensor) else value


def _candidates(edges: list[Tensor]) -> Tensor:
    return torch.cat([torch.stack(edges, dim=1), torch.randint(-1, 2, (len(edges[0]), 3))], dim=1).int()


def _pair_sum(
    edges: list[Tensor], parameters: int, columns: int, form: str, constants: list[float]
) -> Arguments:
    """Two kinds of nodes."""
    kind, pairs = torch.tensor([0, 1, 1, 0, 1, 0]), 0.5 + torch.rand(2, 2, parameters, dtype=torch.float64)
    factors = [_leaf(4, columns), _leaf(6, 2, columns)]
    return _leaf(11, 3), factors, kind, edges, pairs, form, constants


def _contraction() -> Arguments:
    monomials = torch.tensor([[0, 0, -1, -1], [0, 1, 1, -1], [1, 0, 1, 2], [2, 2, 2, 2], [1, 0, 0, 0]])
    return _leaf(7, 6), _leaf(3, 5, 2), torch.tensor([0, 1, 1, 0, 2, 2, 1]), monomials, 3


def _leaf(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def _leaves(tensors: list[Tensor]) -> list[Tensor]:
    return [t.detach().requires_grad_() for t in tensors]
