"""Sum of families: E = Σ_k E_k, e.g. a universal model and a small correction to it.

Further quantities are passed on: those that several terms predict add up if their record says so. One
neighbour list serves all terms, with the largest cutoff; each term sees the edges within its own.
"""

# mypy: disable-error-code=operator
# (to mypy the methods of a ModuleList's modules are tensors, and TorchScript has no casts)
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Dict, List, Tuple

import torch
from torch import Tensor

from mlplugins.errors import BadInput
from mlplugins.models import committee
from mlplugins.models._composite import Composite, built
from mlplugins.models.base import Potential
from mlplugins.quantities import QUANTITIES
from mlplugins.structures.graph import Graph


@dataclass(frozen=True)
class Hyperparameters:
    """The `terms`: one mapping each, with `family` and that family's own hyper-parameters."""

    terms: List[Dict[str, Any]] = field(default_factory=list)


class Model(Composite):
    """Sum of the per-atom energies of its terms, and of what else they predict.

    >>> from mlplugins.models import lennard_jones
    >>> terms = [{"family": "lennard-jones", "cutoff": 5.0}, {"family": "lennard-jones", "cutoff": 4.0}]
    >>> model = Model(["Ar"], Hyperparameters(terms))
    >>> model.cutoff, model.n_layers
    (5.0, 1)

    Raises:
        BadInput: fewer than two terms, an unknown family, hyper-parameters that it refuses, or several terms
            that predict a quantity which does not add up.
    """

    def __init__(self, elements: List[str], hyperparameters: Hyperparameters) -> None:
        if len(hyperparameters.terms) < 2:
            raise BadInput(f"sum: expected two 'terms' or more, got {len(hyperparameters.terms)}")
        self._consist_of(built(elements, hyperparameters.terms, "sum: term"))

    @classmethod
    def of(cls, terms: List[Potential]) -> "Model":
        """The sum of models that exist already, for the same elements."""
        model = cls.__new__(cls)
        model._consist_of(terms)
        return model

    @torch.jit.unused
    def _consist_of(self, terms: List[Potential]) -> None:
        if any(isinstance(term, committee.Model) for term in terms):
            raise BadInput(
                "sum: a committee stands alone: give the other terms to each of its members, and make the "
                "committee of these"
            )
        self._hold(terms)
        self.predicts = _predicted(terms)
        self.names: List[str] = list(self.predicts)
        self.feature_widths: List[int] = [term.feature_width for term in terms]
        self.feature_width = sum(self.feature_widths)

    def forward(self, graph: Graph) -> Dict[str, Tensor]:
        r = torch.linalg.vector_norm(graph.vectors, dim=1)  # (E,)
        total: Dict[str, Tensor] = {}
        features: List[Tensor] = []
        for index, term in enumerate(self.terms):
            part = term(self.within(graph, r, self.cutoffs[index]))
            if "feature" in part:
                features.append(part["feature"])
            self.keep(total, part, index)
            for name in self.names:
                if name in part:
                    total[name] = total[name] + part[name] if name in total else part[name]
        if len(features) > 0:
            total["feature"] = torch.cat(features, dim=1)
        return total

    @torch.jit.export
    def posterior_features(self, graph: Graph, found: Dict[str, Tensor]) -> Tuple[Tensor, Tensor]:
        """Of independent terms: residuals add up, features stand side by side."""
        r = torch.linalg.vector_norm(graph.vectors, dim=1)
        total = torch.zeros(graph.n_centers, dtype=r.dtype, device=r.device)
        features: List[Tensor] = []
        for index, term in enumerate(self.terms):
            part = self.within(graph, r, self.cutoffs[index])
            residual, psi = term.posterior_features(part, self._own(found, index))
            total = total + residual
            features.append(psi)
        return total, torch.cat(features, dim=1)

    @torch.jit.export
    def force_probes(self, graph: Graph, found: Dict[str, Tensor], count: int) -> Tensor:
        """Those of independent terms, side by side."""
        r = torch.linalg.vector_norm(graph.vectors, dim=1)
        probes: List[Tensor] = []
        for index, term in enumerate(self.terms):
            part = self.within(graph, r, self.cutoffs[index])
            probes.append(term.force_probes(part, self._own(found, index), count))
        return torch.cat(probes, dim=1)

    @torch.jit.export
    def force_floor(self) -> float:
        """Root of the sum of squares; negative where any term has no uncertainty of its forces."""
        squares, known = 0.0, True
        for term in self.terms:
            floor = float(term.force_floor())
            known = known and floor >= 0.0
            squares += floor * floor
        return math.sqrt(squares) if known else -1.0

    def _own(self, found: Dict[str, Tensor], index: int) -> Dict[str, Tensor]:
        """The features of one term among those of all."""
        own: Dict[str, Tensor] = {}
        width = self.feature_widths[index]
        if width > 0:
            first = sum(self.feature_widths[:index])
            own["feature"] = found["feature"][:, first : first + width]
        return own


def _predicted(terms: List[Potential]) -> Tuple[str, ...]:
    """What the terms predict together, in the order of the table."""
    counts = Counter(name for term in terms for name in term.predicts)
    for name, count in counts.items():
        if count > 1 and not QUANTITIES[name].additive:
            raise BadInput(
                f"sum: {count} terms predict '{name}', which does not add up (its record is not `additive`): "
                "expected one such term at most, leave the others out"
            )
    return tuple(name for name in QUANTITIES if name in counts)
