"""Shared by the convolutions of a model: one row of radial weights for i → j and j → i."""

from typing import List, Optional, Tuple

import torch
from torch import Tensor, nn

from mlplugins import ops
from mlplugins.nn.modes import HasNativeOps
from mlplugins.nn.radial_table import TableOfPair
from mlplugins.structures.graph import Graph


class OwnRows(nn.Module):
    """Every edge has its own row."""

    def forward(self, graph: Graph) -> Tuple[List[Tensor], Tensor]:
        first = torch.arange(graph.centers.shape[0], device=graph.centers.device)
        return [graph.centers, graph.neighbors], first

    @torch.jit.export
    def wants_slopes(self) -> bool:
        return False


class SharedRows(nn.Module):
    """Edges of the same pair share a row; in inference the slopes of the basis stand beside it.

    Training differentiates the radial network itself.
    """

    def __init__(self) -> None:
        super().__init__()
        ops.load()

    def forward(self, graph: Graph) -> Tuple[List[Tensor], Tensor]:
        first, row = torch.ops.mlplugins.edge_rows(graph.centers, graph.neighbors, graph.vectors)
        return [graph.centers, graph.neighbors, row], first

    @torch.jit.export
    def wants_slopes(self) -> bool:
        return not self.training


class DirectedRows(nn.Module):
    """As `SharedRows`, where i → j and j → i have different weights: every edge has its own row."""

    def forward(self, graph: Graph) -> Tuple[List[Tensor], Tensor]:
        first = torch.arange(graph.centers.shape[0], device=graph.centers.device)
        return [graph.centers, graph.neighbors, first], first

    @torch.jit.export
    def wants_slopes(self) -> bool:
        return not self.training


class EdgeRows(HasNativeOps, nn.Module):
    """Edges [centers, neighbors (, row (, radial table of each))] and the first edge of every row (U,).

    Args:
        directed: i → j and j → i never share a row.

    Attributes:
        table_of_pair: which of several radial tables an edge has.
    """

    def __init__(self, directed: bool = False) -> None:
        super().__init__()
        self.directed = directed
        self.rows: OwnRows | SharedRows | DirectedRows = OwnRows()
        self.table_of_pair: Optional[TableOfPair] = None

    @torch.jit.unused
    def use_native_ops(self) -> None:
        """Share the rows, as the ops of the native library can."""
        self.rows = (DirectedRows() if self.directed else SharedRows()).train(self.training)

    def forward(self, graph: Graph) -> Tuple[List[Tensor], Tensor]:
        edges, first = self.rows(graph)
        if self.table_of_pair is not None:
            edges = self.table_of_pair(edges, graph.species)
        return edges, first

    @torch.jit.export
    def wants_slopes(self) -> bool:
        """Whether slopes of the basis, (U, B), follow in the radial input of the convolutions: distances of
        the edges (E,), basis of the rows (U, B)."""
        wanted: bool = self.rows.wants_slopes()
        return wanted


def per_edge(rows: Tensor, edges: List[Tensor]) -> Tensor:
    """(E, …) of rows (U, …)."""
    return rows.index_select(0, edges[2]) if len(edges) > 2 else rows
