"""Cartesian tensors of atoms, or summed over them: gated equivariant maps of the features of all layers.

For each irrep of the target, t_i = s Σ_c (a_c + g_c(x_i)) h_ic over the channels c of that irrep in all
layers and those of products of features (of two vectors 1o: 0e + 1e + 2e, …), with a network g of the scalars
x_i of the last layer; s is the size of the labels (of atoms of an element). To scalars, and to the isotropic
part of tensors, each element adds a constant.
"""

from dataclasses import dataclass
from typing import Dict, List, Tuple

import torch
from torch import Tensor, nn

from mlplugins.errors import BadInput
from mlplugins.heads import LabelSizes, Trunk
from mlplugins.nn.irreps import o3
from mlplugins.nn.radial import RadialMLP
from mlplugins.quantities import QUANTITIES
from mlplugins.structures.graph import Graph

FACTORS = ("1o", "2e")
"""Irreps whose features are multiplied with each other."""


@dataclass(frozen=True)
class Hyperparameters:
    """Hyper-parameters.

    Attributes:
        width: hidden width of the network.
        products: channels of each product of features; 0: none.
    """

    width: int = 32
    products: int = 8


class FeatureProduct(nn.Module):
    """Products of mixed features: Σ_ab C_abm (h W)_ac (h' W')_bc, (n_centers, 2l + 1, channels)."""

    coupling: Tensor
    first: List[Tuple[str, int, int, int]]
    second: List[Tuple[str, int, int, int]]

    def __init__(
        self,
        sources: Tuple[List[Tuple[str, int, int, int]], List[Tuple[str, int, int, int]]],
        coupling: Tensor,
        channels: int,
    ) -> None:
        super().__init__()
        self.first, self.second = sources
        self.mixing = nn.ParameterList([_mixing(each, channels) for each in sources])
        self.register_buffer("coupling", coupling)  # (dim, dim', 2l + 1)

    def forward(self, found: Dict[str, Tensor]) -> Tensor:
        a = gathered(found, self.first) @ self.mixing[0]
        b = gathered(found, self.second) @ self.mixing[1]
        return torch.einsum("nac,nbc,abm->nmc", a, b, self.coupling)


class Head(nn.Module):
    """A tensor of every atom, e.g. its share of the polarizability.

    >>> trunk = Trunk(2, 5.0, {"h1": o3.Irreps("4x0e+4x1o"), "h2": o3.Irreps("4x0e")})
    >>> head = Head("dipole", trunk, Hyperparameters(width=8))
    >>> nobody = torch.zeros(0, dtype=torch.long)
    >>> graph = Graph(torch.tensor([0, 1]), nobody, nobody, torch.zeros(0, 3), torch.tensor([0, 0]), 2)
    >>> found = {"h1": torch.randn(2, 16).double(), "h2": torch.randn(2, 4).double()}
    >>> head(graph, found).shape
    torch.Size([2, 3])

    Raises:
        BadInput: no layer has features of an irrep of the target, or that give it as a product.
    """

    scales: Tensor
    bases: Tensor
    sources: List[List[Tuple[str, int, int, int]]]
    owners: List[int]
    shape: List[int]

    def __init__(self, name: str, trunk: Trunk, hyperparameters: Hyperparameters) -> None:
        super().__init__()
        quantity, h = QUANTITIES[name], hyperparameters
        if h.width <= 0 or h.products < 0:
            key, value = ("width", h.width) if h.width <= 0 else ("products", h.products)
            raise BadInput(f"heads: {name}: '{key}' must be positive, got {value}")
        self.shape = list(quantity.shape)
        self.last, self.n_scalars = trunk.last
        target = [ir for _, ir in o3.Irreps(quantity.irreps)]
        self.sources = [trunk.channels(ir) for ir in target]
        self.owners, products = [], nn.ModuleList()
        for k, ir in enumerate(target):
            made = _products(ir, trunk, h.products)
            products.extend(made)
            self.owners += [k] * len(made)
            if not self.sources[k] and not made:
                raise BadInput(_missing(name, ir, trunk))
        self.products = products
        self.sizes = [
            sum(mul for _, _, _, mul in sources) + h.products * self.owners.count(k)
            for k, sources in enumerate(self.sources)
        ]
        self.network = RadialMLP([self.n_scalars, h.width, sum(self.sizes)])
        self.weights = nn.Parameter(torch.randn(sum(self.sizes), dtype=torch.float64))
        self.register_buffer("bases", torch.cat([_basis(ir, quantity.shape) for ir in target], dim=1))
        n_constants = trunk.n_species if o3.Irrep("0e") in target else 0
        self.constants = nn.Parameter(torch.zeros(n_constants, dtype=torch.float64))
        self.register_buffer("scales", torch.ones(len(target), trunk.n_species, dtype=torch.float64))

    @torch.jit.unused
    def initialise(self, sizes: LabelSizes) -> None:
        with torch.no_grad():
            self.scales.copy_(torch.tensor(sizes.by_element or [[rms] for rms in sizes.rms]))
            if self.constants.numel() > 0 and sizes.constants:
                # a constant times the unit matrix, in the basis
                factor = 3**0.5 if len(self.shape) == 2 else 1.0
                self.constants.copy_(factor * torch.tensor(sizes.constants))

    def forward(self, graph: Graph, found: Dict[str, Tensor]) -> Tensor:
        x = found[self.last][:, : self.n_scalars]
        coefficients = (self.weights + self.network(x)).split(self.sizes, dim=1)
        parts: List[List[Tensor]] = []
        for sources in self.sources:
            each: List[Tensor] = []
            if len(sources) > 0:
                each.append(gathered(found, sources))
            parts.append(each)
        for index, product in enumerate(self.products):
            parts[self.owners[index]].append(product(found))
        values: List[Tensor] = []
        species = graph.species[: graph.n_centers]
        scales = self.scales.index_select(1, species)  # (parts, n_centers)
        for k, each in enumerate(parts):
            c = coefficients[k].unsqueeze(1) / self.sizes[k] ** 0.5
            value = scales[k].unsqueeze(1) * (torch.cat(each, dim=2) * c).sum(dim=2)  # (n_centers, 2l + 1)
            if value.shape[1] == 1 and self.constants.numel() > 0:
                value = value + self.constants.index_select(0, species).unsqueeze(1)
            values.append(value)
        tensor = torch.cat(values, dim=1) @ self.bases.t()
        return tensor.reshape([tensor.shape[0]] + self.shape)


