"""NequIP: E(3)-equivariant message passing (Batzner et al., Nat. Commun. 13, 2453 (2022), fig. 1)."""

import copy
import math
from dataclasses import dataclass, field
from typing import Any, Dict, List, Literal, Optional

import torch
from torch import Tensor, nn

from mlplugins.errors import BadInput
from mlplugins.heads import Trunk
from mlplugins.models.base import Potential, TrainingStatistics
from mlplugins.models.capabilities import HasHead, HasLastLayer, HasRadialNetworks
from mlplugins.nn.convolution import Convolution, EdgeGeometry, reachable_irreps
from mlplugins.nn.distance import PairCutoffs
from mlplugins.nn.edge_rows import EdgeRows
from mlplugins.nn.exchange import with_ghost_rows
from mlplugins.nn.gate import Gate
from mlplugins.nn.irreps import o3
from mlplugins.nn.last_layer import LastLayer
from mlplugins.nn.layer_norm import RMSLayerNorm
from mlplugins.nn.linear import Linear
from mlplugins.nn.modes import Foldable, HasNativeOps
from mlplugins.nn.radial import BesselBasis, NoBasis, RadialMLP
from mlplugins.nn.radial_table import interpolation
from mlplugins.nn.sums import LinearSum
from mlplugins.nn.zbl import ZBL
from mlplugins.structures.graph import Graph

REFERENCES = ["https://doi.org/10.1038/s41467-022-29939-5"]


@dataclass(frozen=True)
class Hyperparameters:
    """Parameters, named as in the paper.

    Attributes:
        cutoff: radial cutoff r_c, Å.
        num_layers: interaction blocks.
        l_max: highest degree of features and harmonics (0–4; above 3 without the fused convolution: slower).
        num_features: channels of every irrep, or of every degree (a list of l_max + 1).
        parity: carry both parities of every degree (full O(3)), otherwise only the natural (−1)^l; `even` is
            the SO(3) model of SevenNet: every irrep and harmonic counts as even, mirror images may differ.
        num_basis: Bessel functions.
        envelope_power: p of the polynomial cutoff.
        xplor_onset: start of the XPLOR cutoff, Å, which then replaces the polynomial one.
        radial_mlp: hidden widths of the radial network.
        solid_harmonics: r^l Y_lm(r̂) instead of Y_lm(r̂), as in SevenNet-0 of May 2024.
        self_connection: `species` (weights per element, as in the paper) or `linear` (shared by all).
        readout_mlp: hidden widths of the readout; empty: linear. Default: half the scalar channels.
        zbl: add the universal screened nuclear repulsion (ZBL) at short range; advised for hot MD.
        zbl_power: p of the polynomial envelope of the repulsion.
        pair_cutoffs: cutoffs within r_c by element of the centre and of the neighbour, Å; others are r_c.
        num_embedding: channels of the element embedding, which the first block takes; default: as many as
            scalar channels.
        scalar_bias: constants are added to the scalars of `linear_up` and before the gate, as in a SevenNet
            of several fidelities, where they are what depends on the chosen one.
        layer_norm: the features of every atom are normalised before the gate (RMS over all irreps), as in
            Nequix.
        neighbors_by_element: every element has its own average number of neighbours, by whose root the
            features of its atoms are divided before they are sent, as in nequip with such an option.
        heads: further quantities and energies that are predicted, and the hyper-parameters of their heads.
        energy_name: what the energy is called among several.
    """

    cutoff: float = 5.0
    num_layers: int = 3
    l_max: int = 1
    num_features: int | List[int] = 32
    parity: bool | Literal["even"] = False
    num_basis: int = 8
    envelope_power: int = 6
    xplor_onset: float | None = None
    radial_mlp: List[int] = field(default_factory=lambda: [64])
    solid_harmonics: bool = False
    self_connection: Literal["species", "linear"] = "species"
    readout_mlp: List[int] | None = None
    zbl: bool = False
    zbl_power: int = 6
    pair_cutoffs: Dict[str, Dict[str, float]] | None = None
    num_embedding: int | None = None
    scalar_bias: bool = False
    layer_norm: bool = False
    neighbors_by_element: bool = False
    heads: Dict[str, Dict[str, Any]] | None = None
    energy_name: str | None = None


