"""MACE: higher-order equivariant message passing (Batatia et al., NeurIPS 2022, arXiv 2206.07697).

One layer: A = convolution of the neighbours, B = symmetric contraction of up to `correlation` copies of A,
h' = linear(B) + residual of h; every layer's invariants are read out (eqs. 8–13).
"""

from dataclasses import dataclass, field
from typing import Dict, List, Tuple

import torch
from torch import Tensor, nn

from mlplugins.errors import BadInput
from mlplugins.models.base import Potential, TrainingStatistics
from mlplugins.models.capabilities import HasHead, HasLastLayer, HasRadialNetworks
from mlplugins.nn.contraction import SymmetricContraction
from mlplugins.nn.convolution import Convolution, SphericalHarmonics, tabulate
from mlplugins.nn.distance import TRANSFORMS
from mlplugins.nn.edge_rows import EdgeRows, per_edge
from mlplugins.nn.exchange import with_ghost_rows
from mlplugins.nn.irreps import o3
from mlplugins.nn.last_layer import LastLayer
from mlplugins.nn.linear import Linear
from mlplugins.nn.radial import BesselBasis, RadialMLP, polynomial_cutoff, radial_slopes
from mlplugins.nn.zbl import ROUNDED, ZBL
from mlplugins.structures.graph import Graph

REFERENCES = ["https://doi.org/10.48550/arXiv.2206.07697"]
INTERACTIONS = ("RealAgnostic", "RealAgnosticResidual", "RealAgnosticDensity", "RealAgnosticDensityResidual")


@dataclass(frozen=True)
class Hyperparameters:
    """Parameters, named as in the paper and in published configurations.

    Attributes:
        cutoff: radial cutoff r_c, Å (`r_max`).
        num_interactions: layers.
        num_channels: channels of every irrep.
        max_L: highest degree of the features passed between layers (natural parity; 0 and 1 are usual).
        l_max: highest degree of harmonics and of A, 0–3 (`max_ell`).
        correlation: highest power ν of A in the product basis, 1–3.
        num_basis: Bessel functions (`num_radial_basis`).
        envelope_power: p of the polynomial cutoff (`num_cutoff_basis`).
        radial_mlp: hidden widths of the radial network.
        readout_mlp: hidden width of the last layer's readout (`MLP_irreps`).
        interaction_first, interaction: block of the first and of the later layers, one of `INTERACTIONS`:
            "Residual" passes h on through an element-dependent linear map, without it that map acts on A;
            "Density" divides A by a learnt neighbour count instead of the average one.
        distance_transform: what the Bessel functions see: "none" (r), "agnesi" or "soft" (`nn.distance`).
        zbl: add the universal screened nuclear repulsion (ZBL) at short range; advised for hot MD.
    """

    cutoff: float = 5.0
    num_interactions: int = 2
    num_channels: int = 64
    max_L: int = 1
    l_max: int = 3
    correlation: int = 3
    num_basis: int = 8
    envelope_power: int = 5
    radial_mlp: List[int] = field(default_factory=lambda: [64, 64, 64])
    readout_mlp: int = 16
    interaction_first: str = "RealAgnosticResidual"
    interaction: str = "RealAgnosticResidual"
    distance_transform: str = "none"
    zbl: bool = False


class Interaction(nn.Module):
    """A_i = linear(Σ_j R(r_ij) ⊙ (u_j ⊗ Y(r̂_ij))) / neighbours, for mixed node features u.

    The divisor is the average number of neighbours or, in the density variants, 1 + Σ_j tanh(d(r_ij)²) with a
    learnt linear function d of the radial basis.
    """

    average_neighbors: Tensor

    def __init__(
        self,
        irreps_in: o3.Irreps,
        irreps_a: o3.Irreps,
        kind: str,
        n_species: int,
        hyperparameters: Hyperparameters,
    ) -> None:
        super().__init__()
        widths = [hyperparameters.num_basis, *hyperparameters.radial_mlp]
        self.convolution = Convolution(irreps_in, hyperparameters.l_max, irreps_a, widths)
        self.linear = Linear(self.convolution.irreps_out, irreps_a)
        self.density = RadialMLP([hyperparameters.num_basis, 1]) if "Density" in kind else None
        self.element_mix = None if "Residual" in kind else Linear(irreps_a, irreps_a, n_species)
        self.register_buffer("average_neighbors", torch.ones((), dtype=torch.float64))

    def forward(
        self, up: Tensor, species: Tensor, edges: List[Tensor], harmonics: Tensor, radial: List[Tensor]
    ) -> Tensor:
        n_centers = species.shape[0]
        a = self.convolution(up, harmonics, radial, edges, n_centers)  # (n_centers, Σ_paths)
        a = self.linear(a, species)  # (n_centers, num_channels (l_max + 1)²)
        if self.density is not None:
            edge_density = per_edge(torch.tanh(self.density(radial[1]) ** 2), edges)  # (E, 1)
            density = torch.zeros(n_centers, 1, dtype=a.dtype, device=a.device)
            a = a / (1.0 + density.index_add(0, edges[0], edge_density))
        else:
            a = a / self.average_neighbors
        if self.element_mix is not None:
            a = self.element_mix(a, species)
        return a


