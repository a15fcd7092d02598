"""How D and σ settle with the length of the trajectory: each part is analysed as the whole is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlplugins.analysis.blocks import Paths
from mlplugins.analysis.diffusion import Diffusion, diffusion
from mlplugins.analysis.observables.base import Observable
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.sample import Sample
from mlplugins.analysis.value import Value
from mlplugins.errors import BadInput

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = 8
LEGEND_COLUMNS = 6
SHORTEST = 1.5
"""Least length of a part in units of the longest fitted lag."""


@dataclass(frozen=True)
class Convergence:
    """D* and D_σ (cm²/s) from the first `share` of every run; only shares long enough for the fit."""

    shares: tuple[float, ...]
    lengths_ps: tuple[float, ...]
    tracer: tuple[Value, ...]
    collective: tuple[Value | None, ...]

    @property
    def settled(self) -> bool:
        """Whether the last half changes D* by less than its interval."""
        if len(self.tracer) < 2:
            return False
        last = self.tracer[-1]
        late = [value for share, value in zip(self.shares, self.tracer) if share >= 0.5]
        return all(last.low <= value.value <= last.high for value in late)

    def as_json(self) -> dict[str, object]:
        """The `convergence` entry of a run."""
        return {
            "length_ps": list(self.lengths_ps),
            "D_cm2_s": [value.as_json() for value in self.tracer],
            "D_collective_cm2_s": [value.as_json() if value else None for value in self.collective],
            "settled": self.settled,
        }


class ConvergenceWithLength(Observable[Convergence]):
    """D* and D_σ of growing parts of the runs, and their figure."""

    order = 50
    keys = ("convergence",)

    def compute(self, sample: Sample, notes: list[str]) -> Convergence:
        """Apply the estimator of the whole trajectory to parts of it."""
        collective = sample.collective is not None
        return convergence(sample.paths, sample.diffusion, sample.settings.estimator, collective)

    def as_json(self, found: Convergence) -> dict[str, object]:
        """Lengths and values."""
        return {"convergence": found.as_json()}

    def doubts(self, found: Convergence | None, sample: Sample) -> list[str]:
        """Where D* has not settled."""
        if found is None or found.settled or len(found.tracer) < 2:
            return []
        return ["D still changes with the length of the trajectory by more than its interval; run longer"]

    def figures(self, found: Sequence[tuple[RunResult, Convergence]]) -> dict[str, Figure]:
        """D* and D_σ against the length of the trajectory."""
        from mlplugins import plotting

        shown = [(run, path) for run, path in found if len(path.tracer) > 1]
        if not shown:
            return {}
        caption = (
            "(a) D* and (b) collective D of growing parts of the runs, by the fit of the whole; bands: 95 % "
            "intervals."
        )
        figure = plotting.canvas(plotting.PAGE, 2.7, caption)
        left, right = figure.subplots(1, 2, sharex=True)
        for (run, path), color in zip(shown, plotting.colors(len(shown))):
            _converging(left, path.lengths_ps, path.tracer, color, f"{run.temperature_k:g} K")
            _converging(right, path.lengths_ps, path.collective, color, "")
        left.set(xlabel="length used (ps)", ylabel="D* (cm²/s)", yscale="log")
        right.set(xlabel="length used (ps)", ylabel="collective D (cm²/s)", yscale="log")
        for axes in (left, right):
            plotting.finish(axes)
        plotting.letters([left, right])
        figure.legend(loc="outside upper center", ncols=min(len(shown), LEGEND_COLUMNS))
        return {"convergence": figure}


def convergence(
    paths: Paths, result: Diffusion, estimator: str = "gls", collective: bool = True
) -> Convergence:
    """Repeat the fit with growing parts of the runs.

    Args:
        paths: all runs of a temperature.
        result: the fit of the whole; a window given by the user is kept.
        estimator: `gls` or `ols`.
        collective: whether D_σ is defined.
    """
    window = (result.window.low_ps, result.window.high_ps)
    frame_ps = paths.interval_fs / 1000.0
    needed = SHORTEST * window[1] / frame_ps
    limits = window if result.window.fixed else None
    rows = []
    for share in np.arange(1, PARTS + 1) / PARTS:
        part = _first(paths, float(share))
        if share < 1 and part.longest < needed:
            continue
        try:
            found = diffusion(part, limits, estimator, collective)
        except BadInput:  # too short for the window
            continue
        length = sum(stop - start for _, (start, stop) in part.stretches(0)) * frame_ps
        rows.append((float(share), length, found.tracer, found.collective))
    shares, lengths, tracer, both = zip(*rows) if rows else ((), (), (), ())
    return Convergence(shares, lengths, tracer, both)


def _first(paths: Paths, share: float) -> Paths:
    segments = []
    for run, parts in zip(paths.displacements, paths.segments):
        last = round(len(run) * share)
        cut = [(start, min(stop, last)) for start, stop in parts if min(stop, last) - start >= 2]
        segments.append(tuple(cut) or ((0, min(2, len(run))),))
    return Paths(paths.displacements, segments, paths.interval_fs)


def _converging(
    axes: Any, lengths: Sequence[float], values: Sequence[Value | None], color: Any, label: str
) -> None:
    known = [(x, value) for x, value in zip(lengths, values) if value is not None and value.value > 0]
    if not known:
        return
    x = np.array([point for point, _ in known])
    middle, low, high = (
        np.array([getattr(value, name) for _, value in known]) for name in ("value", "low", "high")
    )
    axes.fill_between(
        x, np.maximum(low, 0.05 * middle), np.minimum(high, 20 * middle), color=color, alpha=0.15, lw=0
    )
    axes.plot(x, middle, "o-", color=color, ms=3, label=label or None)


OBSERVABLE = ConvergenceWithLength()
