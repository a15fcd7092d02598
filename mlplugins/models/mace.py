"""MACE: higher-order equivariant message passing (Batatia et al., NeurIPS 2022, arXiv 2206.07697).

One layer: A = convolution of the neighbours, B = symmetric contraction of up to `correlation` copies of A,
h' = linear(B) + residual of h; every layer's invariants are read out (eqs. 8–13).
"""

import copy
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn

from mlplugins.errors import BadInput
from mlplugins.heads import Trunk
from mlplugins.models._mace_interactions import NON_LINEAR, Interaction, NonLinearInteraction
from mlplugins.models.base import Potential, TrainingStatistics
from mlplugins.models.capabilities import HasHead, HasLastLayer, HasRadialNetworks
from mlplugins.nn.contraction import SymmetricContraction
from mlplugins.nn.convolution import EdgeGeometry
from mlplugins.nn.distance import TRANSFORMS
from mlplugins.nn.edge_rows import EdgeRows
from mlplugins.nn.exchange import with_ghost_rows
from mlplugins.nn.irreps import o3
from mlplugins.nn.last_layer import LastLayer
from mlplugins.nn.linear import Linear
from mlplugins.nn.modes import HasNativeOps
from mlplugins.nn.radial import (
    BesselBasis,
    BiasedMLP,
    NoBasis,
    RadialMLP,
    polynomial_cutoff,
    radial_slopes,
)
from mlplugins.nn.radial_table import TableOfPair, interpolation
from mlplugins.nn.state import StateEmbedding
from mlplugins.nn.sums import LinearSum
from mlplugins.nn.zbl import ROUNDED, ZBL
from mlplugins.structures.graph import Graph

REFERENCES = ["https://doi.org/10.48550/arXiv.2206.07697"]
INTERACTIONS = (
    ["RealAgnostic", "RealAgnosticResidual", "RealAgnosticDensity", "RealAgnosticDensityResidual"]
    + [NON_LINEAR]  # of the models of several levels of theory (2025)
)


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
            "Density" divides A by a learnt neighbour count instead of the average one; "NonLinear" see
            `NonLinearInteraction`.
        distance_transform: what the Bessel functions see: "none" (r), "agnesi" or "soft" (`nn.distance`).
        zbl: add the universal screened nuclear repulsion (ZBL) at short range; advised for hot MD.
        sent_channels: channels of the features that neighbours see, by degree from 0; default: all of h.
        sent_channels_first: the same in the first layer, whose features are scalars.
        envelope_on_weights: the envelope multiplies the radial weights (and densities), not the basis.
        biased_readout: the last readout has one hidden layer more, and constants.
        state: what the model sees of a structure as a whole, `charge` (e) and `spin_multiplicity`: the lowest
            and the highest whole number of a table, or the width of a network of any number.
        state_readout: an energy of every atom is read out of it.
        heads: further quantities and energies that are predicted, and the hyper-parameters of their heads.
        energy_name: what the energy is called among several.
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
    sent_channels: List[int] | None = None
    sent_channels_first: List[int] | None = None
    envelope_on_weights: bool = False
    biased_readout: bool = False
    state: Dict[str, List[int]] = field(default_factory=dict)
    state_readout: bool = False
    heads: Dict[str, Dict[str, Any]] | None = None
    energy_name: str | None = None


