"""What a `sum` and a `committee` share: several models on one neighbour list."""

# mypy: disable-error-code=operator
# (to mypy the methods of a ModuleList's modules are tensors, and TorchScript has no casts)
from typing import Any, Dict, List, Tuple

import torch
from torch import Tensor, nn

from mlplugins import models
from mlplugins.errors import BadInput
from mlplugins.models.base import Potential, TrainingStatistics
from mlplugins.structures.graph import Graph


class Composite(Potential):
    """A model of several models for the same elements.

    One neighbour list serves them all, with the largest cutoff; each sees the edges `within` its own.

    Attributes:
        terms: the models.
        cutoffs: of each, Å.
    """

    @torch.jit.unused
    def _hold(self, terms: List[Potential]) -> None:
        cutoff = max(term.cutoff for term in terms)
        n_layers = max(term.n_layers for term in terms)
        Potential.__init__(self, cutoff, n_layers, max(term.exchange_width for term in terms))
        self.reach = max(term.reach for term in terms)
        if n_layers > 1:  # engines take a model that reaches no further than its cutoff for one layer
            self.reach = max(self.reach, (1 + 1e-6) * cutoff)
        self.inputs = _inputs(terms)
        self.terms = nn.ModuleList(terms)
        self.cutoffs: List[float] = [term.cutoff for term in terms]

    @torch.jit.unused
    def initialise(self, statistics: TrainingStatistics) -> None:
        for term in self.potentials():
            # the neighbours of a uniform density
            neighbors = statistics.average_neighbors * (term.cutoff / self.cutoff) ** 3
            term.initialise(TrainingStatistics(neighbors, statistics.force_rms))

    @torch.jit.unused
    def stage(self, name: str) -> int:
        _, index, rest = name.split(".", 2)
        term = self.potentials()[int(index)]
        stage = term.stage(rest)
        return self.n_layers + 1 if stage > term.n_layers else stage

    @torch.jit.unused
    def potentials(self) -> List[Potential]:
        """The models, in order."""
        return [term for term in self.terms if isinstance(term, Potential)]

    @torch.jit.unused
    def parts(self) -> List[Potential]:
        return [part for term in self.potentials() for part in term.parts()]

    def within(self, graph: Graph, r: Tensor, cutoff: float) -> Graph:
        """The graph of the edges shorter than `cutoff`; `r` (E,) are their lengths."""
        if cutoff >= self.cutoff:
            return graph
        kept = torch.nonzero(r < cutoff).squeeze(1)
        i, j = graph.centers.index_select(0, kept), graph.neighbors.index_select(0, kept)
        v = graph.vectors.index_select(0, kept)
        return Graph(graph.species, i, j, v, graph.system, graph.n_centers, graph.state)


def _inputs(terms: List[Potential]) -> Dict[str, Tuple[float, float]]:
    """What any term takes of a structure, within the range of all that do."""
    found: Dict[str, Tuple[float, float]] = {}
    for term in terms:
        for name, (low, high) in term.inputs.items():
            lowest, highest = found.get(name, (low, high))
            found[name] = (max(low, lowest), min(high, highest))
    return found


def built(elements: List[str], each: List[Dict[str, Any]], what: str) -> List[Potential]:
    """Models from their hyper-parameters, one mapping each, with `family`; `what` they are, for errors."""
    return [_member(elements, dict(values), what) for values in each]


def _member(elements: List[str], values: Dict[str, Any], what: str) -> Potential:
    name = values.pop("family", None)
    if not isinstance(name, str):
        raise BadInput(f"every {what.split()[-1]} needs a 'family'")
    family = models.family(name)
    try:
        hyperparameters = family.Hyperparameters(**values)
    except TypeError as error:
        raise BadInput(f"{what} '{name}': {error}") from error
    model: Potential = family.Model(elements, hyperparameters)
    return model
