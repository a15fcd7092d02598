"""Sums of a function of the distance over the edges of every atom."""

from typing import List

import torch
from torch import Tensor, nn

from mlplugins import ops
from mlplugins.nn.modes import HasNativeOps
from mlplugins.ops import reference
from mlplugins.structures.graph import Graph


class PlainPairSum(nn.Module):
    """The sum in plain torch."""

    def forward(
        self,
        graph: Graph,
        factors: List[Tensor],
        kind: Tensor,
        pairs: Tensor,
        form: str,
        constants: List[float],
    ) -> Tensor:
        edges = [graph.centers, graph.neighbors]
        return reference.pair_sum(graph.vectors, factors, kind, edges, pairs, form, constants)


class NativePairSum(nn.Module):
    """The same through the op of the native library."""

    def __init__(self) -> None:
        super().__init__()
        ops.load()

    def forward(
        self,
        graph: Graph,
        factors: List[Tensor],
        kind: Tensor,
        pairs: Tensor,
        form: str,
        constants: List[float],
    ) -> Tensor:
        edges = [graph.centers, graph.neighbors]
        return torch.ops.mlplugins.pair_sum(graph.vectors, factors, kind, edges, pairs, form, constants)


class PairSum(HasNativeOps, nn.Module):
    """E_i = Σ_j c_ij f(r_ij) of every centre, see `mlplugins.ops.reference.pair_sum`.

    Args:
        form: of f.
        constants: unit and cutoff (Å), onset of the switch, and those of the form.

    >>> count = PairSum("count", [1.0, 3.0, 0.9, 16.0])
    >>> i, r = torch.tensor([0, 1]), torch.tensor([[0.0, 0.0, 1.5], [0.0, 0.0, -1.5]])
    >>> graph = Graph(torch.zeros(2).long(), i, 1 - i, r, torch.zeros(2).long(), 2)
    >>> none = [torch.zeros(2, 0), torch.zeros(2, 1, 0)]
    >>> count(graph, none, graph.species, torch.tensor([[[1.5]]]))
    tensor([0.5000, 0.5000])
    """

    def __init__(self, form: str, constants: List[float]) -> None:
        super().__init__()
        self.form = form
        self.constants = [float(value) for value in constants]
        self.sum: nn.Module = PlainPairSum()

    def use_native_ops(self) -> None:
        """Compute with the op of the native library."""
        self.sum = NativePairSum()

    def forward(self, graph: Graph, factors: List[Tensor], kind: Tensor, pairs: Tensor) -> Tensor:
        """E (n_centers,), of left (n_centers, M) and right (N, P, M) `factors`, `kind` (N,) and parameters
        `pairs` (P, P, K)."""
        energy: Tensor = self.sum(graph, factors, kind, pairs, self.form, self.constants)
        return energy
