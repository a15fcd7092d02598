"""The symmetric contraction of MACE: many-body features as equivariant polynomials of a node's features.

Batatia et al. 2022, arXiv 2206.07697, eqs. 10–11.
"""

import math
from functools import cache
from itertools import combinations_with_replacement
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from mlplugins import ops
from mlplugins.errors import BadInput
from mlplugins.nn.irreps import o3
from mlplugins.nn.modes import Foldable, HasNativeOps
from mlplugins.ops import reference

MAX_CORRELATION = 3


class Polynomial(nn.Module):
    """The sum over monomials in plain torch."""

    def forward(
        self, x: Tensor, coefficients: Tensor, species: Tensor, monomials: Tensor, n_out: int
    ) -> Tensor:
        return reference.symmetric_contraction(x, coefficients, species, monomials, n_out)


class NativePolynomial(nn.Module):
    """The same through the op `mlplugins::symmetric_contraction`."""

    def __init__(self) -> None:
        super().__init__()
        ops.load()

    def forward(
        self, x: Tensor, coefficients: Tensor, species: Tensor, monomials: Tensor, n_out: int
    ) -> Tensor:
        return torch.ops.mlplugins.symmetric_contraction(x, coefficients, species, monomials, n_out)


class PathWeights(nn.Module):
    """Coefficients c_{z,m,u} = Σ_η W_{z,η,u} U_{η,m} of one output irrep and one order.

    The basis U is part of the state: weights mean something only together with it. Loading a state takes over
    its basis, of whatever size.

    Args:
        monomials: (M, 4) int64, see `mlplugins.ops.reference.symmetric_contraction`.
        basis: (η, M).
        n_species: elements.
        channels: width of the features.
    """

    monomials: Tensor
    basis: Tensor

    def __init__(self, monomials: Tensor, basis: Tensor, n_species: int, channels: int) -> None:
        super().__init__()
        n_paths = basis.shape[0]
        self.register_buffer("monomials", monomials)
        self.register_buffer("basis", basis)
        weight = torch.randn(n_species, n_paths, channels, dtype=torch.float64)
        self.weight = nn.Parameter(weight / n_paths)

    def forward(self) -> Tuple[Tensor, Tensor]:
        return torch.matmul(self.basis.t(), self.weight), self.monomials  # (S, M, C), (M, 4)

    def _load_from_state_dict(self, state_dict: Dict[str, Tensor], prefix: str, *args: Any) -> None:
        for name in ("monomials", "basis"):
            stored = state_dict.get(prefix + name)
            if stored is not None:
                setattr(self, name, getattr(self, name).new_empty(stored.shape))
        stored = state_dict.get(prefix + "weight")
        n_species, _, channels = self.weight.shape
        if (
            stored is not None
            and stored.dim() == 3
            and (stored.shape[0], stored.shape[2]) == (n_species, channels)
        ):
            self.weight.data = self.weight.data.new_empty(stored.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)