class Interaction(HasNativeOps, nn.Module):
    """Interaction block: self-connection + (linear → convolution → linear), layer norm, the gate."""

    def __init__(
        self, irreps_in: o3.Irreps, irreps_out: o3.Irreps, n_species: int, hyperparameters: Hyperparameters
    ) -> None:
        super().__init__()
        self.irreps_in = irreps_in
        bias = hyperparameters.scalar_bias
        self.linear_up = Linear(irreps_in, irreps_in, bias=bias)
        reachable = reachable_irreps(irreps_in, hyperparameters.l_max, irreps_out)
        self.gate = Gate(o3.Irreps([(mul, ir) for mul, ir in irreps_out if ir in reachable]))
        widths = [hyperparameters.num_basis, *hyperparameters.radial_mlp]
        self.convolution = Convolution(irreps_in, hyperparameters.l_max, self.gate.irreps_in, widths)
        self.linear_down = Linear(self.convolution.irreps_out, self.gate.irreps_in)
        shared = hyperparameters.self_connection == "linear"
        self.self_connection = Linear(irreps_in, self.gate.irreps_in, 0 if shared else n_species, bias)
        self.layer_norm = RMSLayerNorm(self.gate.irreps_in) if hyperparameters.layer_norm else None
        self.neighbors_by_element = hyperparameters.neighbors_by_element
        self.irreps_out = self.gate.irreps_out
        self.divisor = 1.0  # of the sum over neighbours, once it is known for good
        self.update: Optional[nn.Module] = None

    @torch.jit.unused
    def use_native_ops(self) -> None:
        """Folded, both linear maps are one sum, and the normalisation is part of it."""
        if self.linear_down.folded:
            scale = 1.0 if self.neighbors_by_element else 1.0 / self.divisor
            self.update = LinearSum([self.linear_down, self.self_connection], [scale, 1.0])
            self.linear_down.clear()
            self.self_connection.clear()

    def forward(
        self,
        up: Tensor,
        h: Tensor,
        species: Tensor,
        edges: List[Tensor],
        harmonics: Tensor,
        radial: List[Tensor],
        normalisation: Tensor,
    ) -> Tensor:
        """Of `up`, the features that neighbours see, of all nodes, and h of the centres."""
        if self.neighbors_by_element:
            up = up * normalisation
        m = self.convolution(up, harmonics, radial, edges, species.shape[0])  # (n_centers, mid.dim)
        if self.update is not None:
            m = self.update([m, h], species)  # (n_centers, gate.dim)
        else:
            m = self.linear_down(m, species)
            if not self.neighbors_by_element:
                m = m / normalisation
            m = m + self.self_connection(h, species)
        if self.layer_norm is not None:
            m = self.layer_norm(m)
        return self.gate(m)  # (n_centers, irreps_out.dim)


