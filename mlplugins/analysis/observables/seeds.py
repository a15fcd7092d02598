"""D* of each run by itself: how much it scatters between seeds, or that nothing is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlplugins.analysis.blocks import Paths
from mlplugins.analysis.diffusion import Diffusion, diffusion
from mlplugins.analysis.markup import Cell, table
from mlplugins.analysis.numbers import DASH, parts, unit_of
from mlplugins.analysis.observables.base import Observable
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.sample import Sample
from mlplugins.analysis.value import Value
from mlplugins.errors import BadInput


@dataclass(frozen=True)
class Seeds:
    """D* of every run, cm²/s, in the order of the runs; None of runs that are too short by themselves."""

    values: tuple[Value | None, ...]

    @property
    def scatter(self) -> float | None:
        """Standard deviation between runs over their mean; None with fewer than two."""
        known = [value.value for value in self.values if value is not None]
        if len(known) < 2 or np.mean(known) <= 0:
            return None
        return float(np.std(known, ddof=1) / np.mean(known))


class ScatterBetweenSeeds(Observable[Seeds]):
    """Each run is analysed as all together are."""

    order = 15
    keys = ("D_of_each_run_cm2_s", "scatter_between_runs")

    def compute(self, sample: Sample, notes: list[str]) -> Seeds:
        """One value for each run; of a single run that of the temperature."""
        tracer, paths = sample.diffusion.tracer, sample.paths
        if len(paths.displacements) == 1:
            return Seeds((tracer,))
        return Seeds(tuple(_of_run(paths, k, sample.diffusion) for k in range(len(paths.displacements))))

    def as_json(self, found: Seeds) -> dict[str, object]:
        """Values in the order of the runs, and their standard deviation over their mean."""
        each = [value.as_json() if value else None for value in found.values]
        return dict(zip(self.keys, (each, found.scatter)))

    def section(self, found: Sequence[tuple[RunResult, Seeds]]) -> list[str]:
        """A row for each temperature with several runs; what is missing at the others."""
        single = [f"{run.temperature_k:g} K" for run, each in found if len(each.values) == 1]
        several = [(run, each) for run, each in found if len(each.values) > 1]
        texts = ["<h2>Scatter between seeds</h2>"]
        if several:
            texts.append(_table(several))
        if single:
            which = "every temperature" if len(single) == len(found) else ", ".join(single)
            texts.append(
                f"<p>One run at {which}: the scatter between seeds is not known there. The intervals come "
                "from blocks of time and from the ions of that run, and cannot see what a run never left, "
                "such as one arrangement of a disordered structure.</p>"
            )
        return texts


def _table(found: Sequence[tuple[RunResult, Seeds]]) -> str:
    unit = unit_of((value for _, each in found for value in each.values), "cm²/s")
    header = ["T (K)", "runs", unit.heads("lowest D*"), unit.heads("highest D*"), "scatter"]
    rows: list[list[Cell]] = []
    for run, each in found:
        known = sorted((value for value in each.values if value is not None), key=lambda value: value.value)
        ends = (known[0], known[-1]) if known else (None, None)
        scatter = DASH if each.scatter is None else f"{100 * each.scatter:.2g} %"
        size = f"{len(known)} of {len(each.values)}" if len(known) < len(each.values) else str(len(known))
        rows.append([f"{run.temperature_k:g}", size, *(parts(value, unit) for value in ends), scatter])
    caption = "D* of each run by itself; scatter: standard deviation between the runs over their mean."
    return table(header, rows, caption)


def _of_run(paths: Paths, run: int, whole: Diffusion) -> Value | None:
    own = Paths([paths.displacements[run]], [paths.segments[run]], paths.interval_fs)
    window = (whole.window.low_ps, whole.window.high_ps) if whole.window.fixed else None
    try:
        return diffusion(own, window, whole.estimator, collective=False).tracer
    except BadInput:  # too short by itself
        return None


OBSERVABLE = ScatterBetweenSeeds()
