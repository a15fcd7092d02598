"""Equivariant linear maps: channels mix within each irrep, never between irreps."""

import math
from typing import List

import torch
from e3nn import o3
from torch import Tensor, nn


def blocks(irreps: o3.Irreps) -> List[List[int]]:
    """Rows [offset, 2l+1, multiplicity] of the ir_mul blocks of `irreps`.

    >>> blocks(o3.Irreps("2x0e+3x1o"))
    [[0, 1, 2], [2, 3, 3]]
    """
    rows, offset = [], 0
    for multiplicity, ir in irreps:
        rows.append([offset, ir.dim, multiplicity])
        offset += ir.dim * multiplicity
    return rows


class Linear(nn.Module):
    """y_l = Σ x_l W_l / √(fan in), over all input blocks that carry the irrep of an output block.

    With `n_species` > 0 every element has its own weights (NequIP's self-connection).
    """

    __constants__ = ["frozen"]

    in_blocks: List[List[int]]
    out_blocks: List[List[int]]
    in_sizes: List[int]
    sources: List[List[int]]

    def __init__(self, irreps_in: o3.Irreps, irreps_out: o3.Irreps, n_species: int = 0) -> None:
        super().__init__()
        self.in_blocks = blocks(irreps_in)
        self.in_sizes = [dim * mul for _, dim, mul in self.in_blocks]
        self.out_blocks = blocks(irreps_out)
        self.sources = [
            [i for i, (_, ir) in enumerate(irreps_in) if ir == target] for _, target in irreps_out
        ]
        self.per_species = n_species > 0
        weights = []
        for (multiplicity, _), sources in zip(irreps_out, self.sources):
            fan_in = sum(irreps_in[i].mul for i in sources)
            shape = (max(n_species, 1), fan_in, multiplicity)
            weights.append(nn.Parameter(torch.randn(shape, dtype=torch.float64)))
        self.weights = nn.ParameterList(weights)
        self.frozen = False

    @torch.jit.unused
    def freeze(self) -> None:
        """Multiply 1/√(fan in) into the weights, once and for all: for inference."""
        if self.frozen:
            return
        with torch.no_grad():
            for weight in self.weights:
                weight.mul_(1.0 / math.sqrt(max(weight.shape[1], 1)))
        self.frozen = True

    @torch.jit.unused
    def thaw(self) -> None:
        """Undo `freeze`, of weights that were loaded folded."""
        with torch.no_grad():
            for weight in self.weights:
                weight.mul_(math.sqrt(max(weight.shape[1], 1)))

    def forward(self, x: Tensor, species: Tensor) -> Tensor:
        outputs: List[Tensor] = []
        n = x.shape[0]
        x_b = x.split(self.in_sizes, dim=1)
        for index, weight in enumerate(self.weights):
            parts: List[Tensor] = []
            for source in self.sources[index]:
                _, dim, mul = self.in_blocks[source]
                parts.append(x_b[source].reshape(n, dim, mul))
            dim, mul = self.out_blocks[index][1], self.out_blocks[index][2]
            if len(parts) == 0:
                outputs.append(torch.zeros(n, dim * mul, dtype=x.dtype, device=x.device))
            else:
                block = torch.cat(parts, dim=2)  # (N, 2l+1, fan in)
                w = weight if self.frozen else weight * (1.0 / math.sqrt(weight.shape[1]))
                if self.per_species:
                    y = by_species(block, w, species)  # (N, 2l+1, mul)
                else:
                    y = torch.matmul(block.reshape(n * dim, w.shape[1]), w[0])  # (N (2l+1), mul)
                outputs.append(y.reshape(n, dim * mul))
        return torch.cat(outputs, dim=1)


def by_species(x: Tensor, w: Tensor, species: Tensor) -> Tensor:
    """y_i = x_i W_{z_i} for x (N, d, a), W (S, a, b): one product per element, no copy of W per atom."""
    if x.shape[0] == 0:
        return torch.matmul(x, w[0])  # no rows, and still part of the graph
    y = torch.zeros(x.shape[0], x.shape[1], w.shape[2], dtype=x.dtype, device=x.device)
    for z in range(w.shape[0]):
        rows = (species == z).nonzero().squeeze(1)
        if rows.shape[0] > 0:
            y = y.index_copy(0, rows, torch.matmul(x.index_select(0, rows), w[z]))
    return y
