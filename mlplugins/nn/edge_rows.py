"""What the convolutions of a model share: one row of radial weights for i → j and j → i."""

from typing import List, Optional, Tuple

import torch
from torch import Tensor, nn

from mlplugins import ops


class OwnRows(nn.Module):
    """Every edge has its own row."""

    def forward(
        self, edges: List[Tensor], vectors: Tensor, r: Tensor, basis: Tensor
    ) -> Tuple[List[Tensor], List[Tensor]]:
        return edges, [basis]


class SharedRows(nn.Module):
    """In inference edges of the same pair share a row, and the slopes of the basis stand beside it.

    Training differentiates the radial network itself and keeps a row for every edge.
    """

    def __init__(self) -> None:
        super().__init__()
        ops.load()

    def forward(
        self, edges: List[Tensor], vectors: Tensor, r: Tensor, basis: Tensor
    ) -> Tuple[List[Tensor], List[Tensor]]:
        if self.training:
            return edges, [basis]
        first, row = torch.ops.mlplugins.edge_rows(edges[0], edges[1], vectors)
        values = basis.index_select(0, first)  # (U, num_basis)
        slopes = radial_slopes(basis, r).index_select(0, first)
        return [edges[0], edges[1], row], [basis, r, values, slopes]


class EdgeRows(nn.Module):
    """Edges and radial input of the convolutions, from edges [centers, neighbors], vectors, r and basis."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: nn.Module = OwnRows()

    def use_native_ops(self) -> None:
        """Share the rows, as the ops of the native library can."""
        self.rows = SharedRows().train(self.training)

    def forward(
        self, edges: List[Tensor], vectors: Tensor, r: Tensor, basis: Tensor
    ) -> Tuple[List[Tensor], List[Tensor]]:
        rows: Tuple[List[Tensor], List[Tensor]] = self.rows(edges, vectors, r, basis)
        return rows


def radial_slopes(basis: Tensor, r: Tensor) -> Tensor:
    """d basis / d r (E, B) of functions (E, B) of the distances r (E,); zero where r needs no gradient.

    >>> r = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> radial_slopes(torch.stack([r, r**2], dim=1), r)
    tensor([[1., 2.],
            [1., 4.]])
    """
    if not r.requires_grad:
        return torch.zeros_like(basis)
    columns: List[Tensor] = []
    for column in basis.unbind(1):
        slope: Optional[Tensor] = torch.autograd.grad([column.sum()], [r], retain_graph=True)[0]
        columns.append(torch.zeros_like(r) if slope is None else slope)
    return torch.stack(columns, dim=1)
