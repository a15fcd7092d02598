"""Equivariant layer normalisation, as in Nequix (Koker et al., arXiv 2508.16067)."""

from typing import List

import torch
from torch import Tensor, nn

from mlplugins.nn.irreps import o3
from mlplugins.nn.linear import blocks


class RMSLayerNorm(nn.Module):
    """y_lcm = γ_lc x_lcm / √(1/L Σ_l (2l+1)⁻² Σ_cm x²_lcm + ε): one scale for all L irreps of a node.

    c are channels, m components, γ learned weights. Nothing is subtracted; the scale is an invariant.
    The sum over channels is no mean, and 2l+1 counts twice: so the models of the package nequix were trained
    (0.4.5, `layer_norm.py`), whatever the comments there say.

    >>> norm = RMSLayerNorm(o3.Irreps("2x0e+1x1o"))
    >>> norm(torch.tensor([[1.0, 1.0, 3.0, 3.0, 0.0]]).double()).square().detach()
    tensor([[0.5000, 0.5000, 4.5000, 4.5000, 0.0000]], dtype=torch.float64)
    """

    share: Tensor
    channel: Tensor

    def __init__(self, irreps: o3.Irreps, eps: float = 1e-12) -> None:
        super().__init__()
        n_irreps = len({ir for mul, ir in irreps if mul > 0})
        share: List[float] = []  # of a component's square in the scale
        channel: List[int] = []  # that a component belongs to
        start = 0
        for _, dim, mul in blocks(irreps):
            share += [1.0 / (n_irreps * dim**2)] * (dim * mul)
            channel += list(range(start, start + mul)) * dim
            start += mul
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(irreps.num_irreps, dtype=torch.float64))
        self.register_buffer("share", torch.tensor(share, dtype=torch.float64), persistent=False)
        self.register_buffer("channel", torch.tensor(channel, dtype=torch.long), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        scale = (x.square() @ self.share.to(x.dtype) + self.eps).rsqrt()  # (N,)
        return x * scale.unsqueeze(1) * self.weight.index_select(0, self.channel)