class SymmetricContraction(Foldable, HasNativeOps, nn.Module):
    """B_k = Σ_ν Σ_η W^ν_{z,η} Σ_{i1…iν} U^ν_{η,k;i1…iν} x_{i1} … x_{iν}   (MACE, eqs. 10–11).

    Every channel goes by itself. i runs over the components of all input irreps, k over those of the output
    irreps; U^ν_η are the equivariant maps that are symmetric in i1 … iν, orthogonal to each other, with
    ‖U‖² = 2l + 1.

    Args:
        irreps_in: irreps of x, all with the same multiplicity C, the channels.
        irreps_out: irreps of the result, with multiplicity C.
        correlation: largest order ν, 1 to 3.
        n_species: elements; each has its own weights W.
        bases: maps U instead of the own ones, for reading foreign models: one list per output irrep with a
            dense tensor (2l + 1, D, …, D, η) for each order ν = 1, 2, …. They need be neither symmetric (only
            their symmetric part counts) nor linearly independent.

    Raises:
        BadInput: multiplicities that differ, a correlation out of range, an output that no order reaches.

    >>> contraction = SymmetricContraction(o3.Irreps("8x0e+8x1o"), o3.Irreps("8x0e"), 2, 3)
    >>> contraction(torch.randn(5, 32).double(), torch.tensor([0, 2, 2, 1, 0])).shape
    torch.Size([5, 8])
    """

    __constants__ = ["folded"]

    coefficients: Tensor
    monomials: Tensor

    def __init__(
        self,
        irreps_in: o3.Irreps,
        irreps_out: o3.Irreps,
        correlation: int,
        n_species: int,
        bases: Optional[Sequence[Sequence[Tensor]]] = None,
    ) -> None:
        super().__init__()
        channels = _channels(irreps_in, irreps_out)
        if not 1 <= correlation <= MAX_CORRELATION:
            raise BadInput(f"correlation must be 1 to {MAX_CORRELATION}, got {correlation}")
        if n_species < 1:
            raise BadInput(f"n_species must be positive, got {n_species}")
        if bases is None:
            found = _own_bases(irreps_in, irreps_out, correlation)
        else:
            found = _foreign_bases(irreps_in, irreps_out, correlation, bases)
        paths: List[nn.Module] = []
        offset = 0
        for (_, ir), orders in zip(irreps_out, found):
            shift = torch.tensor([offset, 0, 0, 0])
            paths += [
                PathWeights(table + shift, u, n_species, channels) for table, u in orders if u.numel() > 0
            ]
            offset += ir.dim
        self.irreps_in, self.irreps_out = irreps_in, irreps_out
        self.n_out = offset
        self.paths = nn.ModuleList(paths)
        self.folded = False
        self.register_buffer("coefficients", torch.zeros(0, dtype=torch.float64), persistent=False)
        self.register_buffer("monomials", torch.zeros(0, 4, dtype=torch.long), persistent=False)
        self.polynomial: nn.Module = Polynomial()

    def use_native_ops(self) -> None:
        """Compute with the op of the native library."""
        self.polynomial = NativePolynomial()

    @torch.jit.unused
    def fold(self) -> None:
        """Fold weights and bases once and for all, and forget both: for inference."""
        with torch.no_grad():
            self.coefficients, self.monomials = self.folded_weights()
        self.paths = nn.ModuleList()
        self.folded = True

    def folded_weights(self) -> Tuple[Tensor, Tensor]:
        """Coefficients Σ_η W_{z,η,u} U_{η,m} (S, M, C) of all monomials (M, 4)."""
        if self.folded:
            return self.coefficients, self.monomials
        coefficients: List[Tensor] = []
        monomials: List[Tensor] = []
        for path in self.paths:
            c, table = path()
            coefficients.append(c)
            monomials.append(table)
        return torch.cat(coefficients, dim=1), torch.cat(monomials, dim=0)

    def forward(self, x: Tensor, species: Tensor) -> Tensor:
        """(N, irreps_in.dim) features and (N,) species → (N, irreps_out.dim), ir_mul."""
        coefficients, monomials = self.folded_weights()
        return self.polynomial(x, coefficients, species, monomials, self.n_out)


def symmetric_basis(irreps: o3.Irreps, ir_out: o3.Irrep, order: int) -> Tuple[Tensor, Tensor]:
    """Orthogonal basis of the symmetric equivariant maps of `order` copies of `irreps` to `ir_out`.

    Wigner 3j symbols couple the irreps of each combination one after the other, through every intermediate
    degree; the results, symmetrised, span the space, and Gram–Schmidt in this order picks the basis: neither
    order nor signs depend on the machine.

    Args:
        irreps: one copy of each irrep; multiplicities count as copies.
        ir_out: irrep of the result.
        order: 1 to 3.

    Returns:
        monomials (M, 4): rows [k, i1, i2, i3] with i1 ≤ i2 ≤ i3, sorted, -1 behind the `order` indices;
        basis (η, M) float64: map η is Σ_m basis[η, m] x_{i1(m)} … into component k(m). The squares of the
        dense symmetric tensor of a map add up to 2l + 1.

    >>> monomials, basis = symmetric_basis(o3.Irreps("0e+1o"), o3.Irrep("0e"), 2)  # a² and r·r
    >>> monomials.tolist()
    [[0, 0, 0, -1], [0, 1, 1, -1], [0, 2, 2, -1], [0, 3, 3, -1]]
    >>> torch.linalg.norm(basis, dim=1).round(decimals=6).tolist()
    [1.0, 1.0]
    """
    monomials, basis = _symmetric_basis(str(irreps), str(ir_out), order)
    return monomials.clone(), basis.clone()


