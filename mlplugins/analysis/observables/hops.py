"""Hops between sites, residence times, and the correlation factor f = D*/D_jump."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis import passage
from mlplugins.analysis.markup import Cell, table
from mlplugins.analysis.numbers import parts, significant, unit_of
from mlplugins.analysis.observables.base import Cite, Observable
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.sample import Sample
from mlplugins.analysis.sites import (
    ASSIGNED_AT_ONCE,
    Hops,
    Sites,
    assign,
    find_sites,
    hop_statistics,
    pooled,
)
from mlplugins.analysis.trajectory import Trajectory
from mlplugins.errors import BadInput

Floats = NDArray[np.float64]
HOP_SPACING_FS = 100.0
POINTS = 1_000_000
"""Ion positions that sites are found from: longer runs are thinned for that."""


@dataclass(frozen=True)
class Hopping:
    """Hops of all runs, f = D*/D_jump (None where there is no hop), and the transmission coefficient."""

    hops: Hops
    correlation_factor: float | None
    kappa: float | None = None


class HopsBetweenSites(Observable[Hopping]):
    """Hops of all runs together; sites are given, or found in each run separately."""

    order = 80
    keys = ("hops", "correlation_factor")

    def compute(self, sample: Sample, notes: list[str]) -> Hopping | None:
        """Assign ions to sites at about 0.1 ps per frame and count their hops."""
        found = _hops(sample, notes)
        if not found:
            return None
        hops = pooled([each for each, _ in found])
        jump = hops.jump_diffusion_cm2_s.value
        factor = sample.diffusion.tracer.value / jump if hops.count and jump else None
        interval_fs = sample.paths.interval_fs * _every(sample)
        kappa = passage.kappa([each for _, each in found], sample.species, sample.temperature_k, interval_fs)
        return Hopping(hops, factor, kappa)

    def doubts(self, found: Hopping | None, sample: Sample) -> list[str]:
        """A time between frames that the hops do not fit."""
        if found is None:
            return []
        interval_fs = sample.paths.interval_fs * _every(sample)
        return passage.doubt(found.kappa, sample.species, sample.temperature_k, interval_fs)

    def as_json(self, found: Hopping) -> dict[str, object]:
        """Hops and f."""
        return {"hops": found.hops.as_json(), "correlation_factor": found.correlation_factor}

    def section(self, found: Sequence[tuple[RunResult, Hopping]]) -> list[str]:
        """A row for each temperature."""
        rate = unit_of((each.hops.rate_per_ps for _, each in found), "ps⁻¹")
        time = unit_of((each.hops.residence_ps for _, each in found), "ps")
        header = ["T (K)", "sites", "hops", "straight back", rate.heads("rate per ion")]
        header += [time.heads("residence"), "mean length (Å)", "f"]
        rows: list[list[Cell]] = []
        for run, each in found:
            hops, factor = each.hops, each.correlation_factor
            back = f"{100 * hops.reversed_ / hops.count:.0f} %" if hops.count else "–"
            rows.append(
                [
                    f"{run.temperature_k:g}",
                    str(hops.sites),
                    str(hops.count),
                    back,
                    parts(hops.rate_per_ps, rate),
                    parts(hops.residence_ps, time),
                    f"{hops.length_a:.2f}",
                    significant(factor) if factor is not None else "–",
                ]
            )
        caption = "Hops between sites; f = D*/D of uncorrelated hops."
        return ["<h2>Hops between sites</h2>", table(header, rows, caption)]

    def checks(self, run: RunResult, found: Hopping) -> list[tuple[str, str]]:
        """The time between frames, with whose inverse D and σ go."""
        text = _times(run, found)
        return [(f"time between frames, {run.temperature_k:g} K", text)] if text else []

    def lines(self, run: RunResult, found: Hopping) -> list[str]:
        """What the hops say of the time between frames."""
        text = _times(run, found)
        return [f"{run.temperature_k:g} K, time between frames: {text}"] if text else []

    def sentence(self, found: Sequence[tuple[RunResult, Hopping]], cite: Cite) -> str:
        """The definition of a hop."""
        return (
            "Hops are transitions between the cores of sites (maxima of the ions' density); residence "
            "times are time per departure, over all runs. The van Hove functions are of the longest stretch "
            "of the first run."
        )


def _times(run: RunResult, found: Hopping) -> str:
    times = passage.allowed(found.kappa, run.interval_fs)
    if times is None or found.kappa is None:
        return ""
    return (
        f"{run.interval_fs:.4g} fs was taken; the hops allow {significant(times[0])} to "
        f"{significant(times[1])} fs (transmission coefficient {significant(found.kappa)}, 0.05 to 1 in "
        "crystals)"
    )


def _every(sample: Sample) -> int:
    return max(1, int(HOP_SPACING_FS / sample.paths.interval_fs))


def _hops(sample: Sample, notes: list[str]) -> list[tuple[Hops, passage.Passage]]:
    found: list[tuple[Hops, passage.Passage]] = []
    failed: list[str] = []
    paths, runs = sample.paths, sample.trajectories
    every = _every(sample)
    for run, part, segments in zip(runs, sample.slices, paths.segments):
        if run.start is None or run.cell is None or not run.framework_rms:
            continue
        moved = run.displacements[part]
        rows = [moved[start:stop:every] for start, stop in segments if (stop - start) // every > 1]
        if not rows:
            failed.append(f"the run is shorter than two frames {HOP_SPACING_FS:g} fs apart")
            continue
        try:
            sites = _sites(rows, run, sample.settings.sites)
        except BadInput as error:
            failed.append(str(error))
            continue
        found += [_hops_of(row, run.start, sites, paths.interval_fs * every) for row in rows]
    if failed:
        share = f" of {len(failed)} of {len(runs)} runs" if found else ""
        notes.append(f"no hop statistics{share}: {failed[0]}")
    return found


def _sites(rows: Sequence[Floats], run: Trajectory, given: Floats | None) -> Sites:
    if run.start is None or run.cell is None:
        raise BadInput("no positions of the ions, or no cell")
    if given is not None:
        return Sites(given, run.cell)
    thin = max(1, sum(len(row) for row in rows) * run.n_ions // POINTS)
    return find_sites(np.concatenate([row[::thin] for row in rows]) + run.start, run.cell)


def _hops_of(row: Floats, start: Floats, sites: Sites, interval_fs: float) -> tuple[Hops, passage.Passage]:
    """Hops of one stretch, some ions at a time, and what is between sites."""
    size = max(1, ASSIGNED_AT_ONCE // len(row))
    groups = [slice(first, first + size) for first in range(0, row.shape[1], size)]
    states = np.concatenate([assign(row[:, group] + start[group], sites) for group in groups], axis=1)
    return hop_statistics(states, sites, interval_fs), passage.passage(row, start, states, sites)


OBSERVABLE = HopsBetweenSites()
