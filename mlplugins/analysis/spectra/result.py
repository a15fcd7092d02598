"""Spectra of one kind and what they are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mlplugins.analysis.readers._text import Floats
from mlplugins.analysis.spectra.experiment import Experiment
from mlplugins.analysis.spectra.kinds import Conditions, SpectrumKind
from mlplugins.analysis.spectra.peaks import Peak


class Ratio(NamedTuple):
    """Depolarisation ratio VH/VV (F,) and its standard error; NaN where there is no intensity."""

    value: Floats
    error: Floats


@dataclass(frozen=True)
class Spectrum:
    """Spectra of one kind.

    Attributes:
        kind: of `KINDS`.
        per_cm: (F,) wave numbers, cm⁻¹.
        curves: (F,) by name, the main one first.
        errors: (F,) standard errors, likewise; NaN of a single block.
        ratio: depolarisation ratio of Raman spectra.
        integral, integral_error: of the main curve over all frequencies.
        runs: integral of each run.
        peaks: of the main curve.
        axis, unit, integral_unit: name and units of the curves.
        width_cm: of a line, at half of its height.
        blocks: from which the errors come, and `blocks_of`: what they are.
        state: temperature, volume, interval, correction.
        low_cm, high_cm: what figures and tables show.
        length_ps: of each run.
    """

    kind: SpectrumKind
    per_cm: Floats
    curves: dict[str, Floats]
    errors: dict[str, Floats]
    ratio: Ratio | None
    integral: float
    integral_error: float
    runs: tuple[float, ...]
    peaks: tuple[Peak, ...]
    axis: str
    unit: str
    integral_unit: str
    width_cm: float
    blocks: int
    blocks_of: str
    state: Conditions
    low_cm: float
    high_cm: float
    length_ps: tuple[float, ...]
    experiment: Experiment | None
    assumptions: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]

    @property
    def main(self) -> Floats:
        """The first curve."""
        return next(iter(self.curves.values()))

    @property
    def main_error(self) -> Floats:
        """Its standard error."""
        return next(iter(self.errors.values()))

    def as_json(self) -> dict[str, object]:
        """The result of `--json`; errors are standard errors."""
        shown = (self.per_cm >= self.low_cm) & (self.per_cm <= self.high_cm)
        return {
            "kind": self.kind.name,
            "unit": self.unit,
            "integral_unit": self.integral_unit,
            "integral": {"value": self.integral, "error": self.integral_error},
            "integral_runs": list(self.runs),
            "peaks": [peak.as_json() for peak in self.peaks],
            "wavenumber_cm-1": self.per_cm[shown],
            "curves": {
                name: {"value": values[shown], "error": self.errors[name][shown]}
                for name, values in self.curves.items()
            },
            "depolarisation": self.ratio
            and {"value": self.ratio.value[shown], "error": self.ratio.error[shown]},
            "width_cm-1": self.width_cm,
            "blocks": self.blocks,
            "blocks_of": self.blocks_of,
            "temperature_K": self.state.temperature_k,
            "volume_A3": self.state.volume_a3,
            "interval_fs": self.state.interval_fs,
            "correction": self.state.correction,
            "length_ps": list(self.length_ps),
            "assumptions": dict(self.assumptions),
            "warnings": list(self.warnings),
        }
