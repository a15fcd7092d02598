"""Functions of edges, of the features of their centres alone: what flows and direct forces are made of."""

from typing import Dict, List, Tuple

import torch
from torch import Tensor, nn

from mlplugins.errors import BadInput
from mlplugins.heads import Trunk
from mlplugins.nn.convolution import SphericalHarmonics
from mlplugins.nn.irreps import o3
from mlplugins.nn.radial import BesselBasis, RadialMLP
from mlplugins.structures.graph import Graph


class PairFunctions(nn.Module):
    """A scalar a_e and, if there are features 1o, a vector b_e of every edge e = (i → j).

        a_e = Σ_lk R_lk(r_e) t_lk(j) Σ_m z_i,lmk Y_lm(v̂_e),    b_e = Σ_k R'_k(r_e) t'_k(j) z_i,1k

    with mixed and gated features z of the centre i, an element factor t of the neighbour j and radial
    functions R that vanish at the cutoff. Nothing is needed of the features of neighbours, which other
    processes hold.

    Args:
        name: the quantity, for messages.
        trunk: of the features.
        sizes: channels k of every degree, Bessel functions, and the hidden width of the network of the gates.
        vectors: whether b_e is wanted.

    Raises:
        BadInput: a size that is not positive.
    """

    sources: List[List[Tuple[str, int, int, int]]]

    def __init__(self, name: str, trunk: Trunk, sizes: Tuple[int, int, int], vectors: bool) -> None:
        super().__init__()
        channels, num_basis, width = sizes
        for key, value in {"channels": channels, "num_basis": num_basis, "width": width}.items():
            if value <= 0:
                raise BadInput(f"heads: {name}: '{key}' must be positive, got {value}")
        degrees = [trunk.channels(o3.Irrep(degree, (-1) ** degree)) for degree in range(12)]
        self.sources = degrees[: next(degree for degree, found in enumerate(degrees) if not found)]
        self.last, self.n_scalars = trunk.last
        n_degrees = len(self.sources)
        self.n_channels = channels
        self.vectors = vectors and n_degrees > 1
        features = [sum(mul for _, _, _, mul in found) for found in self.sources]
        self.mixing = nn.ParameterList(
            [nn.Parameter(torch.randn(n, channels, dtype=torch.float64) / n**0.5) for n in features]
        )
        self.gates = RadialMLP([self.n_scalars, width, n_degrees * channels])
        self.basis = BesselBasis(trunk.cutoff, num_basis)
        n_radial = (n_degrees + self.vectors) * channels
        self.radial = nn.Parameter(torch.randn(num_basis, n_radial, dtype=torch.float64))
        self.of_neighbor = nn.Parameter(torch.ones(trunk.n_species, n_radial, dtype=torch.float64))
        self.harmonics = SphericalHarmonics(n_degrees - 1)
        self.normalisation = 1.0 / (channels * n_degrees * num_basis) ** 0.5

    def forward(self, graph: Graph, found: Dict[str, Tensor]) -> Tuple[Tensor, Tensor]:
        r = torch.linalg.vector_norm(graph.vectors, dim=1)  # (E,)
        y = self.harmonics(graph.vectors / r.unsqueeze(1))  # (E, (l_max + 1)²)
        element = self.of_neighbor.index_select(0, graph.species.index_select(0, graph.neighbors))
        radial = (self.basis(r) @ self.radial) * element  # (E, (degrees + 1) channels)
        gates = 1.0 + self.gates(found[self.last][:, : self.n_scalars])
        k, a = self.n_channels, torch.zeros_like(r)
        b = torch.zeros_like(graph.vectors)
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
        return self.normalisation * a, self.normalisation * b