class Model(Foldable, HasRadialNetworks, HasHead, HasLastLayer, Potential):
    """Per-atom energies of the NequIP architecture.

    >>> model = Model(["H", "O"], Hyperparameters(num_layers=2, num_features=4))
    >>> i, j = torch.tensor([0, 1]), torch.tensor([1, 0])
    >>> r = torch.tensor([[0.0, 0.0, 0.96], [0.0, 0.0, -0.96]], dtype=torch.float64)
    >>> model(Graph(torch.tensor([0, 1]), i, j, r, torch.tensor([0, 0]), 2))["energy"].shape
    torch.Size([2])
    """

    energy_scale: Tensor
    average_neighbors: Tensor

    def __init__(self, elements: List[str], hyperparameters: Hyperparameters) -> None:
        _validate(hyperparameters)
        irreps = _hidden_irreps(hyperparameters)
        super().__init__(hyperparameters.cutoff, hyperparameters.num_layers)
        n_species = len(elements)
        n = _features(hyperparameters)[0]
        n_embedding = hyperparameters.num_embedding or n
        self.embedding = nn.Parameter(torch.randn(n_species, n_embedding, dtype=torch.float64))
        self.basis = BesselBasis(
            hyperparameters.cutoff,
            hyperparameters.num_basis,
            hyperparameters.envelope_power,
            hyperparameters.xplor_onset,
        )
        cutoffs = _pair_cutoffs(elements, hyperparameters)
        self.transform = None if cutoffs is None else PairCutoffs(cutoffs, hyperparameters.cutoff)
        self.edge_rows = EdgeRows(directed=cutoffs is not None)
        self.geometry = EdgeGeometry(hyperparameters.l_max, hyperparameters.solid_harmonics)
        self.table_cutoff = 0.0  # of radial tables
        interactions: List[nn.Module] = []
        h_irreps = o3.Irreps([(n_embedding, "0e")])
        layers: Dict[str, o3.Irreps] = {}
        for layer in range(hyperparameters.num_layers):
            if layer > 0:
                self.exchange_width = max(self.exchange_width, h_irreps.dim)
            last = layer == hyperparameters.num_layers - 1
            interaction = Interaction(
                h_irreps, o3.Irreps([(n, "0e")]) if last else irreps, n_species, hyperparameters
            )
            interactions.append(interaction)
            h_irreps = interaction.irreps_out
            layers[f"h{layer + 1}"] = h_irreps
        self.interactions = nn.ModuleList(interactions)
        self.layer_names = list(layers)
        hidden = hyperparameters.readout_mlp
        widths = [n, *([max(n // 2, 1)] if hidden is None else hidden), 1]
        self.readout = RadialMLP(widths)
        self.feature_width = sum(widths[:-1])
        self.last_layer = LastLayer()
        self.repulsion = ZBL(elements, hyperparameters.zbl_power) if hyperparameters.zbl else None
        self.shift = nn.Parameter(torch.zeros(n_species, dtype=torch.float64))
        self.register_buffer("energy_scale", torch.ones(n_species, dtype=torch.float64))
        n_averages = [n_species] if hyperparameters.neighbors_by_element else []
        self.register_buffer("average_neighbors", torch.ones(n_averages, dtype=torch.float64))
        trunk = Trunk(n_species, hyperparameters.cutoff, layers)
        self.add_heads(hyperparameters.heads, trunk, hyperparameters.energy_name)

    @torch.jit.unused
    def initialise(self, statistics: TrainingStatistics) -> None:
        self.energy_scale.fill_(statistics.force_rms)
        self.average_neighbors.fill_(max(statistics.average_neighbors, 1.0))

    @torch.jit.unused
    def stage(self, name: str) -> int:
        part = name.split(".")
        if part[0] == "interactions":
            return int(part[1]) + 1
        return self.n_layers + 1 if part[0] in ("readout", "shift", "energy_scale", "heads") else 0

    @torch.jit.unused
    def use_radial_tables(self, n_knots: int) -> None:
        convolutions = [module for module in self.modules() if isinstance(module, Convolution)]
        for convolution in convolutions:
            network = nn.Sequential(self.basis, convolution.radial)
            exact = copy.deepcopy(network).double().requires_grad_(False)

            def rows(x: Tensor, exact: nn.Module = exact) -> Tensor:
                found: Tensor = exact(x * self.cutoff)
                return found

            knots = interpolation(rows, n_knots)[0]
            convolution.use_radial_table(knots.to(self.embedding.dtype))
        self.table_cutoff = self.cutoff
        self.add_module("basis", NoBasis())

    @torch.jit.unused
    def fold(self) -> None:
        if self.average_neighbors.dim() == 0:
            for interaction in self.interactions:
                if isinstance(interaction, Interaction):
                    interaction.divisor = math.sqrt(float(self.average_neighbors))

    @torch.jit.unused
    def readouts(self) -> List[RadialMLP]:
        return [self.readout]

    def forward(self, graph: Graph) -> Dict[str, Tensor]:
        r, harmonics = self.geometry(graph.vectors)  # (E,), (E, (l_max + 1)²)
        edges, first = self.edge_rows(graph)
        if self.table_cutoff > 0.0:
            x = r if self.transform is None else self.transform(r, graph.species, edges)
            radial = [x / self.table_cutoff]
        else:
            radial = [r] + self._radial(r, graph, first)
        normalisation = self.average_neighbors.sqrt()
        if self.average_neighbors.dim() > 0:
            normalisation = (1.0 / normalisation).index_select(0, graph.species).unsqueeze(1)  # (N, 1)
        central = graph.species[: graph.n_centers]
        h = self.embedding.index_select(0, central)  # (n_centers, num_features)
        found: Dict[str, Tensor] = {}
        if not self.geometry.solid:
            found["harmonics"] = harmonics
        for layer, interaction in enumerate(self.interactions):
            if layer == 0:  # the same for all atoms of an element, ghosts included
                up = interaction.linear_up(self.embedding, central)  # type: ignore[operator]
                up = up.index_select(0, graph.species)
            else:
                up = interaction.linear_up(h, central)  # type: ignore[operator]
                up = self.exchange(with_ghost_rows(up, graph.species.shape[0]))  # (N, irreps.dim)
            h = interaction(up, h, central, edges, harmonics, radial, normalisation)
            found[self.layer_names[layer]] = h
        e, features = self.readout.readout(h)  # (n_centers, 1), (n_centers, T)
        scale = self.energy_scale.index_select(0, central)
        energy = scale * (e.squeeze(1) + self.shift.index_select(0, central))
        if self.repulsion is not None:
            found["common"] = self.repulsion(graph, r)
            energy = energy + found["common"]
        found["energy"], found["feature"] = energy, scale.unsqueeze(1) * features
        return self.coupled_energies(graph, found)

    def _radial(self, r: Tensor, graph: Graph, first: Tensor) -> List[Tensor]:
        """The basis of the rows of weights (U, num_basis) and, for the fused ops, its slopes."""
        r_rows = r.index_select(0, first)  # (U,)
        x_rows = r_rows
        if self.transform is not None:
            ends = [graph.centers.index_select(0, first), graph.neighbors.index_select(0, first)]
            x_rows = self.transform(r_rows, graph.species, ends)
        radial = [self.basis(x_rows)]
        if self.edge_rows.wants_slopes():
            slopes = self.basis.slopes(x_rows)
            radial.append(slopes if self.transform is None else slopes * (x_rows / r_rows).unsqueeze(1))
        return radial


def _features(hyperparameters: Hyperparameters) -> List[int]:
    """Channels of every degree."""
    n = hyperparameters.num_features
    return list(n) if isinstance(n, list) else [n] * (hyperparameters.l_max + 1)


def _pair_cutoffs(elements: List[str], hyperparameters: Hyperparameters) -> Tensor | None:
    """Cutoff of every pair (centre, neighbour), Å."""
    named = hyperparameters.pair_cutoffs
    if named is None:
        return None
    for element in {*named, *(neighbor for row in named.values() for neighbor in row)}:
        if element not in elements:
            raise BadInput(f"nequip: 'pair_cutoffs' names {element}; the model knows {' '.join(elements)}")
    r_c = hyperparameters.cutoff
    rows = [[float(named.get(i, {}).get(j, r_c)) for j in elements] for i in elements]
    table = torch.tensor(rows, dtype=torch.float64)
    if not bool(((table > 0) & (table <= r_c)).all()):
        raise BadInput(f"nequip: 'pair_cutoffs' must lie between 0 and 'cutoff' ({r_c:g} Å), got {named}")
    return table


def _hidden_irreps(hyperparameters: Hyperparameters) -> o3.Irreps:
    channels = list(enumerate(_features(hyperparameters)))
    if hyperparameters.parity == "even":
        return o3.Irreps([(n, (degree, 1)) for degree, n in channels])
    if hyperparameters.parity:
        return o3.Irreps([(n, (degree, parity)) for degree, n in channels for parity in (1, -1)])
    return o3.Irreps([(n, (degree, (-1) ** degree)) for degree, n in channels])


def _validate(hyperparameters: Hyperparameters) -> None:
    h = hyperparameters
    if not 0 <= h.l_max <= 4:
        raise BadInput(f"nequip: 'l_max' must be 0, 1, 2, 3 or 4, got {h.l_max}")
    if isinstance(h.num_features, list) and len(h.num_features) != h.l_max + 1:
        raise BadInput(
            f"nequip: 'num_features' must be one number or l_max + 1 = {h.l_max + 1}, one per degree, "
            f"got {h.num_features}"
        )
    positive = {"cutoff": h.cutoff, "num_layers": h.num_layers, "num_features": min(_features(h))}
    positive["zbl_power"] = h.zbl_power
    if h.num_embedding is not None:
        positive["num_embedding"] = h.num_embedding
    for name, value in positive.items():
        if value <= 0:
            raise BadInput(f"nequip: '{name}' must be positive, got {value}")
    if h.xplor_onset is not None and not 0 < h.xplor_onset < h.cutoff:
        raise BadInput(
            f"nequip: 'xplor_onset' must lie between 0 and the cutoff ({h.cutoff} Å), got {h.xplor_onset}"
        )
    if h.parity not in (True, False, "even"):
        raise BadInput(f"nequip: 'parity' must be true, false or 'even', got {h.parity!r}")
    if h.self_connection not in ("species", "linear"):
        raise BadInput(f"nequip: 'self_connection' must be 'species' or 'linear', got '{h.self_connection}'")
