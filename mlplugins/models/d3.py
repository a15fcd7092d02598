"""D3 dispersion, pairwise terms (Grimme et al., J. Chem. Phys. 132, 154104 (2010)), zero or Becke–Johnson
damping (J. Comput. Chem. 32, 1456 (2011)), as a term beside any model.

    E = −½ Σ_{i≠j} s6 C6_ij f6(r) / r⁶ + s8 C8_ij f8(r) / r⁸

C6 depends on the coordination numbers of both atoms; C8 = 3 Q_i Q_j C6. Equations are in atomic units.
The reference data of the elements and the parameters of a functional come from the package tad-dftd3 when a
term is made, and are stored in its file. Two differences to the reference program: the three-body term is
left out (s9 = 0), and sums end smoothly, at shorter cutoffs.
"""

import re
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any, Dict, List, Literal, Tuple

import torch
from torch import Tensor

from mlplugins.elements import atomic_number
from mlplugins.errors import BadInput, nearest, needed
from mlplugins.models.base import Potential, TrainingStatistics
from mlplugins.nn.exchange import with_ghost_rows
from mlplugins.nn.modes import Foldable
from mlplugins.nn.pair_sum import PairSum
from mlplugins.structures.graph import Graph
from mlplugins.units import A_PER_BOHR, EV_PER_HARTREE

REFERENCES = ["https://doi.org/10.1063/1.3382344", "https://doi.org/10.1002/jcc.21759"]

N_REFERENCES = 7
"""Most reference systems of an element; coordination number −1: the element has fewer."""

ONSET = 0.9
"""Fraction of a cutoff where its switch begins."""

SHORTEST = 4.0
"""Shortest cutoff of pairs that is taken from a user, Å: those that touch, as van der Waals radii have it."""

LONGEST = 60.0
"""Longest, Å: programs of DFT take 50.2 (95 bohr); what is more is another unit or a slip."""

STEEPNESS = 16.0
"""k of the coordination number CN_i = Σ_j 1 / (1 + exp(−k (R_ij / r − 1)))."""

PARAMETERS = {"bj": ("s6", "s8", "a1", "a2"), "zero": ("s6", "s8", "rs6", "rs8", "alp")}
"""Of each damping, as the reference program names them."""


@dataclass(frozen=True)
class Hyperparameters:
    """Parameters, named as in the reference program; those of the other damping stay None.

    Attributes:
        damping: `bj` (Becke–Johnson) or `zero`.
        functional: whose parameters these are; information only.
        s6, s8: factors of the two terms.
        a1, a2: radius a1 √(C8/C6) + a2 of Becke–Johnson damping; a2 in bohr.
        rs6, rs8: factors of the radii of zero damping.
        alp: its exponent.
        cutoff: of the pairs, Å; switched off smoothly from 0.9 of it, as the next.
        cn_cutoff: of the coordination numbers, Å.
    """

    damping: Literal["bj", "zero"] = "bj"
    functional: str | None = None
    s6: float = 1.0
    s8: float = 1.0
    a1: float | None = None
    a2: float | None = None
    rs6: float | None = None
    rs8: float | None = None
    alp: float | None = None
    cutoff: float = 12.0
    cn_cutoff: float = 8.0


