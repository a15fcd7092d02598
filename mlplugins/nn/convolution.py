"""The equivariant convolution: gather neighbours, tensor product with harmonics, sum over the neighbours."""

import math
from typing import Dict, List, Set, Tuple

import torch
from torch import Tensor, nn

from mlplugins import ops
from mlplugins.nn.irreps import o3
from mlplugins.nn.linear import blocks
from mlplugins.nn.modes import HasNativeOps
from mlplugins.nn.radial import RadialMLP
from mlplugins.nn.radial_table import RadialTable
from mlplugins.ops import reference

FUSED_DEGREE = 3
"""Highest degree of features and harmonics in the native ops; beyond it the sum runs in plain torch."""


class NextHarmonics(nn.Module):
    """Y_l = C_l (Y_(l−1) ⊗ v), the coupling to the highest degree; few operations, each of which costs time.

    Args:
        degree: l.
    """

    coupling: Tensor

    def __init__(self, degree: int) -> None:
        super().__init__()
        v = torch.tensor([[0.36, 0.48, 0.8]], dtype=torch.float64)  # any vector fixes the norm
        y, expected = (o3.spherical_harmonics(n, v, False, "component") for n in (degree - 1, degree))
        c = o3.wigner_3j(degree - 1, 1, degree, dtype=torch.float64).reshape(-1, 2 * degree + 1)
        raised = (y.unsqueeze(2) * v.unsqueeze(1)).reshape(1, -1) @ c
        c = c * (expected * raised).sum() / raised.square().sum()
        self.register_buffer("coupling", c, persistent=False)  # ((2l − 1) 3, 2l + 1)

    def forward(self, y: Tensor, v: Tensor) -> Tensor:
        product = (y.unsqueeze(2) * v.unsqueeze(1)).reshape(v.shape[0], self.coupling.shape[0])
        return torch.mm(product, self.coupling)  # (E, 2l + 1)


class SphericalHarmonics(nn.Module):
    """Real solid harmonics of vectors up to `l_max`, component-normalised: Σ_m Y_lm² = (2l + 1) |v|^(2l).

    >>> SphericalHarmonics(1)(torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64))
    tensor([[1.0000, 0.0000, 0.0000, 1.7321]], dtype=torch.float64)
    """

    def __init__(self, l_max: int) -> None:
        super().__init__()
        self.degrees = nn.ModuleList([NextHarmonics(degree) for degree in range(1, l_max + 1)])

    def forward(self, vectors: Tensor) -> Tensor:
        harmonics: List[Tensor] = [torch.ones_like(vectors[:, :1])]
        for following in self.degrees:
            harmonics.append(following(harmonics[-1], vectors))
        return torch.cat(harmonics, dim=1)  # (E, (l_max + 1)²)


class EdgeGeometry(HasNativeOps, nn.Module):
    """Lengths r (E,) of vectors, and their harmonics (E, (l_max + 1)²) up to `l_max`, of directions or solid.

    >>> r, y = EdgeGeometry(1)(torch.tensor([[0.0, 0.0, 2.0]], dtype=torch.float64))
    >>> r.tolist(), y.shape
    ([2.0], torch.Size([1, 4]))
    """

    __constants__ = ["native"]

    def __init__(self, l_max: int, solid: bool = False) -> None:
        super().__init__()
        self.l_max, self.solid = l_max, solid
        self.harmonics = SphericalHarmonics(l_max)
        self.native = False

    @torch.jit.unused
    def use_native_ops(self) -> None:
        """In inference, one op, which knows degrees up to `FUSED_DEGREE`."""
        ops.load()
        self.native = 1 <= self.l_max <= FUSED_DEGREE

    def forward(self, vectors: Tensor) -> Tuple[Tensor, Tensor]:
        if self.native and not self.training:
            r, y = torch.ops.mlplugins.harmonics(vectors, self.l_max, self.solid)
            return r, y
        return self._plain(vectors)

    def _plain(self, vectors: Tensor) -> Tuple[Tensor, Tensor]:
        r = torch.linalg.vector_norm(vectors, dim=1)  # (E,)
        directions = vectors if self.solid else vectors / r.unsqueeze(1)
        return r, self.harmonics(directions)


class TensorProduct(nn.Module):
    """The sum over neighbours in plain torch; `radial` is [r, basis (, its slopes)], see `EdgeRows`.

    Args:
        table: the weights are a radial table, and `radial` is [r / r_c].
    """

    def __init__(self, table: bool = False) -> None:
        super().__init__()
        self.table = table

    def forward(
        self,
        h: Tensor,
        y: Tensor,
        radial: List[Tensor],
        weights: List[Tensor],
        edges: List[Tensor],
        n_centers: int,
        tables: List[Tensor],
    ) -> Tensor:
        if self.table:  # a row for every edge
            w = reference.interpolate(radial[0], weights[0], edges)
            edges = edges[:2]
        else:
            w = reference.perceptron(radial[1], weights)
        return reference.convolution(h, y, w, edges, n_centers, tables)


class NativeTensorProduct(nn.Module):
    """The same through the ops of the native library; in inference the weights never leave the kernel."""

    def __init__(self, table: bool = False) -> None:
        super().__init__()
        ops.load()
        self.table = table

    def forward(
        self,
        h: Tensor,
        y: Tensor,
        radial: List[Tensor],
        weights: List[Tensor],
        edges: List[Tensor],
        n_centers: int,
        tables: List[Tensor],
    ) -> Tensor:
        if self.table:
            return torch.ops.mlplugins.table_convolution(
                h, y, radial[0], weights[0], edges, n_centers, tables
            )
        if len(radial) == 2:
            w = reference.perceptron(radial[1], weights)
            return torch.ops.mlplugins.convolution(h, y, w, edges, n_centers, tables)
        return torch.ops.mlplugins.radial_convolution(h, y, radial, weights, edges, n_centers, tables)


