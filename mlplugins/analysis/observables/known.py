"""Where the runs left what the model knows, and D* of what lies within."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlplugins.analysis.diffusion import diffusion
from mlplugins.analysis.markup import Cell, table
from mlplugins.analysis.numbers import DASH, Unit, measured, parts, unit_of
from mlplugins.analysis.observables.base import Observable
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.sample import Sample
from mlplugins.analysis.value import Value
from mlplugins.analysis.watched import Watched, known
from mlplugins.errors import BadInput
from mlplugins.units import FS_PER_PS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Known:
    """Runs of one temperature.

    Attributes:
        runs: those that were watched, in order.
        whole: D*, cm²/s, of all frames.
        within: D* without the stretches in which the model did not know; None: too little is left.
    """

    runs: tuple[Watched, ...]
    whole: Value
    within: Value | None

    @property
    def share(self) -> float:
        """Fraction of the time in which the model did not know."""
        return float(np.mean(np.concatenate([run.outside for run in self.runs])))

    @property
    def first_ps(self) -> float | None:
        """The earliest such moment of any run, ps; None if there is none."""
        times = [run.time_ps[run.outside] for run in self.runs]
        found = np.concatenate(times)
        return float(found.min()) if len(found) else None

    @property
    def largest(self) -> float:
        """Largest value."""
        return max(float(np.max(run.values)) for run in self.runs)

    @property
    def stopped(self) -> int:
        """Runs that were ended."""
        return sum(run.is_stopped for run in self.runs)

    def as_json(self) -> dict[str, object]:
        """The `uncertainty` entry of a temperature."""
        first = self.runs[0]
        return {
            "what": first.what,
            "unit": first.unit,
            "limit": first.limit,
            "stop_above": first.stop_above,
            "share_of_time": self.share,
            "first_ps": self.first_ps,
            "largest": self.largest,
            "runs": len(self.runs),
            "runs_stopped": self.stopped,
            "D_within_cm2_s": self.within.as_json() if self.within else None,
        }


class WhereTheModelKnows(Observable[Known]):
    """Uncertainty along the runs, and D* with and without the stretches above its limit."""

    order = 12
    keys = ("uncertainty",)

    def compute(self, sample: Sample, notes: list[str]) -> Known | None:
        """Of runs whose table is named."""
        given = sample.settings.watched
        runs = tuple(run for run in given if run is not None and len(run.values))
        if not runs:
            return None
        if len({(run.what, run.unit, run.limit) for run in runs}) > 1:
            notes.append("uncertainty: the runs were watched with different limits or by different measures")
        tracer = sample.diffusion.tracer
        if not any(run.outside.any() for run in runs):
            return Known(runs, tracer, tracer)
        return Known(runs, tracer, _within(sample, notes))

    def as_json(self, found: Known) -> dict[str, object]:
        """Shares, moments and D*."""
        return {"uncertainty": found.as_json()}

    def doubts(self, found: Known | None, sample: Sample) -> list[str]:
        """Where the model was used beyond what it knows."""
        if found is None or found.first_ps is None:
            return []
        first = found.runs[0]
        ended = f"; {found.stopped} of {len(found.runs)} runs ended there" if found.stopped else ""
        return [
            f"the {first.what} was above {first.limit:g} {first.unit} in {100 * found.share:.2g} % of the "
            f"time, first after {found.first_ps:.4g} ps (largest {found.largest:.3g}): the model was used "
            f"beyond what it knows{ended}"
        ]

    def section(self, found: Sequence[tuple[RunResult, Known]]) -> list[str]:
        """A row for each temperature."""
        values = [value for _, each in found for value in (each.whole, each.within) if value is not None]
        unit = unit_of(values, "cm²/s")
        first = found[0][1].runs[0]
        header = [
            "T (K)",
            "time outside",
            "first (ps)",
            f"largest ({first.unit})",
            "runs ended",
            unit.heads("D* of all"),
            unit.heads("D* within"),
        ]
        rows = [_row(run, each, unit) for run, each in found]
        caption = (
            f"Uncertainty along the runs: the {first.what} of the least certain atom, outside above "
            f"{first.limit:g} {first.unit}. D* within leaves out the frames between the looks beside one "
            "that was outside."
        )
        return ["<h2>Where the model knows</h2>", table(header, rows, caption, "stacked")]

    def lines(self, run: RunResult, found: Known) -> list[str]:
        """Share, first moment, and D* within."""
        first = found.runs[0]
        if found.first_ps is None:
            return [
                f"{run.temperature_k:g} K: {first.what} {found.largest:.3g} {first.unit} at most, within "
                f"{first.limit:g}"
            ]
        within = "too little is left for D*" if found.within is None else measured(found.within, "cm²/s")
        return [
            f"{run.temperature_k:g} K: {first.what} above {first.limit:g} {first.unit} in "
            f"{100 * found.share:.2g} % of the time, first after {found.first_ps:.4g} ps; D* without these "
            f"stretches: {within}"
        ]

    def figures(self, found: Sequence[tuple[RunResult, Known]]) -> dict[str, Figure]:
        """The uncertainty along the runs."""
        from mlplugins import plotting

        first = found[0][1].runs[0]
        caption = (
            f"The {first.what} of the least certain atom along the runs; dashed: the limit of what the model "
            "knows" + ("; solid: where runs end." if first.stop_above else ".")
        )
        figure = plotting.canvas(plotting.PAGE, 2.7, caption)
        axes = figure.subplots()
        for (run, each), color in zip(found, plotting.colors(len(found))):
            for number, watched in enumerate(each.runs):
                label = f"{run.temperature_k:g} K" if number == 0 else None
                axes.plot(watched.time_ps, watched.values, color=color, lw=0.8, label=label)
        axes.axhline(first.limit, color=plotting.INK, lw=0.8, ls="--")
        if first.stop_above:
            axes.axhline(first.stop_above, color=plotting.INK, lw=0.8)
        axes.set(xlabel="time (ps)", ylabel=f"largest ({first.unit})")
        axes.set_ylim(bottom=0)
        plotting.finish(axes)
        axes.legend()
        return {"uncertainty": figure}


def _within(sample: Sample, notes: list[str]) -> Value | None:
    """D* of the frames in which the model knows."""
    runs, result = sample.trajectories, sample.diffusion
    starts = [
        (each.start or 0) * run.interval_fs / FS_PER_PS for run, each in zip(runs, sample.slices, strict=True)
    ]
    if any(len(run.segments) > 1 for run in runs):
        notes.append("uncertainty: frames are missing, so that D* within is not computed")
        return None
    part = known(sample.paths, sample.settings.watched, starts)
    limits = (result.window.low_ps, result.window.high_ps) if result.window.fixed else None
    try:
        return diffusion(part, limits, sample.settings.estimator, collective=False).tracer
    except (BadInput, ValueError):  # nothing, or stretches too short for a fit
        return None


def _row(run: RunResult, each: Known, unit: Unit) -> list[Cell]:
    first = DASH if each.first_ps is None else f"{each.first_ps:.4g}"
    ended = f"{each.stopped} of {len(each.runs)}"
    share = f"{100 * each.share:.2g} %"
    values = (parts(value, unit) for value in (each.whole, each.within))
    return [f"{run.temperature_k:g}", share, first, f"{each.largest:.3g}", ended, *values]


OBSERVABLE = WhereTheModelKnows()
