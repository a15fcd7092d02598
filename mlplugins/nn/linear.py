"""Equivariant linear maps: channels mix within each irrep, never between irreps."""

import math
from typing import List, Optional

import torch
from torch import Tensor, nn

from mlplugins import ops
from mlplugins.nn.irreps import o3
from mlplugins.nn.modes import Foldable, HasNativeOps
from mlplugins.nn.sums import LinearSum
from mlplugins.ops import reference


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


def component_irreps(irreps: o3.Irreps) -> List[o3.Irrep]:
    """The irrep that each component of `irreps` belongs to.

    >>> component_irreps(o3.Irreps("1x0e+1x1o"))
    [0e, 1o, 1o, 1o]
    """
    return [ir for multiplicity, ir in irreps for _ in range(multiplicity * ir.dim)]


class BlockProduct(nn.Module):
    """The products of a linear map in plain torch."""

    def forward(self, x: Tensor, weights: List[Tensor], terms: List[int], n_out: int) -> Tensor:
        return reference.linear(x, weights, terms, n_out)


class NativeBlockProduct(nn.Module):
    """The same through the op of the native library."""

    def __init__(self) -> None:
        super().__init__()
        ops.load()

    def forward(self, x: Tensor, weights: List[Tensor], terms: List[int], n_out: int) -> Tensor:
        return torch.ops.mlplugins.linear(x, weights, terms, n_out)


class Linear(Foldable, HasNativeOps, nn.Module):
    """y_l = Σ x_l W_l / √(fan in), over all input blocks that carry the irrep of an output block.

    With `n_species` > 0 every element has its own weights (NequIP's self-connection). With `bias`, constants
    are added to the channels of 0e, the only ones that may have them.
    """

    __constants__ = ["folded", "terms", "n_out", "per_species", "invariant"]

    terms: List[int]
    invariant: List[int]

    def __init__(
        self, irreps_in: o3.Irreps, irreps_out: o3.Irreps, n_species: int = 0, bias: bool = False
    ) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out = irreps_in, irreps_out
        self.terms, weights = [], []
        in_blocks = blocks(irreps_in)
        for target, ((offset, dim, mul), (_, ir)) in enumerate(zip(blocks(irreps_out), irreps_out)):
            fan_in = 0
            for (source, _, channels), (_, ir_in) in zip(in_blocks, irreps_in):
                if ir_in == ir and channels > 0 and mul > 0:
                    self.terms.extend([source, offset, dim, channels, target, fan_in])
                    fan_in += channels
            shape = (max(n_species, 1), fan_in, mul)
            weights.append(nn.Parameter(torch.randn(shape, dtype=torch.float64)))
        self.n_out = irreps_out.dim
        self.per_species = n_species > 0
        self.weights = nn.ParameterList(weights)
        self.invariant = [k for k, ir in enumerate(component_irreps(irreps_out)) if ir == o3.Irrep("0e")]
        self.bias = nn.Parameter(torch.zeros(len(self.invariant), dtype=torch.float64)) if bias else None
        self.product: nn.Module = BlockProduct()
        self.packed: Optional[nn.Module] = None
        self.folded = False

    @torch.jit.unused
    def use_native_ops(self) -> None:
        """Compute with the ops of the native library; a folded map gives up its own parameters."""
        if self.folded and self.terms:
            self.packed = LinearSum([self])
            self.clear()
        elif not self.folded:
            self.product = NativeBlockProduct()

    @torch.jit.unused
    def clear(self) -> None:
        """Forget the parameters, which stand packed elsewhere: this map is not used any more."""
        self.weights, self.bias, self.terms = nn.ParameterList(), None, []

    @torch.jit.unused
    def numbered_terms(self) -> List[List[int]]:
        """Of every product: offsets in x and y, 2l + 1, channels, the matrix, and its first row."""
        return [self.terms[k : k + 6] for k in range(0, len(self.terms), 6)]

    @torch.jit.unused
    def fold(self) -> None:
        """Multiply 1/√(fan in) into the weights, once and for all: for inference."""
        if self.folded:
            return
        with torch.no_grad():
            for weight in self.weights:
                weight.mul_(1.0 / math.sqrt(max(weight.shape[1], 1)))
            if self.bias is not None:
                self.bias = nn.Parameter(self._row(self.bias))
        self.folded = True

    def _row(self, bias: Tensor) -> Tensor:
        """The constants of all output components: zero but for 0e."""
        columns = torch.tensor(self.invariant, dtype=torch.long, device=bias.device)
        return bias.new_zeros(self.n_out).index_copy(0, columns, bias)

    def forward(self, x: Tensor, species: Tensor) -> Tensor:
        if self.packed is not None:
            y = self.packed([x], species)
        else:
            y = self._products(x, species)
            bias = self.bias
            if bias is not None:
                y = y + (bias if self.folded else self._row(bias))
        result: Tensor = y
        return result

    def _products(self, x: Tensor, species: Tensor) -> Tensor:
        w: List[Tensor] = []
        for weight in self.weights:
            w.append(weight if self.folded else weight * (1.0 / math.sqrt(max(weight.shape[1], 1))))
        if not self.per_species or x.shape[0] == 0:  # no rows, and still part of the graph
            return self.product(x, [matrix[0] for matrix in w], self.terms, self.n_out)
        order = torch.argsort(species)
        counts: List[int] = torch.bincount(species).tolist()
        parts: List[Tensor] = []
        for z, x_z in enumerate(x.index_select(0, order).split(counts)):
            if counts[z] > 0:
                parts.append(self.product(x_z, [matrix[z] for matrix in w], self.terms, self.n_out))
        y = torch.cat(parts)  # sorted by species
        return torch.empty_like(y).index_copy(0, order, y)
