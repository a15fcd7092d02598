"""Hops between sites, residence times, and the correlation factor f = D*/D_jump."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlplugins.analysis import passage
from mlplugins.analysis.markup import Cell, table
from mlplugins.analysis.numbers import parts, significant, unit_of
from mlplugins.analysis.observables.base import Cite, Observable
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.sample import Sample
from mlplugins.analysis.sites import Hops, pooled
from mlplugins.units import FS_PER_PS


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
        found = sample.visits
        if found.failed:
            runs = len(sample.trajectories)
            share = f" of {len(found.failed)} of {runs} runs" if found.stretches else ""
            notes.append(f"no hop statistics{share}: {found.failed[0]}")
        if not found.stretches:
            return None
        hops = pooled([each.hops for each in found.stretches])
        jump = hops.jump_diffusion_cm2_s.value
        factor = sample.diffusion.tracer.value / jump if hops.count and jump else None
        passages = [each.passage for each in found.stretches]
        kappa = passage.kappa(passages, sample.mass_u, sample.temperature_k, FS_PER_PS * found.interval_ps)
        return Hopping(hops, factor, kappa)

    def doubts(self, found: Hopping | None, sample: Sample) -> list[str]:
        """A time between frames that the hops do not fit."""
        if found is None:
            return []
        interval_fs = FS_PER_PS * sample.visits.interval_ps
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


OBSERVABLE = HopsBetweenSites()
