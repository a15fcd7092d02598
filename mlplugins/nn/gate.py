"""Equivariant gate: scalars through silu or tanh, other irreps scaled by a silu of their own gate scalar."""

from typing import List, Tuple

import torch
from torch import Tensor, nn

from mlplugins import ops
from mlplugins.nn.irreps import normalize2mom, o3
from mlplugins.nn.linear import blocks
from mlplugins.nn.modes import HasNativeOps
from mlplugins.nn.radial import SILU_NORM, TANH_NORM

SIGMOID_NORM: float = float(normalize2mom(torch.sigmoid).cst)
"""Factor that gives sigmoid(x), x ~ N(0, 1), unit second moment."""


def split(irreps: o3.Irreps) -> Tuple[o3.Irreps, o3.Irreps]:
    """The scalars of `irreps`, even ones first, and the rest (which needs gates)."""
    scalars = o3.Irreps([(mul, ir) for p in (1, -1) for mul, ir in irreps if (ir.l, ir.p) == (0, p)])
    gated = o3.Irreps([(mul, ir) for mul, ir in irreps if ir.l > 0])
    return scalars, gated


class Gate(HasNativeOps, nn.Module):
    """h = (silu(s), tanh(p), silu(g) ⊙ v) for inputs s ⊕ p ⊕ g ⊕ v, one gate scalar g per channel of v.

    (NequIP, "Nonlinearity": silu for even scalars s and gates g, the odd tanh for odd scalars p.)

    Args:
        irreps: of h.
        sigmoid: gates go through a sigmoid instead of silu.

    Attributes:
        irreps_in: scalars + gates + gated, what the preceding linear map must produce.
        irreps_out: `irreps`, sorted as even scalars, odd scalars, then the rest.
    """

    __constants__ = ["native"]

    gated_blocks: List[List[int]]
    gate_sizes: List[int]
    gated_sizes: List[int]

    def __init__(self, irreps: o3.Irreps, sigmoid: bool = False) -> None:
        super().__init__()
        self.sigmoid = sigmoid
        self.sigmoid_norm = SIGMOID_NORM
        scalars, gated = split(irreps)
        self.n_even = scalars.count(o3.Irrep("0e"))
        self.n_odd = scalars.dim - self.n_even
        self.n_gates = gated.num_irreps
        self.gated_blocks = blocks(gated)
        self.gate_sizes = [mul for _, _, mul in self.gated_blocks]
        self.gated_sizes = [dim * mul for _, dim, mul in self.gated_blocks]
        self.silu_norm = SILU_NORM
        self.tanh_norm = TANH_NORM
        gates = o3.Irreps([(self.n_gates, "0e")]) if self.n_gates else o3.Irreps([])
        self.irreps_in = scalars + gates + gated
        self.irreps_out = scalars + gated
        pairs = [number for _, dim, mul in self.gated_blocks for number in (dim, mul)]
        self.sizes: List[int] = [self.n_even, self.n_odd, int(sigmoid), *pairs]
        self.factors: List[float] = [SILU_NORM, TANH_NORM, SIGMOID_NORM if sigmoid else SILU_NORM]
        self.native = False

    @torch.jit.unused
    def use_native_ops(self) -> None:
        """In inference, one op."""
        ops.load()
        self.native = True

    def forward(self, x: Tensor) -> Tensor:
        if self.native and not self.training:
            return torch.ops.mlplugins.gate(x, self.sizes, self.factors)
        return self._plain(x)

    def _plain(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        rest = x.shape[1] - self.n_even - self.n_odd - self.n_gates
        even, odd, gates, gated = x.split([self.n_even, self.n_odd, self.n_gates, rest], dim=1)
        outputs: List[Tensor] = [torch.nn.functional.silu(even) * self.silu_norm]
        if self.n_odd > 0:
            outputs.append(torch.tanh(odd) * self.tanh_norm)
        if self.sigmoid:
            gates = torch.sigmoid(gates) * self.sigmoid_norm
        else:
            gates = torch.nn.functional.silu(gates) * self.silu_norm
        gate_b = gates.split(self.gate_sizes, dim=1)
        gated_b = gated.split(self.gated_sizes, dim=1)
        for b, (_, dim, mul) in enumerate(self.gated_blocks):
            v = gated_b[b].reshape(n, dim, mul)
            outputs.append((v * gate_b[b].unsqueeze(1)).reshape(n, dim * mul))
        return torch.cat(outputs, dim=1)
