"""Universal screened nuclear repulsion (ZBL), for short distances that the training frames do not cover."""

from typing import List, Sequence, Tuple

import torch
from torch import Tensor, nn

from mlplugins.elements import atomic_number
from mlplugins.nn.distance import sum_of_radii
from mlplugins.nn.radial import polynomial_cutoff
from mlplugins.structures.graph import Graph
from mlplugins.units import COULOMB_EV_A

UNIVERSAL = ((0.18175, 3.1998), (0.50986, 0.94229), (0.28022, 0.4029), (0.02817, 0.20162))
"""Terms (c, b) of φ(x) = Σ c exp(−b x)."""
ROUNDED = ((0.1818, 3.2), (0.5099, 0.9423), (0.2802, 0.4028), (0.02817, 0.2016))
"""The same as MACE rounds them."""


LAMMPS_COULOMB = 14.399645
"""e²/(4πε₀) as LAMMPS rounds it in its units `metal`, eV Å."""


class ScreenedCoulomb(nn.Module):
    """Z_i Z_j e²/(4πε₀ r) φ(r/a),  a = 0.4685 Å / (Z_i^0.23 + Z_j^0.23), and its sum over neighbours.

    φ is the universal screening function of Ziegler, Biersack and Littmark (1985). How it ends is up to
    `pair_energy` of a subclass.

    Args:
        elements: symbols, in the order of the species index.
        screening: terms of φ.
        coulomb: e²/(4πε₀), eV Å.
    """

    charge_product: Tensor
    screening_length: Tensor
    coefficients: Tensor
    decays: Tensor

    def __init__(
        self,
        elements: List[str],
        screening: Sequence[Tuple[float, float]] = UNIVERSAL,
        coulomb: float = COULOMB_EV_A,
    ) -> None:
        super().__init__()
        terms = torch.tensor(screening, dtype=torch.float64)
        self.register_buffer("coefficients", terms[:, 0].clone(), persistent=False)  # (4,)
        self.register_buffer("decays", -terms[:, 1], persistent=False)  # (4,), −b
        z = torch.tensor([atomic_number(symbol) for symbol in elements], dtype=torch.float64)
        self.register_buffer("charge_product", coulomb * z[:, None] * z[None, :])  # (S, S), eV Å
        self.register_buffer(
            "screening_length", 0.4685 / (z[:, None] ** 0.23 + z[None, :] ** 0.23)
        )  # (S, S), Å

    def screened(self, pair: Tensor, r: Tensor) -> Tensor:
        """The whole energy (E,), eV, at distances r of the pairs of species `pair` = i S + j."""
        x = r / self.screening_length.reshape(-1).index_select(0, pair)
        screening = torch.mv(torch.exp(x.unsqueeze(1) * self.decays), self.coefficients)
        return self.charge_product.reshape(-1).index_select(0, pair) / r * screening

    @torch.jit.export
    def pair_energy(self, i: Tensor, j: Tensor, r: Tensor) -> Tensor:
        """Energy (E,) of pairs of species i, j at distance r, eV."""
        raise NotImplementedError("a subclass says where the repulsion ends")

    def forward(self, graph: Graph, r: Tensor) -> Tensor:
        species = graph.species
        i, j = species.index_select(0, graph.centers), species.index_select(0, graph.neighbors)
        pair = self.pair_energy(i, j, r)  # (E,)
        energy = torch.zeros(graph.n_centers, dtype=r.dtype, device=r.device)
        return energy.index_add(0, graph.centers, 0.5 * pair)


class ZBL(ScreenedCoulomb):
    """E_i = ½ Σ_j u(r/(R_i + R_j)) times the screened repulsion.

    The polynomial envelope u ends it at the sum of the covalent radii, where the learnt energy takes over.

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

    range: Tensor

    def __init__(
        self,
        elements: List[str],
        envelope_power: int = 6,
        screening: Sequence[Tuple[float, float]] = UNIVERSAL,
    ) -> None:
        super().__init__(elements, screening)
        self.envelope_power = int(envelope_power)
        self.register_buffer("range", sum_of_radii(elements))  # (S, S), Å

    @torch.jit.export
    def pair_energy(self, i: Tensor, j: Tensor, r: Tensor) -> Tensor:
        """Energy (E,) of pairs of species i, j at distance r, eV."""
        pair = i * self.range.shape[0] + j
        envelope = polynomial_cutoff(r / self.range.reshape(-1).index_select(0, pair), self.envelope_power)
        return envelope * self.screened(pair, r)


class SwitchedZBL(ScreenedCoulomb):
    """E_i = ½ Σ_j [E(r) + S(r)] for r < outer: `pair_style zbl inner outer` of LAMMPS, with its constants.

    S is constant up to `inner` and C + A/3 (r − inner)³ + B/4 (r − inner)⁴ from there, so that energy, force
    and its slope vanish at `outer`.

    Args:
        elements: symbols, in the order of the species index.
        inner, outer: (S, S), Å.

    >>> zbl = SwitchedZBL(["Si"], torch.tensor([[1.0]]).double(), torch.tensor([[2.0]]).double())
    >>> r = torch.tensor([1.2, 2.0], dtype=torch.float64)
    >>> none = torch.zeros(2, dtype=torch.long)
    >>> [round(float(e), 3) for e in zbl.pair_energy(none, none, r)]
    [18.212, 0.0]
    """

    inner: Tensor
    outer: Tensor
    cubic: Tensor
    quartic: Tensor
    constant: Tensor

    def __init__(self, elements: List[str], inner: Tensor, outer: Tensor) -> None:
        super().__init__(elements, coulomb=LAMMPS_COULOMB)
        pair = torch.arange(len(elements) ** 2)
        r = outer.reshape(-1).clone().requires_grad_()
        e = self.screened(pair, r)
        (slope,) = torch.autograd.grad(e.sum(), r, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), r)
        e, slope, width = e.detach(), slope.detach(), (outer - inner).reshape(-1)
        values = {
            "inner": inner,  # Å
            "outer": outer,
            "cubic": (-3.0 * slope + width * curvature) / width**2,  # A
            "quartic": (2.0 * slope - width * curvature) / width**3,  # B
            "constant": -e + width * (slope / 2.0 - width * curvature / 12.0),  # C
        }
        for name, value in values.items():
            self.register_buffer(name, value.reshape(outer.shape).clone())  # (S, S)

    @torch.jit.export
    def pair_energy(self, i: Tensor, j: Tensor, r: Tensor) -> Tensor:
        """Energy (E,) of pairs of species i, j at distance r, eV."""
        t = (r - self.inner[i, j]).clamp(min=0.0)
        switch = self.constant[i, j] + t**3 * (self.cubic[i, j] / 3.0 + t * self.quartic[i, j] / 4.0)
        energy = self.screened(i * self.outer.shape[0] + j, r) + switch
        return torch.where(r < self.outer[i, j], energy, torch.zeros_like(energy))
