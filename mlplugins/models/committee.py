"""Committee of families: E = (1/M) Σ_m E_m of models of the same data, and what they disagree about.

The spread of the members, √(1/(M−1) Σ_m (E_m − E)²), is the uncertainty of the energy. Posteriors that
members have of their own are left out, as where separate files are evaluated together.
"""

# mypy: disable-error-code=operator
# (to mypy the methods of a ModuleList's modules are tensors, and TorchScript has no casts)
import copy
import math
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn

from mlplugins.errors import BadInput
from mlplugins.models import nequip
from mlplugins.models._composite import Composite, built
from mlplugins.models._stacked import stacked
from mlplugins.models.base import Potential
from mlplugins.models.capabilities import PredictsVariance, of_whole_molecule
from mlplugins.structures.graph import Graph


@dataclass(frozen=True)
class Hyperparameters:
    """The `members`: one mapping each, with `family` and that family's own hyper-parameters."""

    members: List[Dict[str, Any]] = field(default_factory=list)


class Model(PredictsVariance, Composite):
    """Mean of the per-atom quantities of its members.

    Attributes:
        n_members: M.
        offsets: (M, elements), eV: composition energies of each member less their mean, the model's.

    >>> from mlplugins.models import lennard_jones
    >>> members = [{"family": "lennard-jones", "epsilon": e, "cutoff": 5.0} for e in (0.01, 0.011)]
    >>> model = Model(["Ar"], Hyperparameters(members))
    >>> model.n_members, model.cutoff
    (2, 5.0)

    Raises:
        BadInput: fewer than two members, an unknown family, hyper-parameters that it refuses, a model of a
            whole molecule, a committee, or members that predict different quantities.
    """

    n_members: int
    offsets: Tensor
    scales: Tensor
    constants: Tensor

    def __init__(self, elements: List[str], hyperparameters: Hyperparameters) -> None:
        terms = built(elements, hyperparameters.members, "committee: member")
        self._consist_of(terms, torch.zeros(len(terms), len(elements), dtype=torch.float64))

    @classmethod
    def of(cls, terms: List[Potential], offsets: Tensor) -> "Model":
        """The committee of models that exist already, for the same elements."""
        model = cls.__new__(cls)
        model._consist_of(terms, offsets)
        return model

    @torch.jit.unused
    def _consist_of(self, terms: List[Potential], offsets: Tensor) -> None:
        if len(terms) < 2:
            raise BadInput(f"committee: expected two members or more, got {len(terms)}")
        _require_alike(terms)
        self._hold(terms)
        self.predicts = terms[0].predicts
        self.names: List[str] = list(self.predicts)
        self.n_members = len(terms)
        self.register_buffer("offsets", offsets)
        self.wide: Optional[nn.Module] = None
        self.readouts = nn.ModuleList()

    @torch.jit.unused
    def use_native_ops(self) -> None:
        """Members of one shape are computed side by side where the derivatives of their mean are wanted."""
        wide = stacked(self.potentials()) if self.wide is None else None
        if wide is not None:
            self.wide, self.last = wide, wide.layer_names[-1]
            self.exchange_width = wide.exchange_width
            members = [term for term in self.potentials() if isinstance(term, nequip.Model)]
            self.readouts = nn.ModuleList([copy.deepcopy(member.readout) for member in members])
            self.register_buffer("scales", torch.stack([m.energy_scale.detach() for m in members]))
            shifts = torch.stack([m.shift.detach() for m in members])
            self.register_buffer("constants", shifts * self.scales + self.offsets.to(shifts.dtype))
        super().use_native_ops()

    @torch.jit.unused
    def has_variance(self) -> bool:
        return True

    def forward(self, graph: Graph) -> Dict[str, Tensor]:
        """Means of what the members predict; and the energies of all, `members` (n_centers, M)."""
        if self.wide is not None:
            return self._side_by_side(graph)
        each = self.members(graph, graph.vectors.unsqueeze(0).expand(self.n_members, -1, -1))
        found: Dict[str, Tensor] = {}
        for name in self.names:
            if name in each[0]:
                found[name] = torch.stack([one[name] for one in each]).mean(dim=0)
        for index, one in enumerate(each):
            self.keep(found, one, index)
        found["members"] = torch.stack([one["energy"] for one in each], dim=1)
        return found

    def _side_by_side(self, graph: Graph) -> Dict[str, Tensor]:
        """The same from one network, the readout of each member from its own features."""
        features = self.wide(graph)[self.last]  # type: ignore[misc]
        species = graph.species[: graph.n_centers]
        n = features.shape[1] // self.n_members
        energies: List[Tensor] = []
        for index, readout in enumerate(self.readouts):
            e = readout.readout(features[:, index * n : (index + 1) * n])[0].squeeze(1)
            scale, constant = self.scales[index], self.constants[index]
            energies.append(scale.index_select(0, species) * e + constant.index_select(0, species))
        members = torch.stack(energies, dim=1)
        return {"energy": members.mean(dim=1), "members": members}

    @torch.jit.export
    def of_heads(self, graph: Graph, found: Dict[str, Tensor], wanted: List[str]) -> Dict[str, Tensor]:
        """Means of those of the members."""
        mean: Dict[str, Tensor] = {}
        for name, values in self.totals(graph, found, wanted).items():
            mean[name] = values / self.n_members
        return mean

    @torch.jit.export
    def members(self, graph: Graph, vectors: Tensor) -> List[Dict[str, Tensor]]:
        """What the first K members predict, each with its own `vectors` (K, E, 3) in place of those of the
        graph: one backward pass to them gives the gradients of each member."""
        each: List[Dict[str, Tensor]] = []
        for index, term in enumerate(self.terms):
            if index < vectors.shape[0]:
                v = vectors[index]
                i, j, n, state = graph.centers, graph.neighbors, graph.n_centers, graph.state
                own = Graph(graph.species, i, j, v, graph.system, n, state)
                r = torch.linalg.vector_norm(v, dim=1)
                found = term(self.within(own, r, self.cutoffs[index]))
                offset = self.offsets[index].index_select(0, graph.species[: graph.n_centers])
                found["energy"] = found["energy"] + offset.to(v.dtype)
                each.append(found)
        return each

    @torch.jit.export
    def posterior_features(self, graph: Graph, found: Dict[str, Tensor]) -> Tuple[Tensor, Tensor]:
        """No residual, and ψ_m = (E_m − E)/√(M−1): ‖Σ ψ‖² is the sample variance of any sum of energies."""
        energies = found["members"]
        psi = (energies - energies.mean(dim=1, keepdim=True)) / math.sqrt(self.n_members - 1)
        return torch.zeros_like(psi[:, 0]), psi


def _require_alike(terms: List[Potential]) -> None:
    for index, term in enumerate(terms):
        if isinstance(term, Model):
            raise BadInput(f"committee: member {index + 1} is a committee itself; name its members")
        if of_whole_molecule(term):
            raise BadInput(
                f"committee: member {index + 1} is a model of a whole molecule, which is evaluated without "
                "neighbour lists: give engines the separate files"
            )
        if term.variants:
            raise BadInput(
                f"committee: member {index + 1} has several energies, and a committee in one file has one: "
                "give engines the separate files, of which they evaluate the same variant"
            )
        if term.predicts != terms[0].predicts:
            raise BadInput(
                f"committee: member {index + 1} predicts {', '.join(term.predicts)}, and member 1 "
                f"{', '.join(terms[0].predicts)}: expected the same of all"
            )
