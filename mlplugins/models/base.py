"""The contract of a model family, and the one place where forces and stress are derived from its energy.

A family is one file with `Hyperparameters` (a frozen dataclass) and `Model(Potential)`. Its forward takes a
`Graph` (`mlplugins.structures.graph`) and returns `energy`, (n_centers,), per-atom energies in eV without the
composition baseline. Further quantities, also (n_centers, …), are entries with the names of their records in
`mlplugins.quantities`, and listed in `predicts`; heads (`mlplugins.heads`) make more of them, when asked, of
the features it returns. Nodes from n_centers on are ghosts: their species is needed, their values are not.
With ghosts present a family calls `self.exchange(h)` on its node features before each layer after the first.

Files of this package and of `nn` do not postpone annotations: TorchScript reads them.
"""

from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple

import torch
from torch import Tensor, nn

from mlplugins import heads
from mlplugins.errors import BadInput
from mlplugins.heads._coupled import adiabatic, symmetric
from mlplugins.nn.exchange import GhostExchange
from mlplugins.nn.modes import Foldable, HasNativeOps
from mlplugins.quantities import ENERGY, QUANTITIES
from mlplugins.structures.graph import Graph


@dataclass(frozen=True)
class TrainingStatistics:
    """Statistics of the training data, given to a family before the first step.

    Attributes:
        average_neighbors: mean number of edges per atom within the cutoff.
        force_rms: root mean square of the force components, eV/Å.
        labels: how large the labels of heads are, by name.
    """

    average_neighbors: float
    force_rms: float
    labels: Mapping[str, heads.LabelSizes] = field(default_factory=dict)