class Model(Foldable, Potential):
    """D3 for `elements` (symbols, in the order of the species index).

    The reference data are filled in by `initialise`, or with the state of a file.

    Raises:
        BadInput: parameters of the damping that are missing, or cutoffs that are not 0 < cn_cutoff ≤ cutoff.
    """

    covalent_radius: Tensor
    reference_cn: Tensor
    reference_c6: Tensor
    charge_radius: Tensor
    pair_radius: Tensor

    def __init__(self, elements: List[str], hyperparameters: Hyperparameters) -> None:
        h = hyperparameters
        _validate(h)
        super().__init__(h.cutoff, n_layers=2, exchange_width=N_REFERENCES)
        self.reach = h.cutoff + h.cn_cutoff
        self.elements = list(elements)
        self.hartree = EV_PER_HARTREE
        self.becke_johnson = h.damping == "bj"
        self.s8 = float(h.s8)
        self.a1, self.a2 = float(h.a1 or 0.0), float(h.a2 or 0.0)
        self.counts = PairSum("count", [A_PER_BOHR, h.cn_cutoff, ONSET, STEEPNESS])
        of_form = [h.s6] if self.becke_johnson else [h.s6, h.rs6 or 0.0, h.rs8 or 0.0, h.alp or 0.0]
        form = "becke-johnson" if self.becke_johnson else "zero"
        self.pairs = PairSum(form, [A_PER_BOHR, h.cutoff, ONSET, *of_form])
        n, m = len(elements), N_REFERENCES
        shapes = {
            "covalent_radius": [n],  # bohr, times 4/3
            "reference_cn": [n, m],
            "reference_c6": [n, n, m, m],  # Ha bohr⁶
            "charge_radius": [n],  # Q, bohr
            "pair_radius": [n, n],  # of zero damping, bohr
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.full(shape, float("nan"), dtype=torch.float64))

    @torch.jit.unused
    def initialise(self, statistics: TrainingStatistics) -> None:
        """Read the reference data of the elements.

        Raises:
            BadInput: an element without any.
            MissingDependency: tad-dftd3 is not installed.
        """
        with needed("D3", "d3"):
            from tad_dftd3.data import R4R2
            from tad_dftd3.reference import Reference
            from tad_mctc.data import COV_D3, VDW_PAIRWISE
        z = torch.tensor([atomic_number(symbol) for symbol in self.elements])
        reference = Reference(dtype=torch.float64)
        without = [e for e, k in zip(self.elements, z.tolist()) if k >= len(reference.cn)]
        if without:
            raise BadInput(f"d3: no reference data for {', '.join(without)}; leave them out (`--elements`)")
        self.covalent_radius.copy_(COV_D3(dtype=torch.float64)[z])
        self.reference_cn.copy_(reference.cn[z])
        self.reference_c6.copy_(reference.c6[z][:, z])
        self.charge_radius.copy_(R4R2(dtype=torch.float64)[z])
        radius = VDW_PAIRWISE(dtype=torch.float64)[z][:, z] * A_PER_BOHR
        # published with four decimals (Å), in the package in single precision
        self.pair_radius.copy_(torch.round(radius, decimals=4) / A_PER_BOHR)

    @torch.jit.unused
    def fold(self) -> None:
        """Leave out the columns that no element has a reference system for."""
        most = int((self.reference_cn >= 0.0).sum(dim=1).max())
        self.reference_cn = self.reference_cn[:, :most].clone()
        self.reference_c6 = self.reference_c6[:, :, :most, :most].clone()

    def forward(self, graph: Graph) -> Dict[str, Tensor]:
        present, kind = torch.unique(graph.species, return_inverse=True)  # (P,), (N,)
        n, dtype, device = graph.species.shape[0], graph.vectors.dtype, graph.vectors.device
        none = [torch.zeros(graph.n_centers, 0, dtype=dtype, device=device)]
        none.append(torch.zeros(n, present.shape[0], 0, dtype=dtype, device=device))
        radii = self.covalent_radius[present]
        cn = self.counts(graph, none, kind, (radii[:, None] + radii[None, :]).unsqueeze(2))  # (n_centers,)
        w = self.weights(cn, graph.species[: graph.n_centers])  # (n_centers, M)
        all_w = self.exchange(with_ghost_rows(w, n))  # (N, M)
        # Σ_b C6_ab w_b of every atom, for every element that is there
        tables = self.reference_c6[present].transpose(0, 1)[graph.species]  # (N, P, M, M)
        inner = torch.matmul(tables, all_w[:, None, :, None]).squeeze(3)  # (N, P, M)
        factors = [all_w[: graph.n_centers], inner]
        return {
            "energy": (-0.5 * self.hartree) * self.pairs(graph, factors, kind, self.damping(present))
        }  # eV

    def weights(self, cn: Tensor, species: Tensor) -> Tensor:
        """w_a = exp(−4 (CN − CN_a)²) / Σ_b exp(−4 (CN − CN_b)²) of each reference system, (n_centers, M)."""
        reference = self.reference_cn[species]
        exponent = -4.0 * (cn.unsqueeze(1) - reference) ** 2
        return torch.softmax(exponent.masked_fill(reference < 0.0, -float("inf")), dim=1)

    def damping(self, present: Tensor) -> Tensor:
        """Parameters of the damping of every pair of elements, (P, P, K).

        Becke–Johnson: f⁶, f⁸ with f = a1 √(C8/C6) + a2, and s8 C8/C6; zero: R and C8/C6.
        """
        q = self.charge_radius[present]
        ratio = 3.0 * q[:, None] * q[None, :]  # C8/C6
        if self.becke_johnson:
            f2 = (self.a1 * torch.sqrt(ratio) + self.a2) ** 2
            f6 = f2 * f2 * f2
            return torch.stack([f6, f6 * f2, self.s8 * ratio], dim=2)
        return torch.stack([self.pair_radius[present][:, present], self.s8 * ratio], dim=2)


