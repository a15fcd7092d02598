"""One row of `mlplugins check`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlplugins.model_file.artifact import Artifact
from mlplugins.quantities import QUANTITIES, Quantity, Results

ENERGY_UNIT, FORCE_UNIT, STRESS_UNIT = (
    QUANTITIES[name].compared_unit for name in ("energy", "forces", "stress")
)


@dataclass(frozen=True)
class Check:
    """A measured deviation and its limit.

    Attributes:
        name: what was compared.
        engine: of `engines.available()`.
        ranks: MPI ranks.
        value: deviation; NaN if it could not be measured.
        limit: largest deviation that passes.
        unit: of value and limit.
        structure: which one.
        note: why it failed and the remedy, or a detail (mode, largest deviation).
    """

    name: str
    engine: str
    ranks: int
    value: float
    limit: float
    unit: str
    structure: str = ""
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the deviation is finite and within the limit."""
        return bool(math.isfinite(self.value) and self.value <= self.limit)

    def record(self) -> dict[str, Any]:
        """As the JSON file holds it."""
        return {
            "name": self.name,
            "engine": self.engine,
            "ranks": self.ranks,
            "value": float(self.value),
            "limit": float(self.limit),
            "unit": self.unit,
            "passed": self.passed,
            "structure": self.structure,
            "note": self.note,
        }


@dataclass(frozen=True)
class Limits:
    """Limits that account for round-off, by the precision of the model.

    float64: the limits of the design. float32, with ε = 1.2e-7: the file returns per-atom energies e in
    float32 (composition baseline included), forces are sums of some hundred terms of the size of the largest
    force F: energies ε (50 eV + 2 max|e|), forces 500 ε (1 eV/Å + F), stress 500 ε (0.05 eV/Å³ + σ). A finite
    difference of energies rounded that way, over a step h, is off by ε max|e| √N / h.

    Attributes:
        energy: eV/atom, between engines and between equivalent structures.
        force: eV/Å, between engines.
        stress: eV/Å³, between engines.
        same_energy: eV/atom, between equivalent structures.
        same_force: eV/Å, between equivalent structures.
        jump_energy: eV, at the cutoff.
        jump_force: eV/Å, at the cutoff.
        drift: eV/atom/ps of a short NVE run, beside the round-off of its energies over its length.
        rounding: eV, of a total energy.
    """

    energy: float
    force: float
    stress: float
    same_energy: float
    same_force: float
    jump_energy: float
    jump_force: float
    drift: float
    rounding: float

    def same(self, quantity: Quantity, value: Any) -> float:
        """For a quantity of equivalent structures, in its `compared_unit`; `value` says how large it is."""
        others = self.same_force * max(1.0, float(np.abs(value).max()))
        own = {"energy": self.same_energy, "forces": self.same_force, "stress": min(self.stress, others)}
        return own.get(quantity.name, others)


def limits(model: Artifact, result: Results) -> Limits:
    """Limits for a model, and results of that size."""
    if model.dtype == "float64":
        return Limits(1e-8, 1e-8, 1e-8, 1e-10, 1e-10, 1e-9, 1e-7, 1e-3, 0.0)
    epsilon = float(np.finfo(np.float32).eps)
    n = len(result.forces)
    atomic = abs(result.energy) / n if result.energies is None else float(np.abs(result.energies).max())
    energy = epsilon * (50 + 2 * atomic)
    force = 500 * epsilon * (1.0 + float(np.abs(result.forces).max()))
    stress = 0.0 if result.stress is None else float(np.abs(result.stress).max())
    rounding = epsilon * (1 + atomic) * np.sqrt(n)
    return Limits(
        energy,
        force,
        500 * epsilon * (0.05 + stress),
        energy,
        force,
        3 * energy,
        force,
        1e-3,
        rounding,
    )