def gathered(found: Dict[str, Tensor], sources: List[Tuple[str, int, int, int]]) -> Tensor:
    """Features of one irrep of all layers: (n_centers, 2l + 1, channels)."""
    h: List[Tensor] = []
    for name, offset, dim, mul in sources:
        h.append(found[name][:, offset : offset + dim * mul].reshape(-1, dim, mul))
    return torch.cat(h, dim=2)


def _mixing(sources: List[Tuple[str, int, int, int]], channels: int) -> nn.Parameter:
    n = sum(mul for _, _, _, mul in sources)
    return nn.Parameter(torch.randn(n, channels, dtype=torch.float64) / n**0.5)


def _products(ir: o3.Irrep, trunk: Trunk, channels: int) -> List[FeatureProduct]:
    """All products of features that turn like `ir`."""
    factors = [(o3.Irrep(name), trunk.channels(o3.Irrep(name))) for name in FACTORS]
    factors = [(own, sources) for own, sources in factors if sources and channels > 0]
    made = []
    for k, (one, first) in enumerate(factors):
        for other, second in factors[k:]:
            if ir in one * other:
                coupling = o3.wigner_3j(one.l, other.l, ir.l, dtype=torch.float64) * ir.dim**0.5
                made.append(FeatureProduct((first, second), coupling, channels))
    return made


def _missing(name: str, ir: o3.Irrep, trunk: Trunk) -> str:
    has = "; ".join(f"{layer}: {irreps}" for layer, irreps in trunk.layers.items())
    return (
        f"heads: {name} needs features of irrep {ir}, and no layer of the model has them ({has}): choose "
        f"two layers or more, and degrees up to {ir.l} between them (nequip: l_max; mace: max_L)"
        + ("; with parity: even no feature has a parity" if ir.p == -1 else "")
    )


def _basis(ir: o3.Irrep, shape: Tuple[int, ...]) -> Tensor:
    """Orthonormal tensors of `shape` that turn like the components of `ir`: (components, 2l + 1)."""
    if len(shape) < 2:
        return torch.eye(max(len(shape) * 3, 1), dtype=torch.float64)
    product = o3.wigner_3j(1, 1, ir.l, dtype=torch.float64).reshape(9, ir.dim)
    return product * ir.dim**0.5
