"""What the convolutions of a model share: one row of radial weights for i → j and j → i."""

from typing import List, Optional, Tuple

import torch
from torch import Tensor, nn

from mlplugins import ops


class OwnRows(nn.Module):
    """Every edge has its own row."""

    def forward(self, edges: List[Tensor], vectors: Tensor) -> Tuple[List[Tensor], Tensor]:
        return edges, torch.arange(vectors.shape[0], device=vectors.device)

    def slopes(self, basis: Tensor, r: Tensor) -> List[Tensor]:
        return []


class SharedRows(nn.Module):
    """Edges of the same pair share a row; in inference the slopes of the basis stand beside it.

    Training differentiates the radial network itself.
    """

    def __init__(self) -> None:
        super().__init__()
        ops.load()

    def forward(self, edges: List[Tensor], vectors: Tensor) -> Tuple[List[Tensor], Tensor]:
        first, row = torch.ops.mlplugins.edge_rows(edges[0], edges[1], vectors)
        return [edges[0], edges[1], row], first

    @torch.jit.export
    def slopes(self, basis: Tensor, r: Tensor) -> List[Tensor]:
        return [] if self.training else [radial_slopes(basis, r)]


class EdgeRows(nn.Module):
    """Edges [centers, neighbors (, row of each)] and the first edge of every row (U,)."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: OwnRows | SharedRows = OwnRows()

    def use_native_ops(self) -> None:
        """Share the rows, as the ops of the native library can."""
        self.rows = SharedRows().train(self.training)

    def forward(self, edges: List[Tensor], vectors: Tensor) -> Tuple[List[Tensor], Tensor]:
        found: Tuple[List[Tensor], Tensor] = self.rows(edges, vectors)
        return found

    @torch.jit.export
    def radial(self, basis: Tensor, r_rows: Tensor, r: Tensor) -> List[Tensor]:
        """Radial input of the convolutions: r (E,), basis (U, B) of the rows' distances (U,) and, where the
        kernel wants them, slopes of the basis (U, B)."""
        return [r, basis] + self.rows.slopes(basis, r_rows)


def per_edge(rows: Tensor, edges: List[Tensor]) -> Tensor:
    """(E, …) of rows (U, …)."""
    return rows.index_select(0, edges[2]) if len(edges) == 3 else rows


def radial_slopes(basis: Tensor, r: Tensor) -> Tensor:
    """d basis / d r (U, B) of functions (U, B) of the distances r (U,); zero where r needs no gradient.

    The derivative of Σ_b v_b d basis_b / d r with respect to v: two passes, however many functions.

    >>> r = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> radial_slopes(torch.stack([r, r**2], dim=1), r)
    tensor([[1., 2.],
            [1., 4.]])
    """
    if not (r.requires_grad and basis.requires_grad):
        return torch.zeros_like(basis)
    v = torch.ones_like(basis).requires_grad_()
    along: List[Optional[Tensor]] = [v]
    product = torch.autograd.grad([basis], [r], along, create_graph=True)[0]  # (U,)
    slope: Optional[Tensor] = None
    if product is not None:
        slope = torch.autograd.grad([product.sum()], [v], retain_graph=True)[0]
    return torch.zeros_like(basis) if slope is None else slope
