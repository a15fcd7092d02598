"""Universal screened nuclear repulsion (ZBL), for short distances that the training frames do not cover."""

from typing import List, Sequence, Tuple

import torch
from torch import Tensor, nn

from mlplugins.elements import atomic_number, covalent_radius
from mlplugins.nn.radial import polynomial_cutoff
from mlplugins.structures.graph import Graph
from mlplugins.units import COULOMB_EV_A

UNIVERSAL = ((0.18175, 3.1998), (0.50986, 0.94229), (0.28022, 0.4029), (0.02817, 0.20162))
"""Terms (c, b) of φ(x) = Σ c exp(−b x)."""
ROUNDED = ((0.1818, 3.2), (0.5099, 0.9423), (0.2802, 0.4028), (0.02817, 0.2016))
"""The same as MACE rounds them."""


class ZBL(nn.Module):
    """E_i = ½ Σ_j u(r/(R_i + R_j)) Z_i Z_j e²/(4πε₀ r) φ(r/a),  a = 0.4685 Å / (Z_i^0.23 + Z_j^0.23).

    φ is the universal screening function of Ziegler, Biersack and Littmark (1985); the polynomial envelope u
    ends the repulsion at the sum of the covalent radii, where the learnt energy takes over.

    Args:
        elements: symbols, in the order of the species index.
        envelope_power: p of the envelope.
        screening: terms of φ.

    >>> zbl = ZBL(["Li"])
    >>> r = torch.tensor([1.0, 2.6], dtype=torch.float64)
    >>> one = torch.zeros(2, dtype=torch.long)
    >>> [round(float(e), 3) for e in zbl.pair_energy(one, one, r)]
    [5.299, 0.0]
    """

    charge_product: Tensor
    screening_length: Tensor
    range: Tensor

    coefficients: Tensor
    decays: Tensor

    def __init__(
        self,
        elements: List[str],
        envelope_power: int = 6,
        screening: Sequence[Tuple[float, float]] = UNIVERSAL,
    ) -> None:
        super().__init__()
        self.envelope_power = int(envelope_power)
        terms = torch.tensor(screening, dtype=torch.float64)
        self.register_buffer("coefficients", terms[:, 0].clone(), persistent=False)  # (4,)
        self.register_buffer("decays", -terms[:, 1], persistent=False)  # (4,), −b
        z = torch.tensor([atomic_number(symbol) for symbol in elements], dtype=torch.float64)
        radius = torch.tensor([covalent_radius(symbol) for symbol in elements], dtype=torch.float64)
        self.register_buffer("charge_product", COULOMB_EV_A * z[:, None] * z[None, :])  # (S, S), eV Å
        self.register_buffer(
            "screening_length", 0.4685 / (z[:, None] ** 0.23 + z[None, :] ** 0.23)
        )  # (S, S), Å
        self.register_buffer("range", radius[:, None] + radius[None, :])  # (S, S), Å

    @torch.jit.export
    def pair_energy(self, i: Tensor, j: Tensor, r: Tensor) -> Tensor:
        """Energy (E,) of pairs of species i, j at distance r, eV."""
        pair = i * self.range.shape[0] + j
        x = r / self.screening_length.reshape(-1).index_select(0, pair)
        screening = torch.mv(torch.exp(x.unsqueeze(1) * self.decays), self.coefficients)
        envelope = polynomial_cutoff(r / self.range.reshape(-1).index_select(0, pair), self.envelope_power)
        return envelope * self.charge_product.reshape(-1).index_select(0, pair) / r * screening

    def forward(self, graph: Graph, r: Tensor) -> Tensor:
        species = graph.species
        i, j = species.index_select(0, graph.centers), species.index_select(0, graph.neighbors)
        pair = self.pair_energy(i, j, r)  # (E,)
        energy = torch.zeros(graph.n_centers, dtype=r.dtype, device=r.device)
        return energy.index_add(0, graph.centers, 0.5 * pair)