class Layer(nn.Module):
    """Interaction, product basis, residual and readout of one message-passing step."""

    def __init__(
        self,
        irreps_in: o3.Irreps,
        irreps_out: o3.Irreps,
        kind: str,
        readout_widths: List[int],
        n_species: int,
        hyperparameters: Hyperparameters,
    ) -> None:
        super().__init__()
        n = hyperparameters.num_channels
        irreps_a = _natural(n, hyperparameters.l_max)
        self.interaction = Interaction(irreps_in, irreps_a, kind, n_species, hyperparameters)
        self.contraction = SymmetricContraction(irreps_a, irreps_out, hyperparameters.correlation, n_species)
        self.linear = Linear(irreps_out, irreps_out)
        shared = o3.Irreps([(mul, ir) for mul, ir in irreps_out if ir in irreps_in])
        self.residual = Linear(irreps_in, shared, n_species) if "Residual" in kind else None
        self.n_new = irreps_out.dim - shared.dim  # irreps that the residual cannot reach: the last ones
        self.readout = RadialMLP([n, *readout_widths, 1])
        self.n_scalars = n

    def forward(
        self,
        up: Tensor,
        h: Tensor,
        species: Tensor,
        edges: List[Tensor],
        harmonics: Tensor,
        radial: List[Tensor],
    ) -> Tuple[Tensor, Tensor, Tensor]:
        a = self.interaction(up, species, edges, harmonics, radial)
        out = self.linear(self.contraction(a, species), species)  # (n_centers, irreps_out.dim)
        if self.residual is not None:
            out = out + torch.nn.functional.pad(self.residual(h, species), [0, self.n_new])
        energy, inputs = self.readout.readout(out[:, : self.n_scalars])  # (n_centers, 1), (n_centers, T)
        return out, energy.squeeze(1), inputs


