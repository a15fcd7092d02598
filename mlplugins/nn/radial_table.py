"""Cubic tables of radial weights, in place of the networks that make them; never exact."""

from typing import Callable, List

import torch
from torch import Tensor, nn

from mlplugins.ops.reference import interpolate
from mlplugins.structures.graph import Graph


def interpolation(weights: Callable[[Tensor], Tensor], n_knots: int, n_tables: int = 1) -> Tensor:
    """Cubic Hermite tables of w(x), x = r / r_c.

    Args:
        weights: the w (P · K, W) at x (P · K,), the knots of every table in turn.

    Returns:
        (P, K, 3, W), at x = k / (K − 1) the value, slope dw/dx · step, and the rise to the next value,
        rounded by itself: the difference of rounded values has a noise in dw/dx that grows with K.

    >>> interpolation(lambda x: x[:, None] ** 2, 3).squeeze()[1]
    tensor([0.2500, 0.5000, 0.7500], dtype=torch.float64)
    """
    x = torch.linspace(0.0, 1.0, n_knots, dtype=torch.float64)
    x[0] = 1e-6  # bases divide by r, and are even functions of it to second order
    x = x.repeat(n_tables)
    value, slope = torch.autograd.functional.jvp(weights, (x,), (torch.ones_like(x),))
    value, slope = (t.reshape(n_tables, n_knots, -1) for t in (value, slope))
    rise = torch.diff(value, dim=1, append=value[:, -1:])
    return torch.stack([value, slope / (n_knots - 1), rise], dim=2)


class RadialTable(nn.Module):
    """Cubic Hermite table of radial weights w(x), x = r / r_c.

    Args:
        knots: (K, 3, W), or of several tables (P, K, 3, W), see `interpolation`.
    """

    knots: Tensor

    def __init__(self, knots: Tensor) -> None:
        super().__init__()
        self.register_buffer("knots", knots)

    def matrices(self) -> List[Tensor]:
        """The one tensor."""
        return [self.knots]

    def forward(self, x: Tensor, edges: List[Tensor]) -> Tensor:
        """(E, W) at x (E,)."""
        return interpolate(x, self.knots, edges)


class TableOfPair(nn.Module):
    """Which of several radial tables an edge has.

    Args:
        which: (S, S) int64, by the elements of centre and neighbour; numbers from 0 without gaps.
    """

    which: Tensor

    def __init__(self, which: Tensor) -> None:
        super().__init__()
        self.register_buffer("which", which)
        self.n_tables = int(which.max()) + 1

    @torch.jit.unused
    def one_edge_each(self, n_species: int, n_edges: int) -> Graph:
        """Edges (P · K) between nodes, one atom of each element: K in turn that have the same table."""
        pairs = [(self.which == table).nonzero()[0] for table in range(self.n_tables)]
        ends = torch.stack(pairs).repeat_interleave(n_edges // self.n_tables, dim=0)
        nodes = torch.arange(n_species)
        return Graph(
            nodes, ends[:, 0], ends[:, 1], torch.zeros(n_edges, 3), torch.zeros_like(nodes), n_species
        )

    def forward(self, edges: List[Tensor], species: Tensor) -> List[Tensor]:
        """[centers, neighbors, row, table] of edges [centers, neighbors (, row)]."""
        row = edges[2] if len(edges) > 2 else torch.arange(edges[0].shape[0], device=edges[0].device)
        ends = species.index_select(0, edges[0]), species.index_select(0, edges[1])
        return [edges[0], edges[1], row, self.which[ends[0], ends[1]]]
