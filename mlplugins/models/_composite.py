"""What a `sum` and a `committee` share: several models on one neighbour list."""

# mypy: disable-error-code=operator
# (to mypy the methods of a ModuleList's modules are tensors, and TorchScript has no casts)
from typing import Any, Dict, List, Tuple

import torch
from torch import Tensor, nn

from mlplugins import models
from mlplugins.errors import BadInput
from mlplugins.models.base import Potential, TrainingStatistics
from mlplugins.quantities import QUANTITIES
from mlplugins.structures.graph import Graph


class Composite(Potential):
    """A model of several models for the same elements.

    One neighbour list serves them all, with the largest cutoff; each sees the edges `within` its own.

    Attributes:
        terms: the models.
        cutoffs: of each, Å.
    """

    along_edges: List[str]

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
        self.has_heads: List[bool] = [any(part.heads for part in term.parts()) for term in terms]
        self.along_edges = [name for name, quantity in QUANTITIES.items() if quantity.along_edges]
        self.energy_name, self.variants = _energies(terms)
        self.energies: List[str] = ["energy", *self.variants]  # never empty: TorchScript asks for a type
        self.has_variants: List[bool] = [bool(term.variants) for term in terms]

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

    def keep(self, found: Dict[str, Tensor], part: Dict[str, Tensor], index: int) -> None:
        """Add what the heads of one term need to what was found."""
        if self.has_heads[index]:
            for name, values in part.items():
                found[str(index) + "." + name] = values
        elif len(self.energies) > 1:
            found[str(index) + ".energy"] = part["energy"]

    @torch.jit.export
    def of_heads(self, graph: Graph, found: Dict[str, Tensor], wanted: List[str]) -> Dict[str, Tensor]:
        """Those of the terms, added up."""
        return self.totals(graph, found, wanted)

    def totals(self, graph: Graph, found: Dict[str, Tensor], wanted: List[str]) -> Dict[str, Tensor]:
        """Sums of the quantities of heads over the terms."""
        r = torch.linalg.vector_norm(graph.vectors, dim=1)
        total: Dict[str, Tensor] = {}
        for index, term in enumerate(self.terms):
            if self.has_heads[index]:
                prefix = str(index) + "."
                own: Dict[str, Tensor] = {}
                for name, values in found.items():
                    if name.startswith(prefix):
                        own[name[len(prefix) :]] = values
                part = term.of_heads(self.within(graph, r, self.cutoffs[index]), own, wanted)
                for name, values in part.items():
                    if name in self.along_edges and values.shape[0] < r.shape[0]:
                        kept = torch.nonzero(r < self.cutoffs[index]).squeeze(1)
                        values = torch.zeros_like(graph.vectors).index_copy(0, kept, values)
                    total[name] = total[name] + values if name in total else values
        for name in self.energies:
            if name in total:
                for index, with_variants in enumerate(self.has_variants):
                    if not with_variants:  # a term that all energies have in common
                        total[name] = total[name] + found[str(index) + ".energy"]
        return total

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


def _energies(terms: List[Potential]) -> Tuple[str, List[str]]:
    """Names of the energies of the terms that have several, which must be the same of all these."""
    several = [(term.energy_name, list(term.variants)) for term in terms if term.energy_name]
    for other in several[1:]:
        if other != several[0]:
            one, another = (" ".join([first, *rest]) for first, rest in (several[0], other))
            raise BadInput(
                f"energies: expected the same in all terms that name them, got {one} and {another}"
            )
    return several[0] if several else ("", [])


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