def monomial_basis(u: Tensor) -> Tuple[Tensor, Tensor]:
    """Dense maps as polynomials: monomials (M, 4) and basis (η, M), as `symmetric_basis` returns them.

    Args:
        u: (2l + 1, D, …, D, η) with one to three axes D. Only the part that is symmetric in them counts.

    Monomials that vanish, to rounding, in all maps are left out.

    >>> u = torch.zeros(1, 2, 2, 1)
    >>> u[0, 0, 1, 0] = 3.0  # 3 x_0 x_1
    >>> monomial_basis(u)
    (tensor([[ 0,  0,  1, -1]]), tensor([[3.]]))
    """
    order = u.dim() - 2
    if not 1 <= order <= MAX_CORRELATION or len(set(u.shape[1:-1])) != 1:
        raise BadInput(
            f"expected a map of shape (2l + 1, D, …, D, η) with one to three D, got {tuple(u.shape)}"
        )
    n_in = u.shape[1]
    codes, maps = _collect(u, [torch.arange(n_in)] * order, n_in)
    if u.shape[-1] == 0:
        return _decode(codes[:0], n_in), maps[:, :0]
    kept = maps.abs().amax(dim=0) > 16 * torch.finfo(u.dtype).eps * float(maps.abs().max())
    return _decode(codes[kept], n_in), maps[:, kept].clone()


def _channels(irreps_in: o3.Irreps, irreps_out: o3.Irreps) -> int:
    multiplicities = {mul for mul, _ in irreps_in} | {mul for mul, _ in irreps_out}
    if len(multiplicities) != 1 or 0 in multiplicities:
        raise BadInput(
            "the symmetric contraction works channel by channel: all irreps need one and the same "
            f"multiplicity, got {irreps_in} → {irreps_out}"
        )
    return multiplicities.pop()


def _own_bases(
    irreps_in: o3.Irreps, irreps_out: o3.Irreps, correlation: int
) -> List[List[Tuple[Tensor, Tensor]]]:
    single = o3.Irreps([(1, ir) for _, ir in irreps_in])
    found = []
    for _, ir_out in irreps_out:
        orders = [symmetric_basis(single, ir_out, order) for order in range(1, correlation + 1)]
        if all(basis.numel() == 0 for _, basis in orders):
            raise BadInput(f"products of up to {correlation} features {single} do not reach {ir_out}")
        found.append(orders)
    return found


def _foreign_bases(
    irreps_in: o3.Irreps, irreps_out: o3.Irreps, correlation: int, bases: Sequence[Sequence[Tensor]]
) -> List[List[Tuple[Tensor, Tensor]]]:
    if len(bases) != len(irreps_out) or any(len(orders) != correlation for orders in bases):
        raise BadInput(
            f"expected bases for {len(irreps_out)} output irreps and {correlation} orders each, "
            f"got {[len(orders) for orders in bases]}"
        )
    n_in = sum(ir.dim for _, ir in irreps_in)
    found = []
    for (_, ir), orders in zip(irreps_out, bases):
        for order, u in enumerate(orders, start=1):
            expected = (ir.dim, *[n_in] * order)
            if tuple(u.shape[:-1]) != expected:
                raise BadInput(
                    f"basis of {ir}, order {order}: expected {expected} and η, got {tuple(u.shape)}"
                )
        found.append([monomial_basis(u.to(torch.float64)) for u in orders])
    return found


