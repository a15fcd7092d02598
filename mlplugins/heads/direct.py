"""Direct forces: vectors along the edges, in the place of the gradients of an energy.

    g_e = s (a_e v̂_e + b_e),   a_e = Σ_lk R_lk(r_e) t_lk(j) Σ_m z_i,lmk Y_lm(v̂_e),
    b_e = Σ_k R'_k(r_e) t'_k(j) z_i,1k

with mixed and gated features z of the centre i, an element factor t of the neighbour j and radial functions R
that vanish at the cutoff. Forces and stress follow from g_e as from ∂E/∂v_e (`models.base.edge_sums`): what
one atom gains the other loses, so that the net force is zero however the atoms are divided among processes.
The pair terms a_e leave the angular momentum alone as well; the terms b_e, without which forces out of the
plane of a flat molecule are hard to represent, do not.
"""

from dataclasses import dataclass
from typing import Dict, List, Tuple

import torch
from torch import Tensor, nn

from mlplugins.errors import BadInput
from mlplugins.heads import Trunk
from mlplugins.nn.convolution import SphericalHarmonics
from mlplugins.nn.irreps import o3
from mlplugins.nn.radial import BesselBasis, RadialMLP
from mlplugins.structures.graph import Graph


@dataclass(frozen=True)
class Hyperparameters:
    """Hyper-parameters.

    Attributes:
        channels: channels k of every degree.
        num_basis: Bessel functions.
        width: hidden width of the network that gates the features.
        vectors: with the terms b_e; without them the net torque is zero, too.
    """

    channels: int = 16
    num_basis: int = 8
    width: int = 32
    vectors: bool = True


class Head(nn.Module):
    """A vector for every edge.

    Raises:
        BadInput: a hyper-parameter that is not positive.
    """

    scale: Tensor
    sources: List[List[Tuple[str, int, int, int]]]

    def __init__(self, name: str, trunk: Trunk, hyperparameters: Hyperparameters) -> None:
        super().__init__()
        h = hyperparameters
        for key, value in {"channels": h.channels, "num_basis": h.num_basis, "width": h.width}.items():
            if value <= 0:
                raise BadInput(f"heads: {name}: '{key}' must be positive, got {value}")
        degrees = [trunk.channels(o3.Irrep(degree, (-1) ** degree)) for degree in range(12)]
        self.sources = degrees[: next(degree for degree, found in enumerate(degrees) if not found)]
        self.last, self.n_scalars = trunk.last
        n_degrees = len(self.sources)
        self.n_channels = h.channels
        self.vectors = h.vectors and n_degrees > 1
        sizes = [sum(mul for _, _, _, mul in found) for found in self.sources]
        self.mixing = nn.ParameterList(
            [nn.Parameter(torch.randn(size, h.channels, dtype=torch.float64) / size**0.5) for size in sizes]
        )
        self.gates = RadialMLP([self.n_scalars, h.width, n_degrees * h.channels])
        self.basis = BesselBasis(trunk.cutoff, h.num_basis)
        n_radial = (n_degrees + self.vectors) * h.channels
        self.radial = nn.Parameter(torch.randn(h.num_basis, n_radial, dtype=torch.float64))
        self.of_neighbor = nn.Parameter(torch.ones(trunk.n_species, n_radial, dtype=torch.float64))
        self.harmonics = SphericalHarmonics(n_degrees - 1)
        self.normalisation = 1.0 / (h.channels * n_degrees * h.num_basis) ** 0.5
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    def forward(self, graph: Graph, found: Dict[str, Tensor]) -> Tensor:
        r = torch.linalg.vector_norm(graph.vectors, dim=1)  # (E,)
        directions = graph.vectors / r.unsqueeze(1)
        y = self.harmonics(directions)  # (E, (l_max + 1)²)
        element = self.of_neighbor.index_select(0, graph.species.index_select(0, graph.neighbors))
        radial = (self.basis(r) @ self.radial) * element  # (E, (degrees + 1) channels)
        gates = 1.0 + self.gates(found[self.last][:, : self.n_scalars])
        k, a = self.n_channels, torch.zeros_like(r)
        b = torch.zeros_like(directions)
        for degree, mixing in enumerate(self.mixing):
            h: List[Tensor] = []
            for name, offset, dim, mul in self.sources[degree]:
                h.append(found[name][:, offset : offset + dim * mul].reshape(-1, dim, mul))
            z = torch.cat(h, dim=2) @ mixing * gates[:, degree * k : (degree + 1) * k].unsqueeze(1)
            z = z.index_select(0, graph.centers)  # (E, 2l + 1, channels)
            own = y[:, degree * degree : (degree + 1) * (degree + 1)].unsqueeze(2)
            a = a + (radial[:, degree * k : (degree + 1) * k] * (z * own).sum(dim=1)).sum(dim=1)
            if degree == 1 and self.vectors:
                b = (z * radial[:, -k:].unsqueeze(1)).sum(dim=2)  # (E, 3)
        return (self.scale * self.normalisation) * (a.unsqueeze(1) * directions + b)
