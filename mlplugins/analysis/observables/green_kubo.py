"""σ by Green–Kubo from velocities or a charge current: an independent check of the Einstein form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlplugins.analysis.current import green_kubo_of
from mlplugins.analysis.green_kubo import GreenKubo
from mlplugins.analysis.numbers import measured
from mlplugins.analysis.observables.base import Cite, Observable
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.sample import Sample
from mlplugins.errors import BadInput


class GreenKuboCheck(Observable[GreenKubo]):
    """σ by Green–Kubo, if a file of the current is given."""

    order = 60
    keys = ("green_kubo",)
    references = {"kubo": "R. Kubo, J. Phys. Soc. Jpn. 12, 570 (1957), 10.1143/JPSJ.12.570."}

    def compute(self, sample: Sample, notes: list[str]) -> GreenKubo | None:
        """From the source in the settings; BadInput without a volume."""
        source = sample.settings.current
        if source is None:
            return None
        if not np.isfinite(sample.volume_a3):
            raise BadInput(
                "green_kubo: σ needs the volume of the material, which this run has not; give --volume"
            )
        return green_kubo_of(source, sample.volume_a3, sample.temperature_k)

    def as_json(self, found: GreenKubo) -> dict[str, object]:
        """σ and where the integral was read."""
        return {"green_kubo": found.as_json()}

    def doubts(self, found: GreenKubo | None, sample: Sample) -> list[str]:
        """Why not to trust the integral."""
        return list(found.warnings) if found else []

    def checks(self, run: RunResult, found: GreenKubo) -> list[tuple[str, str]]:
        """σ and why it was read there."""
        text = f"{measured(found.sigma, 'mS/cm')} at {found.plateau_ps:.3g} ps ({found.reason})"
        return [(f"Green–Kubo σ, {run.temperature_k:g} K", text)]

    def sentence(self, found: Sequence[tuple[RunResult, GreenKubo]], cite: Cite) -> str:
        """States that it was computed."""
        return f"The Green–Kubo integral of the charge current {cite('kubo')} served as a check."


OBSERVABLE = GreenKuboCheck()
