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
    processes hold. All sums over channels are done for the centres, of which there are far fewer than edges.

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
        self.n_species = trunk.n_species
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
        self.n_harmonics = n_degrees * n_degrees
        self.normalisation = 1.0 / (channels * n_degrees * num_basis) ** 0.5

    def forward(self, graph: Graph, found: Dict[str, Tensor]) -> Tuple[Tensor, Tensor]:
        r = torch.linalg.vector_norm(graph.vectors, dim=1, keepdim=True)  # (E, 1)
        y = found["harmonics"] if "harmonics" in found else self.harmonics(graph.vectors / r)
        y = y[:, : self.n_harmonics]
        rows = graph.centers * self.n_species + graph.species.index_select(0, graph.neighbors)
        of_pairs = self.of_centers(found).index_select(0, rows)  # (E, num_basis, columns)
        values = torch.bmm(self.basis(r.squeeze(1)).unsqueeze(1), of_pairs).squeeze(1)  # (E, columns)
        a = (values[:, : self.n_harmonics] * y).sum(dim=1)
        b = values[:, self.n_harmonics :] if self.vectors else torch.zeros_like(graph.vectors)
        return a, b

    def of_centers(self, found: Dict[str, Tensor]) -> Tensor:
        """What an edge contracts with its basis and harmonics, Σ_k W_nlk t_lk(s) z_i,lmk of its centre and
        the element s of its neighbour: (n_centers · n_species, num_basis, columns lm, then m of b_e)."""
        gates = 1.0 + self.gates(found[self.last][:, : self.n_scalars])
        weights = self.normalisation * self.radial.unsqueeze(0) * self.of_neighbor.unsqueeze(1)
        k, n = self.n_channels, gates.shape[0]
        columns: List[Tensor] = []
        of_vectors: List[Tensor] = []
        for degree, mixing in enumerate(self.mixing):
            h: List[Tensor] = []
            for name, offset, dim, mul in self.sources[degree]:
                h.append(found[name][:, offset : offset + dim * mul].reshape(-1, dim, mul))
            z = torch.cat(h, dim=2) @ mixing * gates[:, degree * k : (degree + 1) * k].unsqueeze(1)
            columns.append(self._contracted(z, weights[:, :, degree * k : (degree + 1) * k]))
            if degree == 1 and self.vectors:
                of_vectors.append(self._contracted(z, weights[:, :, -k:]))
        both = torch.cat(columns + of_vectors, dim=1)  # (n_centers, columns, n_species · num_basis)
        return both.transpose(1, 2).reshape(n * self.n_species, self.radial.shape[0], both.shape[1])

    def _contracted(self, z: Tensor, weights: Tensor) -> Tensor:
        """(n_centers, 2l + 1, channels), (n_species, num_basis, channels) → (n_centers, 2l + 1, n_species ·
        num_basis)."""
        return z @ weights.reshape(-1, self.n_channels).t()
