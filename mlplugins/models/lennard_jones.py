"""Lennard-Jones potential with a smooth cutoff: the analytic reference that goes through every engine.

E = ½ Σ_{i≠j} f(r) 4ε [(σ/r)¹² − (σ/r)⁶],  f the quintic switch from `onset`·cutoff to cutoff
(C², so forces and stress are continuous).
"""

from dataclasses import dataclass
from typing import Dict, List

import torch
from torch import Tensor

from mlplugins.errors import BadInput
from mlplugins.models.base import Potential
from mlplugins.nn.radial import quintic_switch
from mlplugins.structures.graph import Graph


@dataclass(frozen=True)
class Hyperparameters:
    """Parameters: `epsilon` (eV) and `sigma` (Å), one value for all pairs or one per element
    (Lorentz–Berthelot mixing); `cutoff` (Å); `onset`, the fraction of the cutoff where switching starts."""

    epsilon: float | List[float] = 0.0104
    sigma: float | List[float] = 3.4
    cutoff: float = 8.5
    onset: float = 0.8


class Model(Potential):
    """Lennard-Jones for `elements` (symbols, in the order of the species index).

    >>> import torch
    >>> model = Model(["Ar"], Hyperparameters(epsilon=1.0, sigma=1.0, cutoff=10.0))
    >>> r = torch.tensor([[2 ** (1 / 6), 0.0, 0.0], [-(2 ** (1 / 6)), 0.0, 0.0]], dtype=torch.float64)
    >>> i, j, zero = torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([0, 0])
    >>> model(Graph(zero, i, j, r, zero, 2))["energy"].sum()
    tensor(-1., dtype=torch.float64)
    """

    epsilon: Tensor
    sigma: Tensor

    def __init__(self, elements: List[str], hyperparameters: Hyperparameters) -> None:
        super().__init__(hyperparameters.cutoff)
        epsilon = _per_element("epsilon", hyperparameters.epsilon, len(elements))
        sigma = _per_element("sigma", hyperparameters.sigma, len(elements))
        self.onset = float(hyperparameters.onset)
        self.register_buffer("epsilon", torch.sqrt(epsilon[:, None] * epsilon[None, :]))  # (S, S)
        self.register_buffer("sigma", 0.5 * (sigma[:, None] + sigma[None, :]))  # (S, S)

    def forward(self, graph: Graph) -> Dict[str, Tensor]:
        r = torch.linalg.vector_norm(graph.vectors, dim=1)  # (E,)
        i, j = graph.species[graph.centers], graph.species[graph.neighbors]  # (E,)
        x6 = (self.sigma[i, j] / r) ** 6
        switch = quintic_switch(r / self.cutoff, self.onset)
        edge_energy = switch * 4.0 * self.epsilon[i, j] * (x6 * x6 - x6)
        energy = torch.zeros(graph.n_centers, dtype=r.dtype, device=r.device)
        return {"energy": energy.index_add(0, graph.centers, 0.5 * edge_energy)}


def _per_element(name: str, value: float | List[float], n_elements: int) -> Tensor:
    values = [float(value)] * n_elements if isinstance(value, int | float) else [float(v) for v in value]
    if len(values) != n_elements:
        raise BadInput(f"'{name}': expected one value or {n_elements} (one per element), got {len(values)}")
    return torch.tensor(values, dtype=torch.float64)