class Model(HasRadialNetworks, HasHead, HasLastLayer, Potential):
    """Per-atom energies of the MACE architecture.

    >>> model = Model(["H", "O"], Hyperparameters(num_channels=2, l_max=1, correlation=2))
    >>> i, j = torch.tensor([0, 1]), torch.tensor([1, 0])
    >>> r = torch.tensor([[0.0, 0.0, 0.96], [0.0, 0.0, -0.96]], dtype=torch.float64)
    >>> model(Graph(torch.tensor([0, 1]), i, j, r, torch.tensor([0, 0]), 2))["energy"].shape
    torch.Size([2])

    Raises:
        BadInput: a hyper-parameter out of its range.
    """

    energy_scale: Tensor

    def __init__(self, elements: List[str], hyperparameters: Hyperparameters) -> None:
        _validate(hyperparameters)
        hidden = _natural(hyperparameters.num_channels, hyperparameters.max_L)
        n_layers = hyperparameters.num_interactions
        super().__init__(hyperparameters.cutoff, n_layers, hidden.dim if n_layers > 1 else 0)
        n, n_species = hyperparameters.num_channels, len(elements)
        self.embedding = nn.Parameter(torch.randn(n_species, n, dtype=torch.float64))
        self.envelope_power = hyperparameters.envelope_power
        self.basis = BesselBasis(
            hyperparameters.cutoff, hyperparameters.num_basis, hyperparameters.envelope_power
        )
        transform = TRANSFORMS[hyperparameters.distance_transform]
        self.transform = transform(elements) if transform is not None else None
        self.edge_rows = EdgeRows()
        self.harmonics = SphericalHarmonics(hyperparameters.l_max)
        scalars = _natural(n, 0)
        linear_up: List[nn.Module] = []
        layers: List[nn.Module] = []
        for index in range(n_layers):
            last = index == n_layers - 1
            irreps_in = hidden if index > 0 else scalars
            linear_up.append(Linear(irreps_in, irreps_in))
            layers.append(
                Layer(
                    irreps_in,
                    scalars if last else hidden,
                    hyperparameters.interaction if index > 0 else hyperparameters.interaction_first,
                    [hyperparameters.readout_mlp] if last and index > 0 else [],
                    n_species,
                    hyperparameters,
                )
            )
        self.linear_up = nn.ModuleList(linear_up)
        self.layers = nn.ModuleList(layers)
        self.last_layer = LastLayer()
        self.feature_width = sum(w.shape[0] for readout in self.readouts() for w in readout.weights)
        self.repulsion = ZBL(elements, self.envelope_power, ROUNDED) if hyperparameters.zbl else None
        self.shift = nn.Parameter(torch.zeros(n_species, dtype=torch.float64))
        self.register_buffer("energy_scale", torch.ones((), dtype=torch.float64))

    @torch.jit.unused
    def initialise(self, statistics: TrainingStatistics) -> None:
        self.energy_scale.fill_(statistics.force_rms)
        for module in self.modules():
            if isinstance(module, Interaction):
                module.average_neighbors.fill_(max(statistics.average_neighbors, 1.0))

    @torch.jit.unused
    def stage(self, name: str) -> int:
        part = name.split(".")
        if part[0] in ("shift", "energy_scale") or part[2:3] == ["readout"]:
            return self.n_layers + 1
        return int(part[1]) + 1 if part[0] in ("linear_up", "layers") else 0

    @torch.jit.unused
    def use_radial_tables(self, n_knots: int) -> None:
        density = any(
            isinstance(module, Interaction) and module.density is not None for module in self.modules()
        )
        if self.transform is not None or density:
            raise BadInput(
                "radial tables: with a distance transform or density normalisation, mace has radial "
                "functions of more than the distance; use the exact model"
            )
        tabulate(self, self.basis, self.cutoff, n_knots)

    @torch.jit.unused
    def readouts(self) -> List[RadialMLP]:
        return [layer.readout for layer in self.layers if isinstance(layer, Layer)]

    def forward(self, graph: Graph) -> Dict[str, Tensor]:
        species = graph.species
        r = torch.linalg.vector_norm(graph.vectors, dim=1)  # (E,)
        harmonics = self.harmonics(graph.vectors / r.unsqueeze(1))  # (E, (l_max + 1)²)
        edges, first = self.edge_rows(graph)
        r_rows = r.index_select(0, first)  # (U,)
        slopes: List[Tensor] = []
        if self.transform is None:
            basis = self.basis(r_rows)  # (U, num_basis)
            if self.edge_rows.wants_slopes():
                slopes = [self.basis.slopes(r_rows)]
        else:
            envelope = polynomial_cutoff(r_rows / self.cutoff, self.envelope_power)
            ends = [graph.centers.index_select(0, first), graph.neighbors.index_select(0, first)]
            basis = self.basis.waves(self.transform(r_rows, species, ends)) * envelope.unsqueeze(1)
            if self.edge_rows.wants_slopes():
                slopes = [radial_slopes(basis, r_rows)]
        radial = [r, basis] + slopes
        central = species[: graph.n_centers]
        e = torch.zeros(graph.n_centers, dtype=r.dtype, device=r.device)
        features: List[Tensor] = []
        h = self.embedding.index_select(0, central)  # (n_centers, num_channels)
        for index, (linear_up, layer) in enumerate(zip(self.linear_up, self.layers)):
            if index == 0:  # the same for all atoms of an element, ghosts included
                up = linear_up(self.embedding, species).index_select(0, species)  # (N, num_channels)
            else:
                up = self.exchange(with_ghost_rows(linear_up(h, central), species.shape[0]))
            h, layer_energy, inputs = layer(up, h, central, edges, harmonics, radial)
            e = e + layer_energy
            features.append(inputs)
        energy = self.energy_scale * (e + self.shift[central])
        if self.repulsion is not None:
            energy = energy + self.repulsion(graph, r)
        return {"energy": energy, "feature": self.energy_scale * torch.cat(features, dim=1)}


def _natural(channels: int, degree: int) -> o3.Irreps:
    """Irreps 0e + 1o + 2e + … of the same number of channels."""
    return o3.Irreps([(channels, (degree_, (-1) ** degree_)) for degree_ in range(degree + 1)])


def _validate(hyperparameters: Hyperparameters) -> None:
    positive = ("cutoff", "num_interactions", "num_channels", "num_basis", "envelope_power", "readout_mlp")
    for name in positive:
        value = getattr(hyperparameters, name)
        if value <= 0:
            raise BadInput(f"mace: '{name}' must be positive, got {value}")
    ranges = {"l_max": (0, 3), "max_L": (0, hyperparameters.l_max), "correlation": (1, 3)}
    for name, (low, high) in ranges.items():
        value = getattr(hyperparameters, name)
        if not low <= value <= high:
            remark = " (at most 'l_max')" if name == "max_L" else ""
            raise BadInput(f"mace: '{name}' must be {low} to {high}{remark}, got {value}")
    choices = {
        "interaction_first": INTERACTIONS,
        "interaction": INTERACTIONS,
        "distance_transform": tuple(TRANSFORMS),
    }
    for name, valid in choices.items():
        value = getattr(hyperparameters, name)
        if value not in valid:
            raise BadInput(f"mace: '{name}' must be one of {', '.join(valid)}, got '{value}'")
