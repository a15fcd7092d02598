"""A family with a polarization, as a file of `mlplugins/models/`: pair terms, one coefficient per pair."""

from dataclasses import dataclass
from typing import Dict, List

import torch
from torch import Tensor, nn

from mlplugins.models.base import Potential
from mlplugins.structures.graph import Graph


@dataclass(frozen=True)
class Hyperparameters:
    """Only the cutoff, Å."""

    cutoff: float = 5.0


class Model(Potential):
    """E_i = Σ_j a_ij f(r), μ_i = Σ_j b_ij f(r) v_ij with f = (1 − r²/r_c²)³."""

    predicts = ("energy", "polarization")

    def __init__(self, elements: List[str], hyperparameters: Hyperparameters) -> None:
        super().__init__(hyperparameters.cutoff)
        n = len(elements)
        self.a = nn.Parameter(torch.zeros(n, n, dtype=torch.float64))
        self.b = nn.Parameter(torch.zeros(n, n, dtype=torch.float64))

    def forward(self, graph: Graph) -> Dict[str, Tensor]:
        f = (1.0 - graph.vectors.square().sum(dim=1) / self.cutoff**2) ** 3
        i, j = graph.species[graph.centers], graph.species[graph.neighbors]
        energy = torch.zeros(graph.n_centers, dtype=f.dtype, device=f.device)
        dipole = torch.zeros(graph.n_centers, 3, dtype=f.dtype, device=f.device)
        moments = (self.b[i, j] * f).unsqueeze(1) * graph.vectors
        return {
            "energy": energy.index_add(0, graph.centers, self.a[i, j] * f),
            "polarization": dipole.index_add(0, graph.centers, moments),
        }
