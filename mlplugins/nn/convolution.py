"""The equivariant convolution: gather neighbours, tensor product with harmonics, sum over the neighbours."""

import math
from typing import List, Tuple

import torch
from e3nn import o3
from torch import Tensor, nn

from mlplugins.nn.linear import blocks


class SphericalHarmonics(nn.Module):
    """Real spherical harmonics of unit vectors up to `l_max`, component-normalised: Σ_m Y_lm² = 2l + 1."""

    def __init__(self, l_max: int) -> None:
        super().__init__()
        self.harmonics = o3.SphericalHarmonics(
            list(range(l_max + 1)), normalize=False, normalization="component"
        )

    def forward(self, directions: Tensor) -> Tensor:
        return self.harmonics(directions)  # (E, (l_max + 1)²)


class Convolution(nn.Module):
    """m_i = Σ_{j ∈ N(i)} R(r_ij) ⊙ (h_j ⊗ Y(r̂_ij))   (NequIP, eq. 4; the "uvu" tensor product).

    A path joins an input irrep l1, a harmonic l2 and an output irrep l3; each path has its own weight per
    channel and edge, and its own block in the output.

    Attributes:
        irreps_out: one block per path, in path order (grouped by input block).
        n_weights: radial weights per edge, Σ over paths of the channels.
    """

    basis: Tensor
    path_of_column: Tensor
    in_blocks: List[List[int]]
    in_sizes: List[int]
    columns_per_block: List[int]
    coupling_sizes: List[int]
    weight_sizes: List[int]

    def __init__(self, irreps_in: o3.Irreps, l_max: int, irreps_target: o3.Irreps) -> None:
        super().__init__()
        self.in_blocks = blocks(irreps_in)
        targets = {ir for _, ir in irreps_target}
        self.in_sizes = [dim * mul for _, dim, mul in self.in_blocks]
        self.columns_per_block, self.coupling_sizes, self.weight_sizes = [], [], []
        out: List[Tuple[int, o3.Irrep]] = []
        bases: List[Tensor] = []
        path_of_column: List[Tensor] = []
        for mul, ir in irreps_in:
            found = _paths(ir, l_max, targets)
            out.extend((mul, ir_out) for _, ir_out in found)
            dims = torch.tensor([ir_out.dim for _, ir_out in found], dtype=torch.long)
            path_of_column.append(torch.repeat_interleave(torch.arange(len(found)), dims))
            self.columns_per_block.append(int(dims.sum()))
            self.coupling_sizes.append(int(dims.sum()) * ir.dim)
            self.weight_sizes.append(len(found) * mul)
            bases.append(_block_basis(ir, found, l_max))
        self.irreps_out = o3.Irreps(out)
        self.n_weights = sum(mul for mul, _ in out)
        self.register_buffer("basis", torch.cat(bases, dim=1))  # ((l_max+1)², Σ_blocks columns · (2 l1 + 1))
        self.register_buffer("path_of_column", torch.cat(path_of_column))

    def forward(
        self,
        h: Tensor,
        harmonics: Tensor,
        weights: Tensor,
        centers: Tensor,
        neighbors: Tensor,
        n_centers: int,
    ) -> Tensor:
        n_edges = centers.shape[0]
        h_j = h.index_select(0, neighbors)  # (E, irreps_in.dim)
        coupling = harmonics @ self.basis  # (E, Σ columns · (2 l1 + 1)): Clebsch–Gordan times harmonics
        x_b = h_j.split(self.in_sizes, dim=1)
        m_b = coupling.split(self.coupling_sizes, dim=1)
        w_b = weights.split(self.weight_sizes, dim=1)
        path_b = self.path_of_column.split(self.columns_per_block)
        messages: List[Tensor] = []
        for b, (_, dim, mul) in enumerate(self.in_blocks):
            columns = self.columns_per_block[b]
            m = m_b[b].reshape(n_edges, columns, dim)
            x = x_b[b].reshape(n_edges, dim, mul)
            w = w_b[b].reshape(n_edges, self.weight_sizes[b] // mul, mul).index_select(1, path_b[b])
            messages.append((torch.bmm(m, x) * w).reshape(n_edges, columns * mul))
        message = torch.cat(messages, dim=1)  # (E, irreps_out.dim)
        summed = torch.zeros(n_centers, message.shape[1], dtype=message.dtype, device=message.device)
        return summed.index_add(0, centers, message)


def _paths(ir: o3.Irrep, l_max: int, targets: set) -> List[Tuple[int, o3.Irrep]]:
    """Pairs (harmonic degree, output irrep) that `ir` can reach within `targets`."""
    return [
        (degree, ir_out)
        for degree in range(l_max + 1)
        for ir_out in ir * o3.Irrep(degree, (-1) ** degree)
        if ir_out in targets
    ]


def _block_basis(ir: o3.Irrep, paths: List[Tuple[int, o3.Irrep]], l_max: int) -> Tensor:
    """Matrix ((l_max+1)², columns · (2 l1 + 1)) that turns harmonics into the coupling of one input block."""
    couplings = []
    for degree, ir_out in paths:
        cg = o3.wigner_3j(ir.l, degree, ir_out.l, dtype=torch.float64) * math.sqrt(ir_out.dim)
        padded = torch.zeros((l_max + 1) ** 2, ir_out.dim, ir.dim, dtype=torch.float64)
        padded[degree**2 : (degree + 1) ** 2] = cg.permute(1, 2, 0)  # (2 l2 + 1, 2 l3 + 1, 2 l1 + 1)
        couplings.append(padded)
    if not couplings:
        return torch.zeros((l_max + 1) ** 2, 0, dtype=torch.float64)
    return torch.cat(couplings, dim=1).reshape((l_max + 1) ** 2, -1)
