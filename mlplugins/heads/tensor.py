"""Cartesian tensors of atoms, or summed over them: gated equivariant maps of the features of all layers.

For each irrep of the target, t_i = s Σ_c (a_c + g_c(x_i)) h_ic over the channels c of that irrep in all
layers, with a network g of the scalars x_i of the last layer; to scalars each element adds a constant.
"""

from dataclasses import dataclass
from typing import Dict, List, Tuple

import torch
from torch import Tensor, nn

from mlplugins.errors import BadInput
from mlplugins.heads import Trunk
from mlplugins.nn.irreps import o3
from mlplugins.nn.radial import RadialMLP
from mlplugins.quantities import QUANTITIES
from mlplugins.structures.graph import Graph


@dataclass(frozen=True)
class Hyperparameters:
    """Hyper-parameters.

    Attributes:
        width: hidden width of the network.
    """

    width: int = 32


class Head(nn.Module):
    """A tensor of every atom, e.g. its share of the dipole.

    >>> trunk = Trunk(2, 5.0, {"h1": o3.Irreps("4x0e+4x1o"), "h2": o3.Irreps("4x0e")})
    >>> head = Head("dipole", trunk, Hyperparameters(width=8))
    >>> nobody = torch.zeros(0, dtype=torch.long)
    >>> graph = Graph(torch.tensor([0, 1]), nobody, nobody, torch.zeros(0, 3), torch.tensor([0, 0]), 2)
    >>> found = {"h1": torch.randn(2, 16).double(), "h2": torch.randn(2, 4).double()}
    >>> head(graph, found).shape
    torch.Size([2, 3])

    Raises:
        BadInput: no layer has features of an irrep of the target.
    """

    scale: Tensor
    bases: Tensor
    channels: List[List[Tuple[str, int, int, int]]]

    def __init__(self, name: str, trunk: Trunk, hyperparameters: Hyperparameters) -> None:
        super().__init__()
        quantity = QUANTITIES[name]
        if hyperparameters.width <= 0:
            raise BadInput(f"heads: {name}: 'width' must be positive, got {hyperparameters.width}")
        self.shape = list(quantity.shape)
        self.last, self.n_scalars = trunk.last
        target = o3.Irreps(quantity.irreps)
        self.channels = [_channels(ir, trunk, name) for _, ir in target]
        self.sizes = [sum(mul for _, _, _, mul in found) for found in self.channels]
        self.network = RadialMLP([self.n_scalars, hyperparameters.width, sum(self.sizes)])
        self.weights = nn.Parameter(torch.randn(sum(self.sizes), dtype=torch.float64))
        self.register_buffer("bases", torch.cat([_basis(ir, quantity.shape) for _, ir in target], dim=1))
        n_constants = trunk.n_species if target.count(o3.Irrep("0e")) else 0
        self.constants = nn.Parameter(torch.zeros(n_constants, dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    def forward(self, graph: Graph, found: Dict[str, Tensor]) -> Tensor:
        x = found[self.last][:, : self.n_scalars]
        coefficients = (self.weights + self.network(x)).split(self.sizes, dim=1)
        parts: List[Tensor] = []
        for k, sources in enumerate(self.channels):
            h: List[Tensor] = []
            for name, offset, dim, mul in sources:
                h.append(found[name][:, offset : offset + dim * mul].reshape(-1, dim, mul))
            c = coefficients[k].unsqueeze(1) / self.sizes[k] ** 0.5
            part = (torch.cat(h, dim=2) * c).sum(dim=2)  # (n_centers, 2l + 1)
            if part.shape[1] == 1 and self.constants.numel() > 0:
                part = part + self.constants.index_select(0, graph.species[: graph.n_centers]).unsqueeze(1)
            parts.append(part)
        tensor = torch.cat(parts, dim=1) @ self.bases.t()
        return self.scale * tensor.reshape([tensor.shape[0]] + self.shape)


def _channels(ir: o3.Irrep, trunk: Trunk, name: str) -> List[Tuple[str, int, int, int]]:
    found = trunk.channels(ir)
    if not found:
        has = "; ".join(f"{layer}: {irreps}" for layer, irreps in trunk.layers.items())
        raise BadInput(
            f"heads: {name} needs features of irrep {ir}, and no layer of the model has them ({has}): choose "
            f"two layers or more, and degrees up to {ir.l} between them (nequip: l_max; mace: max_L)"
            + ("; with parity: even no feature has a parity" if ir.p == -1 else "")
        )
    return found


def _basis(ir: o3.Irrep, shape: Tuple[int, ...]) -> Tensor:
    """Orthonormal tensors of `shape` that turn like the components of `ir`: (components, 2l + 1)."""
    if len(shape) < 2:
        return torch.eye(max(len(shape) * 3, 1), dtype=torch.float64)
    product = o3.wigner_3j(1, 1, ir.l, dtype=torch.float64).reshape(9, ir.dim)
    return product * ir.dim**0.5
