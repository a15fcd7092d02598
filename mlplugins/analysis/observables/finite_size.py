"""Finite-size correction of D in liquids: D(∞) = D(L) + ξ k T/(6 π η L), ξ = 2.837297 for a cubic cell.

I.-C. Yeh, G. Hummer, J. Phys. Chem. B 108, 15873 (2004). It is hydrodynamic: for liquids with their own
momentum, not for ions in a crystal that stands still.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlplugins.analysis.numbers import measured
from mlplugins.analysis.observables.base import Cite, Observable
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.sample import MELTED_A, Sample
from mlplugins.analysis.value import Value
from mlplugins.errors import BadInput
from mlplugins.units import stokes_cm2_s

XI_CUBIC = 2.837297


class InfiniteCell(Observable[Value]):
    """D* of a liquid in an infinite cell, cm²/s, where its viscosity is given."""

    order = 70
    keys = ("D_infinite_cm2_s",)
    references = {"size": "I.-C. Yeh, G. Hummer, J. Phys. Chem. B 108, 15873 (2004), 10.1021/jp0477147."}

    def compute(self, sample: Sample, notes: list[str]) -> Value | None:
        """D* + the shift; BadInput where a framework stands still."""
        viscosity, d = sample.settings.viscosity_mpa_s, sample.diffusion.tracer
        if viscosity is None:
            return None
        moved = list(sample.framework_rms_a.values())
        if moved and max(moved) <= MELTED_A:
            raise BadInput(
                "--viscosity: the finite-size correction is hydrodynamic and holds for liquids; "
                f"this trajectory has a framework that stands still ({max(moved):.2g} Å rms at the end)"
            )
        if not np.isfinite(sample.volume_a3) or sample.accelerates:
            return None
        shift = yeh_hummer(sample.temperature_k, viscosity, sample.volume_a3)
        error = d.relative_error * d.value / (d.value + shift)
        return Value(d.value + shift, d.low + shift, d.high + shift, error)

    def as_json(self, found: Value) -> dict[str, object]:
        """With its interval."""
        return {"D_infinite_cm2_s": found.as_json()}

    def checks(self, run: RunResult, found: Value) -> list[tuple[str, str]]:
        """The corrected value."""
        return [(f"D* in an infinite cell, {run.temperature_k:g} K", measured(found, "cm²/s"))]

    def sentence(self, found: Sequence[tuple[RunResult, Value]], cite: Cite) -> str:
        """States the correction."""
        return f"D was corrected for the finite size of the cell {cite('size')}."


def yeh_hummer(temperature_k: float, viscosity: float, volume_a3: float) -> float:
    """What to add to D, cm²/s, with L the cube root of the volume and the viscosity in mPa s.

    >>> round(1e5 * yeh_hummer(298.0, 0.89, 30.0**3), 4)  # water in a box of 30 Å
    0.2319
    """
    if not viscosity > 0:
        raise BadInput(f"viscosity {viscosity:g} mPa s; expected a positive number")
    return XI_CUBIC * stokes_cm2_s(temperature_k, viscosity, volume_a3 ** (1 / 3))


OBSERVABLE = InfiniteCell()
