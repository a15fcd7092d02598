"""Transforms of the distance before the radial basis, scaled by the covalent radii of the pair.

Each is a module for some elements; forward(r, species, edges) takes edges [centers, neighbors].
"""

from typing import Dict, List, Optional, Type

import torch
from torch import Tensor, nn

from mlplugins.elements import covalent_radius


class Agnesi(nn.Module):
    """x = 1 / (1 + a ρ^q / (1 + ρ^(q−p))) with ρ = r / r_0, r_0 = (R_i + R_j) / 2.

    Goes from 1 at contact to 0 at large distance, steepest near the bond length; a, q, p and the form from
    ACEpotentials.jl (Witt et al., J. Chem. Phys. 159, 164101 (2023)).

    >>> one = torch.tensor([0])
    >>> Agnesi(["H"])(torch.tensor([0.31], dtype=torch.float64), one, [one, one])
    tensor([0.6492], dtype=torch.float64)
    """

    a: Tensor
    q: Tensor
    p: Tensor
    range: Tensor

    def __init__(self, elements: List[str]) -> None:
        super().__init__()
        for name, value in (("a", 1.0805), ("q", 0.9183), ("p", 4.5791)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))
        self.register_buffer("range", 0.5 * sum_of_radii(elements))  # (S, S), Å

    def forward(self, r: Tensor, species: Tensor, edges: List[Tensor]) -> Tensor:
        rho = r / self.range[species[edges[0]], species[edges[1]]]
        return 1.0 / (1.0 + self.a * rho**self.q / (1.0 + rho ** (self.q - self.p)))


class Soft(nn.Module):
    """x = p_0 + (r − p_0) [1 + tanh(α (r − m) / (p_1 − p_0))] / 2, with p_0, p_1 = 3/4, 4/3 of R_i + R_j.

    m is the mean of p_0 and p_1: x tends to r above the bond length and to the constant p_0 below.
    """

    alpha: Tensor
    range: Tensor

    def __init__(self, elements: List[str]) -> None:
        super().__init__()
        self.register_buffer("alpha", torch.tensor(4.0, dtype=torch.float64))
        self.register_buffer("range", sum_of_radii(elements))  # (S, S), Å

    def forward(self, r: Tensor, species: Tensor, edges: List[Tensor]) -> Tensor:
        r_0 = self.range[species[edges[0]], species[edges[1]]]
        low, high = 0.75 * r_0, (4.0 / 3.0) * r_0
        middle = 0.5 * (low + high)
        step = 0.5 * (1.0 + torch.tanh(self.alpha * (r - middle) / (high - low)))
        return low + (r - low) * step


class PairCutoffs(nn.Module):
    """x = r · r_c / c_ij: functions of x that end at the cutoff r_c end at c_ij of centre i and neighbour j.

    Args:
        cutoffs: (S, S), Å, centre × neighbour; not necessarily symmetric.
        cutoff: r_c, Å, the largest one.

    >>> one = torch.tensor([0])
    >>> PairCutoffs(torch.tensor([[2.0]]), 4.0)(torch.tensor([1.5]), one, [one, one])
    tensor([3.], dtype=torch.float64)
    """

    stretch: Tensor

    def __init__(self, cutoffs: Tensor, cutoff: float) -> None:
        super().__init__()
        self.register_buffer("stretch", cutoff / cutoffs.to(torch.float64))  # (S, S)

    def forward(self, r: Tensor, species: Tensor, edges: List[Tensor]) -> Tensor:
        return r * self.stretch[species[edges[0]], species[edges[1]]]


TRANSFORMS: Dict[str, Optional[Type[nn.Module]]] = {"none": None, "agnesi": Agnesi, "soft": Soft}


def sum_of_radii(elements: List[str]) -> Tensor:
    """Sums of covalent radii (S, S), Å."""
    radius = torch.tensor([covalent_radius(symbol) for symbol in elements], dtype=torch.float64)
    return radius[:, None] + radius[None, :]