class Layer(HasNativeOps, nn.Module):
    """Interaction, product basis, residual and readout of one message-passing step."""

    def __init__(
        self,
        irreps_in: o3.Irreps,
        irreps_out: o3.Irreps,
        first: bool,
        last: bool,
        n_species: int,
        hyperparameters: Hyperparameters,
    ) -> None:
        super().__init__()
        n = hyperparameters.num_channels
        irreps_a = _natural(n, hyperparameters.l_max)
        kind = hyperparameters.interaction_first if first else hyperparameters.interaction
        irreps_sent = _sent(irreps_in, first, hyperparameters)
        self.interaction: nn.Module = (
            NonLinearInteraction(irreps_sent, irreps_a, n_species, hyperparameters)
            if kind == NON_LINEAR
            else Interaction(irreps_sent, irreps_a, kind, n_species, hyperparameters)
        )
        self.contraction = SymmetricContraction(irreps_a, irreps_out, hyperparameters.correlation, n_species)
        self.linear = Linear(irreps_out, irreps_out)
        shared = o3.Irreps([(mul, ir) for mul, ir in irreps_out if ir in irreps_in])
        by_element = 0 if kind == NON_LINEAR else n_species
        self.residual = Linear(irreps_in, shared, by_element) if "Residual" in kind else None
        self.n_new = irreps_out.dim - shared.dim  # irreps that the residual cannot reach: the last ones
        self.update: Optional[nn.Module] = None
        width = hyperparameters.readout_mlp
        if not last or first:
            self.readout = RadialMLP([n, 1])
        elif hyperparameters.biased_readout:
            self.readout = BiasedMLP([n, width, width, 1])
        else:
            self.readout = RadialMLP([n, width, 1])
        self.n_scalars = n

    @torch.jit.unused
    def use_native_ops(self) -> None:
        """Folded, the linear map and the residual are one sum."""
        if self.linear.folded and self.residual is not None:
            self.update = LinearSum([self.linear, self.residual])
            self.linear.clear()
            self.residual.clear()

    def forward(
        self,
        up: Tensor,
        h: Tensor,
        species: Tensor,
        edges: List[Tensor],
        harmonics: Tensor,
        radial: List[Tensor],
    ) -> Tuple[Tensor, Tensor, Tensor]:
        n_centers = h.shape[0]
        a = self.interaction(up, species, n_centers, edges, harmonics, radial)
        central = species[:n_centers]
        b = self.contraction(a, central)  # (n_centers, irreps_out.dim)
        if self.update is not None:
            out = self.update([b, h], central)
        else:
            out = self.linear(b, central)
            if self.residual is not None:
                out = out + torch.nn.functional.pad(self.residual(h, central), [0, self.n_new])
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
        super().__init__(hyperparameters.cutoff, n_layers)
        n, n_species = hyperparameters.num_channels, len(elements)
        self.embedding = nn.Parameter(torch.randn(n_species, n, dtype=torch.float64))
        self.envelope_power = hyperparameters.envelope_power
        self.basis = BesselBasis(
            hyperparameters.cutoff, hyperparameters.num_basis, hyperparameters.envelope_power
        )
        transform = TRANSFORMS[hyperparameters.distance_transform]
        self.transform = transform(elements) if transform is not None else None
        self.envelope_on_weights = hyperparameters.envelope_on_weights
        kinds = (hyperparameters.interaction_first, hyperparameters.interaction)
        self.edge_rows = EdgeRows(directed=NON_LINEAR in kinds[:n_layers])
        self.geometry = EdgeGeometry(hyperparameters.l_max)
        self.table_cutoff = 0.0  # of radial tables
        scalars = _natural(n, 0)
        linear_up: List[nn.Module] = []
        layers: List[nn.Module] = []
        features: Dict[str, o3.Irreps] = {}
        for index in range(n_layers):
            first, last = index == 0, index == n_layers - 1
            irreps_in = scalars if first else hidden
            irreps_sent = _sent(irreps_in, first, hyperparameters)
            linear_up.append(Linear(irreps_in, irreps_sent))
            if not first:
                self.exchange_width = irreps_sent.dim
            irreps_out = scalars if last else hidden
            layers.append(Layer(irreps_in, irreps_out, first, last, n_species, hyperparameters))
            features[f"h{index + 1}"] = irreps_out
        self.linear_up = nn.ModuleList(linear_up)
        self.layers = nn.ModuleList(layers)
        given = hyperparameters.state
        self.state = StateEmbedding(given, n, hyperparameters.state_readout) if given else None
        if self.state is not None:
            self.inputs = self.state.known
        self.layer_names = list(features)
        self.last_layer = LastLayer()
        self.feature_width = sum(w.shape[0] for readout in self.readouts() for w in readout.weights)
        self.repulsion = ZBL(elements, self.envelope_power, ROUNDED) if hyperparameters.zbl else None
        self.shift = nn.Parameter(torch.zeros(n_species, dtype=torch.float64))
        self.register_buffer("energy_scale", torch.ones((), dtype=torch.float64))
        trunk = Trunk(n_species, hyperparameters.cutoff, features)
        self.add_heads(hyperparameters.heads, trunk, hyperparameters.energy_name)

    @torch.jit.unused
    def initialise(self, statistics: TrainingStatistics) -> None:
        self.energy_scale.fill_(statistics.force_rms)
        for module in self.modules():
            if isinstance(module, Interaction):
                module.average_neighbors.fill_(max(statistics.average_neighbors, 1.0))
            elif isinstance(module, NonLinearInteraction):
                module.alpha.data.fill_(max(statistics.average_neighbors, 1.0))

    @torch.jit.unused
    def stage(self, name: str) -> int:
        part = name.split(".")
        if part[0] in ("shift", "energy_scale", "heads") or part[2:3] == ["readout"]:
            return self.n_layers + 1
        return int(part[1]) + 1 if part[0] in ("linear_up", "layers") else 0

    @torch.jit.unused
    def tables_of_pairs(self) -> Optional[Tensor]:
        n_species = self.embedding.shape[0]
        if self.edge_rows.directed:
            return torch.arange(n_species**2).reshape(n_species, n_species)
        if self.transform is None:
            return None
        radii = self.transform.range.double().round(decimals=6)  # type: ignore[operator]
        return torch.unique(radii, return_inverse=True)[1]

    @torch.jit.unused
    def use_radial_tables(self, n_knots: int) -> None:
        exact = copy.deepcopy(self).double().requires_grad_(False)
        which, n_species = self.tables_of_pairs(), self.embedding.shape[0]
        pair = TableOfPair(torch.zeros(n_species, n_species, dtype=torch.long) if which is None else which)
        for own, layer in zip(self.layers, exact.layers):

            def rows(x: Tensor, block: Any = layer.interaction) -> Tensor:
                graph = pair.one_edge_each(n_species, x.shape[0])
                radial = [x * self.cutoff]
                radial += exact._radial(radial[0], graph.species, graph, torch.arange(x.shape[0]))
                found: Tensor = block.rows(radial, graph.species, [graph.centers, graph.neighbors])
                return found

            knots = interpolation(rows, n_knots, pair.n_tables).to(self.embedding.dtype)
            own.interaction.use_radial_table(knots[0] if which is None else knots)  # type: ignore
        self.edge_rows.table_of_pair = None if which is None else pair
        self.table_cutoff = self.cutoff
        self.add_module("basis", NoBasis())

    @torch.jit.unused
    def readouts(self) -> List[RadialMLP]:
        return [layer.readout for layer in self.layers if isinstance(layer, Layer)]

    def forward(self, graph: Graph) -> Dict[str, Tensor]:
        species = graph.species
        r, harmonics = self.geometry(graph.vectors)  # (E,), (E, (l_max + 1)²)
        edges, first = self.edge_rows(graph)
        if self.table_cutoff > 0.0:
            radial = [r / self.table_cutoff]
        else:
            radial = [r] + self._radial(r.index_select(0, first), species, graph, first)
        central = species[: graph.n_centers]
        e = torch.zeros(graph.n_centers, dtype=r.dtype, device=r.device)
        features: List[Tensor] = []
        found: Dict[str, Tensor] = {"harmonics": harmonics}
        h = self.embedding.index_select(0, central)  # (n_centers, num_channels)
        if self.state is not None:
            state = self.state(graph)  # (N, num_channels)
            h = h + state[: graph.n_centers]
        for index, (linear_up, layer) in enumerate(zip(self.linear_up, self.layers)):
            if index == 0:  # the same for all atoms of an element, ghosts included
                up = linear_up(self.embedding, species).index_select(0, species)  # (N, num_channels)
                if self.state is not None:
                    up = up + linear_up(state, species)
            else:
                up = self.exchange(with_ghost_rows(linear_up(h, central), species.shape[0]))
            h, layer_energy, inputs = layer(up, h, species, edges, harmonics, radial)
            found[self.layer_names[index]] = h
            e = e + layer_energy
            features.append(inputs)
        energy = self.energy_scale * (e + self.shift[central])
        if self.repulsion is not None:
            found["common"] = self.repulsion(graph, r)
            energy = energy + found["common"]
        if self.state is not None:
            own = self.state.energies(state[: graph.n_centers])
            energy = energy + own
            found["common"] = found["common"] + own if "common" in found else own
        found["energy"], found["feature"] = energy, self.energy_scale * torch.cat(features, dim=1)
        return self.coupled_energies(graph, found)

    def _radial(self, r: Tensor, species: Tensor, graph: Graph, first: Tensor) -> List[Tensor]:
        """Of the rows of weights (U,): the basis (U, num_basis), and what goes with it: its slopes (for the
        fused ops), or the envelope (U, 1) that the weights take."""
        x = r
        if self.transform is not None:
            ends = [graph.centers.index_select(0, first), graph.neighbors.index_select(0, first)]
            x = self.transform(r, species, ends)
        envelope = polynomial_cutoff(r / self.cutoff, self.envelope_power).unsqueeze(1)
        if self.envelope_on_weights:
            return [self.basis.waves(x.to(torch.float64)).to(r.dtype), envelope]
        slopes: List[Tensor] = []
        if self.transform is None:
            basis = self.basis(r)
            if self.edge_rows.wants_slopes():
                slopes = [self.basis.slopes(r)]
        else:
            basis = self.basis.waves(x) * envelope
            if self.edge_rows.wants_slopes():
                slopes = [radial_slopes(basis, r)]
        return [basis] + slopes