class Potential(nn.Module):
    """Base of all families.

    Attributes:
        predicts: quantities of `mlplugins.quantities` that `forward` and the heads return, per atom; the
            energy first.
        cutoff: range of one layer, Å.
        n_layers: number of message-passing layers; of a sum, of its deepest term.
        reach: the interaction range, Å; `n_layers * cutoff` unless a family says less.
        exchange_width: widest node-feature row given to `exchange`, 0 if the family never calls it.
        inputs: what it takes of a structure as a whole, `charge` or `spin_multiplicity`, with the lowest and
            the highest value that it knows; families without them see positions and elements only.
        feature_width: width T of the entry `feature` of its results, 0 if there is none (`HasLastLayer`).
        energy_name: what its energy is called where there are others; "" without a name.
        variants: the other energies, `energy/scan`, which heads give.
        coupled: whether all energies are eigenvalues of one matrix (`heads/_coupled.py`).
    """

    predicts = ("energy",)  # type: Tuple[str, ...]  # no annotation: TorchScript knows no tuples of any length
    cutoff: float
    n_layers: int
    reach: float
    exchange_width: int
    inputs: Dict[str, Tuple[float, float]]
    feature_width: int
    energy_name: str
    variants: List[str]
    coupled: bool

    def __init__(self, cutoff: float, n_layers: int = 1, exchange_width: int = 0) -> None:
        super().__init__()
        self.cutoff = float(cutoff)
        self.n_layers = int(n_layers)
        self.reach = self.n_layers * self.cutoff
        self.exchange_width = int(exchange_width)
        self.inputs = {}
        self.feature_width = 0
        self.energy_name = ""
        self.variants = []
        self.coupled = False
        self.states: List[str] = ["energy"]  # the coupled ones; TorchScript asks for a type: never empty
        self.exchange: nn.Module = nn.Identity()
        self.heads = nn.ModuleDict()
        self.of_matrix = nn.ModuleList()  # of `heads` those whose energies are coupled

    @torch.jit.unused
    def add_heads(
        self, given: Optional[Mapping[str, Any]], trunk: heads.Trunk, energy_name: Optional[str] = None
    ) -> None:
        """Predict the quantities of `given` (name → hyper-parameters of its head, or None) as well; the first
        energy is called `energy_name`.

        Raises:
            BadInput: no such head, features that it cannot be made of, or energies of which one has no name.
        """
        given = given or {}
        self.energy_name = energy_name or ""
        for name in [*(n for n in QUANTITIES if n in given), *(n for n in given if n not in QUANTITIES)]:
            own = trunk._replace(inputs=tuple(self.inputs), heads=dict(self.heads))
            self.heads[name] = heads.made(name, own, given[name] or {})
            if name.startswith(ENERGY):
                self.variants.append(name)
            else:
                self.predicts = (*self.predicts, name)
        if self.variants and (not self.energy_name or ENERGY + self.energy_name in self.variants):
            raise BadInput(
                f"energies: expected a name of the first that differs from {', '.join(self.variants)}, got "
                f"'{self.energy_name}'"
            )
        coupled = [bool(getattr(self.heads[name], "coupled", False)) for name in self.variants]
        self.coupled = any(coupled)
        if self.coupled and not all(coupled):
            raise BadInput(
                "energies: coupled: expected of all but the first, or none: they are of one matrix"
            )
        if self.coupled:  # eigenvalues are not linear in the features of the last layer
            self.feature_width = 0
            self.of_matrix.extend(self.heads[name] for name in self.variants)
            self.states += self.variants

    def coupled_energies(self, graph: Graph, found: Dict[str, Tensor]) -> Dict[str, Tensor]:
        """What a family found; if its energies are coupled, with the lowest one as `energy`, and all as
        `states` (n_centers, states). Families return this."""
        if self.coupled:
            rows: List[Tensor] = [found["energy"].unsqueeze(1)]
            for head in self.of_matrix:
                own = head.to_those_before(graph, found)  # type: ignore[operator]
                rows.append(torch.cat([own, head(graph, found).unsqueeze(1)], dim=1))
            found["states"] = adiabatic(symmetric(rows), graph)
            found["energy"] = found["states"][:, 0]
        return found

    @torch.jit.unused
    def initialise_heads(self, statistics: TrainingStatistics) -> None:
        """Give the heads the size of their labels (called once, before the first step)."""
        for part in self.parts():
            for name, head in part.heads.items():
                if name in statistics.labels:
                    head.initialise(statistics.labels[name])  # type: ignore[operator]

    @torch.jit.unused
    def initialise(self, statistics: TrainingStatistics) -> None:
        """Normalise the fresh model to its training data (called once, before the first step)."""

    @torch.jit.unused
    def use_native_ops(self) -> None:
        """Switch to the ops of the native library: fused kernels, and messages that cross domain boundaries.

        Without the library the ops' plain-torch references run under the same names.
        """
        for module in self.modules():
            if isinstance(module, HasNativeOps):
                module.use_native_ops()
            elif isinstance(module, Potential) and module.exchange_width > 0:
                module.exchange = GhostExchange()

    @torch.jit.unused
    def optimise_for_inference(self) -> None:
        """Precompute all that depends on the weights only: same function, faster, for inference only.

        The weights then mean something else than in training: take a copy.
        """
        for module in self.modules():
            if isinstance(module, Foldable):
                module.fold()

    @torch.jit.unused
    def parts(self) -> List["Potential"]:
        """The models that this one consists of: itself, or the terms of a sum."""
        return [self]

    @torch.jit.unused
    def set_exchange(self, exchange: nn.Module) -> None:
        """Let the family, and every family within it, exchange its features by `exchange`."""
        for module in self.modules():
            if isinstance(module, Potential):
                module.exchange = exchange

    @torch.jit.unused
    def stage(self, name: str) -> int:
        """Where the parameter or buffer `name` belongs: 0 embedding and radial basis, 1 … n_layers its layer,
        n_layers + 1 the head (readouts, shifts and scales of the energy)."""
        return 0

    def forward(self, graph: Graph) -> Dict[str, Tensor]:
        """The quantities of `predicts`, per atom: `energy` (n_centers,), eV, without the baseline, first."""
        raise NotImplementedError("a family implements forward()")

    @torch.jit.export
    def of_heads(self, graph: Graph, found: Dict[str, Tensor], wanted: List[str]) -> Dict[str, Tensor]:
        """The quantities of heads among `wanted`, per atom or edge, of what `forward` gave for this graph."""
        values: Dict[str, Tensor] = {}
        for name, head in self.heads.items():
            if name in wanted:
                if name in self.states:
                    values[name] = found["states"][:, self.states.index(name)]
                else:
                    values[name] = head(graph, found)
        return values

    @torch.jit.unused
    def everything(self, graph: Graph) -> Dict[str, Tensor]:
        """What `forward` returns, and all heads but those of further energies."""
        found: Dict[str, Tensor] = self(graph)
        return {**found, **self.of_heads(graph, found, list(self.predicts))}

    @torch.jit.export
    def posterior_features(self, graph: Graph, found: Dict[str, Tensor]) -> Tuple[Tensor, Tensor]:
        """Zero variance: residual (n_centers,) and features (n_centers, 0); see
        `capabilities.PredictsVariance`."""
        none = torch.zeros(graph.n_centers, 0, dtype=graph.vectors.dtype, device=graph.vectors.device)
        return none.sum(dim=1), none

    @torch.jit.export
    def force_probes(self, graph: Graph, found: Dict[str, Tensor], count: int) -> Tensor:
        """No probes, (n_centers, 0); see `capabilities.PredictsVariance`."""
        return torch.zeros(graph.n_centers, 0, dtype=graph.vectors.dtype, device=graph.vectors.device)

    @torch.jit.export
    def force_floor(self) -> float:
        """0: nothing about this model is uncertain; see `capabilities.PredictsVariance`."""
        return 0.0


