"""Equivariant gate: scalars through silu, every other irrep scaled by a silu of its own gate scalar."""

from typing import List, Tuple

import torch
from e3nn import o3
from torch import Tensor, nn

from mlplugins.nn.linear import blocks
from mlplugins.nn.radial import SILU_NORM


def split(irreps: o3.Irreps) -> Tuple[o3.Irreps, o3.Irreps]:
    """The even scalars of `irreps`, and the rest (which needs gates)."""
    scalar = o3.Irrep("0e")
    scalars = o3.Irreps([(mul, ir) for mul, ir in irreps if ir == scalar])
    gated = o3.Irreps([(mul, ir) for mul, ir in irreps if ir != scalar])
    return scalars, gated


class Gate(nn.Module):
    """h = (silu(s), silu(g) ⊙ v) for inputs s ⊕ g ⊕ v, one gate scalar g per channel of v.

    Attributes:
        irreps_in: scalars + gates + gated, what the preceding linear map must produce.
        irreps_out: `irreps`, sorted as scalars, then the rest.
    """

    gated_blocks: List[List[int]]
    gate_sizes: List[int]
    gated_sizes: List[int]

    def __init__(self, irreps: o3.Irreps) -> None:
        super().__init__()
        scalars, gated = split(irreps)
        self.n_scalars = scalars.dim
        self.n_gates = gated.num_irreps
        self.gated_blocks = blocks(gated)
        self.gate_sizes = [mul for _, _, mul in self.gated_blocks]
        self.gated_sizes = [dim * mul for _, dim, mul in self.gated_blocks]
        self.silu_norm = SILU_NORM
        gates = o3.Irreps([(self.n_gates, "0e")]) if self.n_gates else o3.Irreps([])
        self.irreps_in = scalars + gates + gated
        self.irreps_out = scalars + gated

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        scalars, gates, gated = x.split(
            [self.n_scalars, self.n_gates, x.shape[1] - self.n_scalars - self.n_gates], dim=1
        )
        outputs: List[Tensor] = [torch.nn.functional.silu(scalars) * self.silu_norm]
        gate_b = (torch.nn.functional.silu(gates) * self.silu_norm).split(self.gate_sizes, dim=1)
        gated_b = gated.split(self.gated_sizes, dim=1)
        for b, (_, dim, mul) in enumerate(self.gated_blocks):
            v = gated_b[b].reshape(n, dim, mul)
            outputs.append((v * gate_b[b].unsqueeze(1)).reshape(n, dim * mul))
        return torch.cat(outputs, dim=1)