def _natural(channels: int, degree: int) -> o3.Irreps:
    """Irreps 0e + 1o + 2e + … of the same number of channels."""
    return o3.Irreps([(channels, (degree_, (-1) ** degree_)) for degree_ in range(degree + 1)])


def _sent(irreps_in: o3.Irreps, first: bool, hyperparameters: Hyperparameters) -> o3.Irreps:
    """What neighbours see of features `irreps_in`."""
    channels = hyperparameters.sent_channels_first if first else hyperparameters.sent_channels
    if channels is None:
        return irreps_in
    return o3.Irreps([(n, (degree, (-1) ** degree)) for degree, n in enumerate(channels)])


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
    for name in ("sent_channels", "sent_channels_first"):
        channels = getattr(hyperparameters, name)
        if channels is not None and (not channels or min(channels) <= 0):
            raise BadInput(f"mace: '{name}' must be positive numbers by degree, got {channels}")
    choices = {
        "interaction_first": tuple(INTERACTIONS),
        "interaction": tuple(INTERACTIONS),
        "distance_transform": tuple(TRANSFORMS),
    }
    for name, valid in choices.items():
        value = getattr(hyperparameters, name)
        if value not in valid:
            raise BadInput(f"mace: '{name}' must be one of {', '.join(valid)}, got '{value}'")
