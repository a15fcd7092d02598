"""Universal screened nuclear repulsion (Ziegler, Biersack and Littmark) as a term beside any model.

E = ½ Σ_{i≠j} [Z_i Z_j e²/(4πε₀ r) φ(r/a) + S(r)], ended by the switching function S of
LAMMPS' `pair_style zbl`.
"""

import math
from dataclasses import dataclass
from typing import Dict, List

import torch
from torch import Tensor

from mlplugins.errors import BadInput
from mlplugins.models.base import Potential
from mlplugins.nn.distance import sum_of_radii
from mlplugins.nn.zbl import ScreenedCoulomb, SwitchedZBL
from mlplugins.structures.graph import Graph

REFERENCES = ["Ziegler, Biersack, Littmark: The Stopping and Range of Ions in Matter (1985)"]

OUTER, INNER = 0.7, 0.35
"""Default ends, in sums of covalent radii: the shortest bonds of main-group elements (N₂, CO, HCN) are 0.77
to 0.79 of the sum, so that a model keeps its bonds as it learned them."""


@dataclass(frozen=True)
class Hyperparameters:
    """Where the switching function begins (`inner`) and where the energy ends (`outer`), Å, for all pairs as
    in LAMMPS; without either, 0.35 and 0.7 times the sum of the covalent radii of each pair."""

    inner: float | None = None
    outer: float | None = None


class Model(Potential):
    """ZBL for `elements` (symbols, in the order of the species index).

    >>> model = Model(["Si"], Hyperparameters(1.0, 2.0))
    >>> r = torch.tensor([[1.2, 0.0, 0.0], [-1.2, 0.0, 0.0]], dtype=torch.float64)
    >>> i, j, zero = torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([0, 0])
    >>> round(float(model(Graph(zero, i, j, r, zero, 2))["energy"].sum()), 3)
    18.212

    Raises:
        BadInput: one end without the other, or not 0 < inner < outer.
    """

    def __init__(self, elements: List[str], hyperparameters: Hyperparameters) -> None:
        inner, outer = _ends(elements, hyperparameters)
        super().__init__(float(outer.max()))
        self.repulsion = SwitchedZBL(elements, inner, outer)

    def forward(self, graph: Graph) -> Dict[str, Tensor]:
        return {"energy": self.repulsion(graph, torch.linalg.vector_norm(graph.vectors, dim=1))}


def repels(potential: Potential) -> bool:
    """Whether the model, or a part of it, holds a screened nuclear repulsion."""
    return any(isinstance(module, ScreenedCoulomb) for module in potential.modules())


def _ends(elements: List[str], h: Hyperparameters) -> List[Tensor]:
    """`inner` and `outer` of every pair (S, S), Å."""
    radii = sum_of_radii(elements)
    if h.inner is None and h.outer is None:
        return [INNER * radii, OUTER * radii]
    if h.inner is None or h.outer is None or not 0.0 < h.inner < h.outer < math.inf:
        raise BadInput(f"zbl: expected 0 < inner < outer (Å), or neither, got {h.inner} and {h.outer}")
    return [torch.full_like(radii, h.inner), torch.full_like(radii, h.outer)]