@cache
def _symmetric_basis(irreps: str, ir_out: str, order: int) -> Tuple[Tensor, Tensor]:
    target = o3.Irrep(ir_out)
    blocks = [ir for mul, ir in o3.Irreps(irreps) for _ in range(mul)]
    starts = [sum(ir.dim for ir in blocks[:b]) for b in range(len(blocks))]
    n_in = sum(ir.dim for ir in blocks)
    parts = []
    for chosen in combinations_with_replacement(range(len(blocks)), order):
        couplings = _couplings([blocks[b] for b in chosen], target)
        if couplings:
            axes = [torch.arange(starts[b], starts[b] + blocks[b].dim) for b in chosen]
            codes, maps = _collect(torch.stack(couplings, dim=-1), axes, n_in)
            parts.append((codes, _orthogonal(maps, _arrangements(_decode(codes, n_in)), target.dim)))
    if not parts:
        return torch.zeros(0, 4, dtype=torch.long), torch.zeros(0, 0, dtype=torch.float64)
    # combinations have no monomial in common: block-diagonal
    codes, basis = torch.cat([codes for codes, _ in parts]), torch.block_diag(*[maps for _, maps in parts])
    codes, by_code = codes.sort()
    basis = basis[:, by_code]
    kept = (basis != 0).any(dim=0)
    return _decode(codes[kept], n_in), basis[:, kept].contiguous()


def _couplings(irs: List[o3.Irrep], target: o3.Irrep) -> List[Tensor]:
    """Equivariant maps (2l + 1, d1, …) of the product of `irs` into `target`, one per chain of irreps."""
    # (irrep so far, map (its components, d1, …))
    chains = [(irs[0], torch.eye(irs[0].dim, dtype=torch.float64))]
    for ir in irs[1:]:
        longer = []
        for reached, u in chains:
            for ir_next in reached * ir:
                c = o3.wigner_3j(reached.l, ir.l, ir_next.l, dtype=torch.float64)
                longer.append((ir_next, torch.einsum("p...,pik->k...i", u, c)))
        chains = longer
    return [u for reached, u in chains if reached == target]


def _orthogonal(maps: Tensor, arrangements: Tensor, dim: int) -> Tensor:
    """Gram–Schmidt on the rows of `maps` (P, M), for the inner product of the dense symmetric tensors."""
    basis: List[Tensor] = []
    for row in maps:
        start = float((row**2 / arrangements).sum().sqrt())
        residual = row
        for _ in range(2):  # once more for rounding
            for u in basis:
                residual = residual - u * ((u * residual / arrangements).sum() / dim)
        norm = float((residual**2 / arrangements).sum().sqrt())
        # 3j symbols have norm 1: what symmetrisation leaves is of order 0.1, or rounding
        if start > 1e-6 and norm > 1e-6 * start:
            u = residual * (math.sqrt(dim) / norm)
            basis.append(torch.where(u.abs() < 1e-12, 0.0, u))
    return torch.stack(basis) if basis else maps[:0]


def _arrangements(monomials: Tensor) -> Tensor:
    """Entries of the dense tensor that a monomial stands for: the permutations of its indices."""
    counts = []
    for _, *indices in monomials.tolist():
        present = [i for i in indices if i >= 0]
        repeats = math.prod(math.factorial(present.count(i)) for i in set(present))
        counts.append(math.factorial(len(present)) // repeats)
    return torch.tensor(counts, dtype=torch.float64)


def _collect(u: Tensor, axes: List[Tensor], n_in: int) -> Tuple[Tensor, Tensor]:
    """Sum the entries of dense maps u (K, d1, …, P) that belong to one monomial: codes (M,), maps (P, M).

    `axes` holds the input that each index of u stands for. A code is a monomial as a number in base n_in + 1.
    """
    grid = torch.cartesian_prod(*axes).reshape(-1, len(axes)).sort(dim=1).values
    padding = torch.full((grid.shape[0], MAX_CORRELATION - len(axes)), -1)
    code = torch.zeros(grid.shape[0], dtype=torch.long)
    for digit in torch.cat([grid, padding], dim=1).unbind(1):
        code = code * (n_in + 1) + digit + 1
    component = torch.arange(u.shape[0]) * (n_in + 1) ** MAX_CORRELATION
    codes, inverse = (component[:, None] + code).reshape(-1).unique(return_inverse=True)
    flat = u.reshape(len(inverse), u.shape[-1])
    maps = torch.zeros(len(codes), u.shape[-1], dtype=u.dtype).index_add(0, inverse, flat)
    return codes, maps.t()


def _decode(codes: Tensor, n_in: int) -> Tensor:
    columns = []
    for _ in range(MAX_CORRELATION):
        columns.append(codes % (n_in + 1) - 1)
        codes = codes // (n_in + 1)
    return torch.stack([codes, *reversed(columns)], dim=1)