class Convolution(HasNativeOps, nn.Module):
    """m_i = Σ_{j ∈ N(i)} R(r_ij) ⊙ (h_j ⊗ Y(r̂_ij))   (NequIP, eq. 4; the "uvu" tensor product).

    A path joins an input irrep l1, a harmonic l2 and an output irrep l3; each path has its own weight per
    channel and edge, made from the radial basis by the perceptron R, and its own block in the output.

    Args:
        irreps_in: irreps of h.
        l_max: degree of the harmonics.
        irreps_target: only paths into these irreps are kept.
        radial_widths: radial basis functions, then the hidden widths of R; none: `radial` holds the weights
            R of every edge themselves, in place of the basis. With tables `radial` is [r / r_c].

    Attributes:
        irreps_out: one block per path, in path order (grouped by input block).
        sources: input block and degree of the harmonic of every path.
        n_weights: radial weights per edge, Σ over paths of the channels.
    """

    paths: Tensor
    entries: Tensor
    values: Tensor

    def __init__(
        self, irreps_in: o3.Irreps, l_max: int, irreps_target: o3.Irreps, radial_widths: List[int]
    ) -> None:
        super().__init__()
        targets = {ir for _, ir in irreps_target}
        parity = _harmonics_parity(irreps_in, irreps_target)
        out: List[Tuple[int, o3.Irrep]] = []
        paths: List[List[int]] = []
        sources: List[Tuple[int, int]] = []
        entries: List[Tuple[int, int, float]] = []
        couplings: Dict[Tuple[int, int, int], int] = {}  # paths of equal degrees share their matrix
        result, weight, size = 0, 0, 0
        for block, ((offset, dim, mul), (_, ir)) in enumerate(zip(blocks(irreps_in), irreps_in)):
            for degree, ir_out in _paths(ir, l_max, targets, parity):
                out.append((mul, ir_out))
                sources.append((block, degree))
                degrees = (ir.l, degree, ir_out.l)
                if degrees not in couplings:
                    couplings[degrees] = size
                    entries.extend(_coupling(*degrees, size))
                    size += dim * ir_out.dim
                paths.append([offset, result, weight, couplings[degrees], mul, dim, ir_out.dim])
                result += mul * ir_out.dim
                weight += mul
        self.irreps_out = o3.Irreps(out)
        self.degree = max([l_max, *(ir.l for _, ir in irreps_in + self.irreps_out)])
        self.sources = sources
        self.n_weights = weight
        self.radial = RadialMLP([*radial_widths, weight] if radial_widths else [])
        index = torch.tensor([entry[:2] for entry in entries], dtype=torch.long)
        values = torch.tensor([entry[2] for entry in entries], dtype=torch.float64)
        # constants of the architecture, not weights: checkpoints do without them
        self.register_buffer("paths", torch.tensor(paths, dtype=torch.long), persistent=False)
        self.register_buffer("entries", index, persistent=False)
        self.register_buffer("values", values, persistent=False)
        self.table = False
        self.product: nn.Module = TensorProduct()

    def use_native_ops(self) -> None:
        """Compute with the op of the native library, which knows degrees up to `FUSED_DEGREE`."""
        if self.degree <= FUSED_DEGREE:
            self.product = NativeTensorProduct(self.table)

    def use_radial_table(self, knots: Tensor) -> None:
        """Interpolate the radial weights, functions of r / r_c, between knots (see `interpolation`)."""
        self.add_module("radial", RadialTable(knots))
        self.table = True
        self.product = TensorProduct(self.table)

    def forward(
        self, h: Tensor, y: Tensor, radial: List[Tensor], edges: List[Tensor], n_centers: int
    ) -> Tensor:
        tables = [self.paths, self.entries, self.values]
        return self.product(h, y, radial, self.radial.matrices(), edges, n_centers, tables)


def reachable_irreps(irreps_in: o3.Irreps, l_max: int, irreps_target: o3.Irreps) -> Set[o3.Irrep]:
    """Those of `irreps_target` that products of `irreps_in` with harmonics up to `l_max` reach."""
    targets = {ir for _, ir in irreps_target}
    parity = _harmonics_parity(irreps_in, irreps_target)
    return {ir_out for _, ir in irreps_in for _, ir_out in _paths(ir, l_max, targets, parity)}


def _harmonics_parity(irreps_in: o3.Irreps, irreps_target: o3.Irreps) -> int:
    """−1, or 1 where everything is even: a model without parity, whose harmonics count as even too."""
    return -1 if any(ir.p == -1 for _, ir in irreps_in + irreps_target) else 1


def _paths(ir: o3.Irrep, l_max: int, targets: Set[o3.Irrep], parity: int) -> List[Tuple[int, o3.Irrep]]:
    """Pairs (harmonic degree, output irrep) that `ir` can reach within `targets`."""
    return [
        (degree, ir_out)
        for degree in range(l_max + 1)
        for ir_out in ir * o3.Irrep(degree, parity**degree)
        if ir_out in targets
    ]


def _coupling(l1: int, l2: int, l3: int, offset: int) -> List[Tuple[int, int, float]]:
    """Nonzero coefficients √(2 l3 + 1) C_ijk as (offset + k (2 l1 + 1) + i, index of harmonic j, value)."""
    cg = o3.wigner_3j(l1, l2, l3, dtype=torch.float64) * math.sqrt(2 * l3 + 1)
    return [
        (offset + k * (2 * l1 + 1) + i, l2**2 + j, float(cg[i, j, k]))
        for i, j, k in torch.nonzero(cg.abs() > 1e-12).tolist()
    ]
