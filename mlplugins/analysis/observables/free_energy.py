"""Free-energy volume −kT ln ρ of the mobile ions: the lowest percolating path along each cell vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlplugins.analysis.landscape import AXES, Landscape, PathBarrier, Positions, landscape
from mlplugins.analysis.markup import Cell, table
from mlplugins.analysis.numbers import DASH, measured, parts, significant
from mlplugins.analysis.observables.base import Cite, Observable
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.sample import Sample
from mlplugins.analysis.written import csv_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEWEST_SEEN = 10.0
"""Ions seen at a bottleneck below which its barrier is only about right."""


class FreeEnergy(Observable[Landscape]):
    """From all positions of all runs."""

    order = 84
    keys = ("free_energy",)
    files = ("free_energy.csv",)

    def compute(self, sample: Sample, notes: list[str]) -> Landscape | None:
        """None without positions, periodic cell or framework, as for the sites."""
        positions = Positions(sample.trajectories, sample.paths, sample.slices)
        return landscape(positions, sample.temperature_k) if positions.frames else None

    def as_json(self, found: Landscape) -> dict[str, object]:
        """Grid, and barrier and path of each axis."""
        return {
            "free_energy": {
                "spacing_A": found.spacing_a.tolist(),
                "smoothing_A": found.width_a,
                "unseen_above_eV": found.unseen_ev,
                "barriers": {axis: _entry(each) for axis, each in zip(AXES, found.barriers)},
            }
        }

    def tables(self, found: Sequence[tuple[RunResult, Landscape]]) -> dict[str, str]:
        """The paths."""
        head = ["T_K", "axis", "distance_A", "x", "y", "z", "free_energy_eV"]
        lines = [
            [f"{run.temperature_k:g}", axis, *(f"{value:.6g}" for value in (distance, *place, energy))]
            for run, each in found
            for axis, barrier in zip(AXES, each.barriers)
            if barrier is not None
            for distance, place, energy in zip(barrier.distance_a, barrier.fractions, barrier.energy_ev)
        ]
        return {"free_energy.csv": csv_table(head, lines)}

    def section(self, found: Sequence[tuple[RunResult, Landscape]]) -> list[str]:
        """A row for each axis at each temperature."""
        header = ["T (K)", "along", "barrier (eV)", "length (Å)", "displaced by"]
        header += ["seen at the bottleneck", "smoothed by (Å)"]
        rows: list[list[Cell]] = []
        for run, each in found:
            for axis, barrier in zip(AXES, each.barriers):
                start = [f"{run.temperature_k:g}", axis]
                if barrier is None:
                    limit = f"> {significant(each.unseen_ev)}"
                    rows.append([*start, limit, DASH, DASH, "0", DASH])
                    continue
                shown = parts(barrier.value)
                if mark := _mark(barrier, each):
                    shown = (f"{mark} {shown[0]}", shown[1])
                rows.append(
                    [
                        *start,
                        shown,
                        f"{barrier.distance_a[-1]:.1f}",
                        "(" + " ".join(f"{number:d}" for number in barrier.winding) + ")",
                        f"{barrier.seen:.0f}",
                        f"{barrier.width_a:.2f}",
                    ]
                )
        first = found[0][1]
        edges = " × ".join(f"{edge:.3f}" for edge in first.spacing_a)
        caption = (
            f"Lowest percolating paths of −kT ln ρ (voxels of {edges} Å, barriers extrapolated to no "
            "smoothing): highest over lowest point of the path, which ends at an image of its start moved "
            "by so many cells. “Smoothed”: ions were seen too seldom for a path with less smoothing, which "
            "lowers barriers, so that only the lower end of the interval is a limit; “about”: seen at the "
            f"bottleneck fewer than {FEWEST_SEEN:.0f} times."
        )
        return ["<h2>Free energy and percolating paths</h2>", table(header, rows, caption)]

    def figures(self, found: Sequence[tuple[RunResult, Landscape]]) -> dict[str, Figure]:
        """Projections at the middle temperature, and the free energy along the paths."""
        return {"free_energy": _figure(found)}

    def sentence(self, found: Sequence[tuple[RunResult, Landscape]], cite: Cite) -> str:
        """What a barrier is."""
        first = found[0][1]
        return (
            f"Free energies are −kT ln ρ of the ions' density on a grid of {first.spacing_a.max():.2f} Å; "
            "the barrier along a cell vector is that of the path to its own image displaced along it whose "
            "highest point is lowest, with errors from blocks of time."
        )

    def lines(self, run: RunResult, found: Landscape) -> list[str]:
        """The barriers."""
        texts = []
        for axis, each in zip(AXES, found.barriers):
            shown = f"> {significant(found.unseen_ev)} eV"
            if each is not None:
                shown = f"{_mark(each, found)} {measured(each.value, 'eV')}".lstrip()
            texts.append(f"{axis} {shown}")
        return [f"{run.temperature_k:g} K: lowest percolating barriers along {', '.join(texts)}"]


def _mark(barrier: PathBarrier, found: Landscape) -> str:
    """What to say of a barrier that is no plain number."""
    if barrier.width_a > found.width_a:
        return "smoothed"
    return "about" if barrier.seen < FEWEST_SEEN else ""


def _entry(found: PathBarrier | None) -> dict[str, object] | None:
    if found is None:
        return None
    return {
        "barrier_eV": found.value.as_json(),
        "length_A": float(found.distance_a[-1]),
        "winding": list(found.winding),
        "smoothing_A": found.width_a,
        "n_seen_at_bottleneck": found.seen,
    }


def _figure(found: Sequence[tuple[RunResult, Landscape]]) -> Figure:
    from mlplugins import plotting

    run, middle = found[len(found) // 2]
    caption = (
        f"Free energy of {run.species}. (a–c) At {run.temperature_k:g} K, the lowest along the line of "
        "sight, with the lowest percolating paths (lines); white: no ion was seen there. (d) Along these "
        "paths, from their lowest point to its image, as smoothed."
    )
    figure = plotting.canvas(plotting.PAGE, 4.6, caption)
    shown = figure.subplot_mosaic([["ab", "ac", "bc"], ["way", "way", "way"]], height_ratios=(1.5, 1.0))
    top = max((float(each.energy_ev.max()) for each in middle.barriers if each), default=0.0)
    limit = 1.3 * top if top > 0 else float(middle.energy_ev[np.isfinite(middle.energy_ev)].max())
    for name, (first, second, away) in (("ab", (0, 1, 2)), ("ac", (0, 2, 1)), ("bc", (1, 2, 0))):
        picture = _projection(shown[name], middle, (first, second, away), limit)
    figure.colorbar(
        picture, ax=[shown["ab"], shown["ac"], shown["bc"]], label="free energy (eV)", shrink=0.85
    )
    for (each, surface), color in zip(found, plotting.colors(len(found))):
        for axis, barrier, style in zip(AXES, surface.barriers, ("-", "--", ":")):
            if barrier is not None:
                label = f"{each.temperature_k:g} K, {axis}"
                shown["way"].plot(barrier.distance_a, barrier.energy_ev, style, color=color, label=label)
    shown["way"].set(xlabel="distance along the path (Å)", ylabel="free energy (eV)", ylim=(0, None))
    if shown["way"].get_legend_handles_labels()[1]:
        figure.legend(loc="outside lower center", ncols=6)
    plotting.finish(shown["way"])
    plotting.letters(list(shown.values()))
    return figure


def _projection(axes: Any, found: Landscape, chosen: tuple[int, int, int], limit: float) -> Any:
    """Lowest free energy along one cell vector, in fractions of the other two, with the paths."""
    from mlplugins import plotting

    first, second, away = chosen
    lowest = found.energy_ev.min(axis=away)
    picture = axes.imshow(
        np.where(np.isfinite(lowest), lowest, np.nan).T,
        origin="lower",
        extent=(0, 1, 0, 1),
        vmin=0.0,
        vmax=limit,
        cmap="viridis_r",
        interpolation="nearest",
    )
    lengths = np.linalg.norm(found.cell, axis=1)
    axes.set_aspect(lengths[second] / lengths[first])
    for barrier, color in zip(found.barriers, (plotting.ORANGE, plotting.PURPLE, plotting.INK)):
        if barrier is not None:
            axes.plot(*_folded(barrier.fractions[:, [first, second]]), color=color, lw=1.0)
    axes.set(xlabel=f"along {AXES[first]}", ylabel=f"along {AXES[second]}", xlim=(0, 1), ylim=(0, 1))
    return picture


def _folded(line: Any) -> tuple[Any, Any]:
    """A line folded back into the cell, interrupted where it leaves it."""
    inside = line % 1.0
    jumps = (np.abs(np.diff(inside, axis=0)) > 0.5).any(axis=1)
    broken = np.insert(inside, np.flatnonzero(jumps) + 1, np.nan, axis=0)
    return broken[:, 0], broken[:, 1]


OBSERVABLE = FreeEnergy()