def parameters(name: str, cutoff: float = Hyperparameters.cutoff) -> Dict[str, Any]:
    """Hyper-parameters of a functional and damping, e.g. `pbe-bj`, `r2scan-bj`, `revpbe-zero`.

    Args:
        name: the functional as the reference program calls it, and the damping.
        cutoff: of the pairs, Å; that of the coordination numbers is 8 Å, or this if it is shorter.

    Raises:
        BadInput: no such functional (the nearest are listed), none with this damping, a cutoff
            shorter than touching atoms or longer than anybody's.
        MissingDependency: tad-dftd3 is not installed.
    """
    functional, _, damping = name.lower().rpartition("-")
    if damping not in PARAMETERS or not functional:
        raise BadInput(f"d3 '{name}': expected a functional and its damping (bj, zero), e.g. pbe-bj")
    if not SHORTEST <= cutoff <= LONGEST:
        raise BadInput(
            f"d3: expected a cutoff of the pairs from {SHORTEST:g} to {LONGEST:g} Å (without one: "
            f"{Hyperparameters.cutoff:g} Å), got {cutoff:g} Å"
        )
    names, alias = _reference_parameters()
    functional = functional.replace("-", "")
    functional = alias.get(functional, functional)
    if functional not in names:
        raise BadInput(f"d3 '{name}': unknown functional; {nearest(functional, names)}")
    if damping not in names[functional]:
        there = ", ".join(f"{functional}-{key}" for key in names[functional] if key in PARAMETERS) or "none"
        raise BadInput(f"d3 '{name}': no parameters of this damping for {functional}; there are: {there}")
    values = names[functional][damping]
    own = {key: float(values[key]) for key in PARAMETERS[damping]}
    cutoffs = {"cutoff": cutoff, "cn_cutoff": min(cutoff, Hyperparameters.cn_cutoff)}
    return {"damping": damping, "functional": functional, **own, **cutoffs}


def functionals(text: str) -> List[str]:
    """Functionals that a name of a level of theory, a file or a head consists of, as `parameters` calls them.

    Raises:
        MissingDependency: tad-dftd3 is not installed.
    """
    names, alias = _reference_parameters()
    words = [alias.get(word, word) for word in re.split(r"[^a-z0-9]+", text.lower())]
    return [word for word in words if word in names]


def _reference_parameters() -> Tuple[Dict[str, Any], Dict[str, str]]:
    """Parameters of every functional and damping, defaults included, and other names of functionals."""
    with needed("D3", "d3"):
        folder = resources.files("tad_dftd3.param")
    data = tomllib.loads(folder.joinpath("parameters.toml").read_text(encoding="utf-8"))
    alias = tomllib.loads(folder.joinpath("aliases.toml").read_text(encoding="utf-8"))["alias"]
    default = data["default"]["parameter"]["d3"]
    names = {
        key: {damping: default.get(damping, {}) | own for damping, own in entry["d3"].items()}
        for key, entry in data["parameter"].items()
        if "d3" in entry
    }
    return names, alias


def _validate(h: Hyperparameters) -> None:
    missing = [name for name in PARAMETERS[h.damping] if getattr(h, name) is None]
    if missing:
        raise BadInput(f"d3: damping '{h.damping}' needs {', '.join(missing)}")
    if not 0.0 < h.cn_cutoff <= h.cutoff:
        raise BadInput(f"d3: expected 0 < cn_cutoff ≤ cutoff (Å), got {h.cn_cutoff:g} and {h.cutoff:g}")
