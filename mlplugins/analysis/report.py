"""All results of one call of `mlplugins conductivity`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlplugins.analysis.arrhenius import ArrheniusResult
from mlplugins.analysis.comparison import Comparison
from mlplugins.analysis.numbers import measured
from mlplugins.analysis.observables.base import each_found, found_in, summaries
from mlplugins.analysis.result import RunResult


@dataclass(frozen=True)
class Report:
    """All results of one call.

    Attributes:
        assumptions: (name, value) of every setting that went into the numbers.
        warnings: everything that was dropped, assumed or doubted.
        dynamics: (name, value) of how the trajectories were made, if that is known.
        comparison: measured values and other systems.
    """

    species: str
    runs: Sequence[RunResult]
    arrhenius: ArrheniusResult | None
    warnings: Sequence[str]
    assumptions: Sequence[tuple[str, str]] = ()
    dynamics: Mapping[str, str] = field(default_factory=dict)
    comparison: Comparison = Comparison()

    @property
    def headline_note(self) -> str:
        """What the numbers of the Arrhenius line do not include."""
        notes = []
        if found_in("onsager", self.runs):
            notes.append(f"{self.species} alone")
        law = self.arrhenius
        other = law and [found for found in (law.regimes, law.vft) if found and found.significant]
        if other:
            notes.append("of one line, though another law fits better: see the warnings")
        return f" ({'; '.join(notes)})" if notes else ""

    def as_json(self) -> dict[str, object]:
        """The result of `--json`; all intervals are 95 %."""
        return {
            "species": self.species,
            "runs": [run.as_json() for run in self.runs],
            "arrhenius": self.arrhenius.as_json() if self.arrhenius else None,
            "warnings": list(self.warnings),
            **summaries(self.runs),
        }


def not_quotable(report: Report) -> str:
    """What marks the headline while warnings stand; empty without any."""
    number = len(report.warnings)
    if not number:
        return ""
    return f"Not quotable while the warning{'s' if number > 1 else ''} below stand{'' if number > 1 else 's'}"


def headline(report: Report) -> list[str]:
    """The main numbers, a line each: of the Arrhenius lines, or of one or two temperatures."""
    law = report.arrhenius
    if law is not None:
        lines = [
            f"Ea = {measured(law.activation_ev, 'eV')}",
            f"D(300 K) = {measured(law.room_d, 'cm²/s')}",
            f"σ(300 K) = {measured(law.room_sigma, 'mS/cm')}, Nernst–Einstein",
        ]
        if law.collective is not None:
            energy = measured(law.collective.activation(), "eV")
            sigma = measured(law.room_collective, "mS/cm")
            lines.append(f"σ(300 K) = {sigma}, collective, with Ea = {energy}")
        lines[-1] += report.headline_note
        return lines
    if len(report.runs) > 2:
        return []
    return [
        f"{run.temperature_k:g} K: D* = {measured(run.diffusion.tracer, 'cm²/s')}, "
        f"σ = {measured(run.sigma_tracer, 'mS/cm')} (Nernst–Einstein) and "
        f"{measured(run.sigma_collective, 'mS/cm')} (collective)"
        for run in report.runs
    ]


def observable_lines(runs: Sequence[RunResult]) -> list[str]:
    """Lines that the observables print below the table on the terminal."""
    return [line for each, run, found in each_found(runs) for line in each.lines(run, found)]
