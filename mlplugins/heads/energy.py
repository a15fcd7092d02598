"""A further energy of the same trunk: another level of theory, or another electronic state.

    E_i = s (Σ_l readout_l(x_i,l) + shift of the element) + E_i,common

with the scalars x_i,l of layer l: linear readouts, and a network for the last layer. s is the size of the
forces of its own frames; the energies of its elements are its own as well (`ModelCard.baselines`). What has
no weights, such as a core repulsion, all energies have in common.

With `coupled` these are diagonal elements of a matrix, whose others are linear readouts as well, and the
energies, the first of them included, are its eigenvalues (`heads/_coupled.py`).
"""

from dataclasses import dataclass
from typing import Dict, List

import torch
from torch import Tensor, nn

from mlplugins.errors import BadInput
from mlplugins.heads import LabelSizes, Trunk
from mlplugins.nn.irreps import o3
from mlplugins.nn.radial import BiasedMLP, RadialMLP
from mlplugins.quantities import ENERGY
from mlplugins.structures.graph import Graph


@dataclass(frozen=True)
class Hyperparameters:
    """Hyper-parameters.

    Attributes:
        width: hidden width of the readout of the last layer; 0: it is linear, too.
        biased: a second hidden layer, and constants behind it, as in MACE's models of several levels.
        coupled: the energies are electronic states, lowest first, that may cross: eigenvalues of a matrix. Of
            all energies or none.
    """

    width: int = 16
    biased: bool = False
    coupled: bool = False


class Head(nn.Module):
    """Energies of the atoms, (n_centers,), eV, without their composition energies.

    >>> trunk = Trunk(2, 5.0, {"h1": o3.Irreps("4x0e+4x1o"), "h2": o3.Irreps("4x0e")})
    >>> head = Head("energy/scan", trunk, Hyperparameters(width=8))
    >>> nobody = torch.zeros(0, dtype=torch.long)
    >>> graph = Graph(torch.tensor([0, 1]), nobody, nobody, torch.zeros(0, 3), torch.tensor([0, 0]), 2)
    >>> head(graph, {"h1": torch.randn(2, 16).double(), "h2": torch.randn(2, 4).double()}).shape
    torch.Size([2])

    Raises:
        BadInput: a width below zero.
    """

    energy_scale: Tensor
    common_scale: Tensor

    def __init__(self, name: str, trunk: Trunk, hyperparameters: Hyperparameters) -> None:
        super().__init__()
        h = hyperparameters
        if h.width < 0:
            raise BadInput(f"energies: {name}: 'width' must not be negative, got {h.width}")
        self.layers: List[str] = list(trunk.layers)
        self.counts: List[int] = [irreps.count(o3.Irrep("0e")) for irreps in trunk.layers.values()]
        n, hidden = self.counts[-1], [h.width] if h.width else []
        last = BiasedMLP([n, h.width, h.width, 1]) if h.biased else RadialMLP([n, *hidden, 1])
        self.readouts = nn.ModuleList([*(RadialMLP([count, 1]) for count in self.counts[:-1]), last])
        self.shift = nn.Parameter(torch.zeros(trunk.n_species, dtype=torch.float64))
        before = [each for each in trunk.heads if each.startswith(ENERGY)]
        n_couplings = len(before) + 1 if h.coupled else 0
        self.coupled = h.coupled
        self.couplings = RadialMLP([n, max(h.width, 1), n_couplings]) if h.coupled else None
        self.register_buffer("energy_scale", torch.ones(trunk.n_species, dtype=torch.float64))
        # of what all energies have in common: MACE multiplies its repulsion by the scale of each
        self.register_buffer("common_scale", torch.ones((), dtype=torch.float64))

    @torch.jit.unused
    def initialise(self, sizes: LabelSizes) -> None:
        self.energy_scale.fill_(sizes.rms[0])
        if self.coupled and sizes.constants:  # states lie eV apart
            with torch.no_grad():
                self.shift.fill_(sizes.constants[0] / sizes.rms[0])

    @torch.jit.export
    def to_those_before(self, graph: Graph, found: Dict[str, Tensor]) -> Tensor:
        """Elements of the matrix of this energy and each before it, (n_centers, k), eV."""
        couplings = self.couplings
        if couplings is None:
            raise RuntimeError("this energy is not coupled")
        scale = self.energy_scale.index_select(0, graph.species[: graph.n_centers]).unsqueeze(1)
        return scale * couplings(found[self.layers[-1]][:, : self.counts[-1]])

    def forward(self, graph: Graph, found: Dict[str, Tensor]) -> Tensor:
        species = graph.species[: graph.n_centers]
        energy = self.shift.index_select(0, species)
        for index, readout in enumerate(self.readouts):
            x = found[self.layers[index]][:, : self.counts[index]]
            energy = energy + readout(x).squeeze(1)
        energy = self.energy_scale.index_select(0, species) * energy
        return energy + self.common_scale * found["common"] if "common" in found else energy