def resize_buffers(module: nn.Module, state: Dict[str, Tensor], prefix: str) -> None:
    """Give the buffers of `module` the shapes of their values in `state` (weights of any number of training
    points)."""
    for name, buffer in list(module.named_buffers(recurse=False)):
        value = state.get(prefix + name)
        if value is not None and value.shape != buffer.shape:
            setattr(module, name, buffer.new_zeros(value.shape))


def energy_derivatives(
    energy: Tensor, graph: Graph, n_systems: int, create_graph: bool = False
) -> Tuple[Tensor, Tensor]:
    """Forces and virials from one backward pass to the edge vectors.

    With g_e = ∂E/∂v_e:  F_i = Σ_{e: centre i} g_e − Σ_{e: neighbour i} g_e  and  ∂E/∂ε = Σ_e v_e ⊗ g_e
    (strain r → (1 + ε) r), which divided by the volume is the stress.

    Args:
        energy: scalar or any-shape energies, eV; their sum is differentiated.
        graph: of the energies, its vectors with requires_grad.
        n_systems: number of structures.
        create_graph: keep the graph, to train on forces.

    Returns:
        forces (N, 3) in eV/Å and ∂E/∂ε (n_systems, 3, 3) in eV, symmetric.
    """
    gradients: List[Optional[Tensor]] = list(
        torch.autograd.grad([energy.sum()], [graph.vectors], create_graph=create_graph, allow_unused=True)
    )
    gradient = gradients[0]
    if gradient is None:
        gradient = torch.zeros_like(graph.vectors)
    return edge_sums(gradient, graph, n_systems)


def edge_sums(gradient: Tensor, graph: Graph, n_systems: int) -> Tuple[Tensor, Tensor]:
    """Forces and virials from a vector g_e for every edge, as `energy_derivatives` gives them.

    Args:
        gradient: (E, 3), eV/Å.
        graph: its edges.
        n_systems: number of structures.
    """
    vectors, system = graph.vectors, graph.system
    forces = torch.zeros(system.shape[0], 3, dtype=vectors.dtype, device=vectors.device)
    forces = forces.index_add(0, graph.centers, gradient).index_add(0, graph.neighbors, -gradient)
    per_edge = vectors.unsqueeze(2) * gradient.unsqueeze(1)  # (E, 3, 3)
    virial = torch.zeros(n_systems, 3, 3, dtype=vectors.dtype, device=vectors.device)
    virial = virial.index_add(0, system.index_select(0, graph.centers), per_edge)
    return forces, 0.5 * (virial + virial.transpose(1, 2))
