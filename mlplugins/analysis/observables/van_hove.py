"""Van Hove functions of the mobile ions: where an ion is after a time t, and where the others are.

Self part: 4πr² G_s(r, t), the distribution of the distance an ion has travelled; peaks at r > 0 are hops.
Distinct part: G_d(r, t)/ρ, the density of other ions at r from where an ion was a time t ago; 1 far away, a
peak at r = 0 that grows with t says that an ion takes the place of another (concerted hops).
L. van Hove, Phys. Rev. 95, 249 (1954).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis.observables.base import Observable
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.sample import Sample
from mlplugins.units import FS_PER_PS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
HISTOGRAM = 10
"""Hops from which on their lengths are drawn."""
PAIRS = 1_500_000
"""Distances per lag, and at once: origins, and the ions looked from, are thinned to stay below."""
LAGS = (0.25, 1.0, 4.0)
"""Lags in units of the time to travel a hop."""


@dataclass(frozen=True)
class VanHove:
    """Histograms over distance.

    Attributes:
        radius_a: centres of the bins, Å.
        lags_ps: (T,).
        self_part: 4πr² G_s in 1/Å, (T, bins); the integral over r is 1 if the bins reach far enough.
        distinct_part: G_d/ρ, (T, bins); empty where the cell is not known.
    """

    radius_a: Floats
    lags_ps: Floats
    self_part: Floats
    distinct_part: Floats


class VanHoveFunctions(Observable[VanHove]):
    """From the longest stretch of the first run; the figure also shows the hop lengths."""

    order = 90

    def compute(self, sample: Sample, notes: list[str]) -> VanHove:
        """At a quarter of, once and four times the time to travel a hop."""
        run, paths, curve = sample.trajectories[0], sample.paths, sample.curve
        start, stop = max(paths.segments[0], key=lambda part: part[1] - part[0])
        length = stop - start
        hop_ps = float(np.interp(sample.settings.hop_length_a**2, curve.tracer, curve.time_ps))
        lags = [round(factor * hop_ps * FS_PER_PS / paths.interval_fs) for factor in LAGS]
        lags = sorted({int(np.clip(lag, 1, length // 2)) for lag in lags})
        moved = paths.displacements[0][start:stop]
        return van_hove(moved, lags, paths.interval_fs, run.start, run.cell)

    def figures(self, found: Sequence[tuple[RunResult, VanHove]]) -> dict[str, Figure]:
        """Figure for the middle temperature."""
        from mlplugins import plotting

        run, functions = found[len(found) // 2]
        hopping = run.observables.get("hops")
        hops = hopping.hops if hopping and hopping.hops.count >= HISTOGRAM else None
        shown = {"own": "self part of the van Hove function after the times in the legend"}
        if len(functions.distinct_part):
            shown["other"] = "its distinct part"
        if hops is not None:
            shown["hops"] = f"lengths of the {hops.count} hops between sites"
        caption = "; ".join(f"({letter}) {text}" for letter, text in zip("abc", shown.values()))
        caption = f"Motion at {run.temperature_k:g} K: {caption}."
        figure = plotting.canvas(plotting.PAGE * len(shown) / 3, 2.3, caption)
        panels = figure.subplot_mosaic([list(shown)])
        for row, (lag, color) in enumerate(zip(functions.lags_ps, plotting.colors(len(functions.lags_ps)))):
            own = functions.self_part[row]
            panels["own"].plot(functions.radius_a, own, color=color, label=f"{lag:.3g} ps")
            if "other" in panels:
                panels["other"].plot(functions.radius_a, functions.distinct_part[row], color=color)
        panels["own"].set(ylabel=r"$4\pi r^2 G_s$ (Å⁻¹)")
        panels["own"].legend()
        if "other" in panels:
            panels["other"].set(ylabel=r"$G_d/\rho$")
        if hops is not None:
            panels["hops"].hist(hops.lengths, bins=40, color=plotting.BLUE, alpha=0.8)
            panels["hops"].set(xlabel="hop length (Å)", ylabel="hops")
        for name, axes in panels.items():
            if name != "hops":
                axes.set(xlabel="r (Å)", xlim=(0, None), ylim=(0, None))
            plotting.finish(axes)
        plotting.letters(list(panels.values()))
        return {"motion": figure}


def van_hove(
    displacements: Floats,
    lags: Sequence[int],
    interval_fs: float,
    start: Floats | None = None,
    cell: Floats | None = None,
    bins: int = 80,
) -> VanHove:
    """Self and distinct van Hove functions.

    Args:
        displacements: (frames, ions, 3), Å, of one stretch without a gap.
        lags: in frames.
        interval_fs: between frames.
        start: positions of the ions at zero displacement, Å; None leaves out the distinct part.
        cell: lattice vectors as rows, Å.
        bins: number of bins up to half the smallest width of the cell (or 10 Å).

    >>> steady = np.arange(40.0)[:, None, None] * np.array([0.1, 0.0, 0.0])
    >>> found = van_hove(steady, [20], 1.0)
    >>> round(float(found.radius_a[found.self_part[0].argmax()]), 1)
    2.1
    """
    reach = 10.0 if cell is None else 0.5 * float(_widths(cell).min())
    edges = np.linspace(0.0, reach, bins + 1)
    centres = 0.5 * (edges[1:] + edges[:-1])
    ions = displacements.shape[1]
    size = max(1, PAIRS // ions)
    own, other = [], []
    for lag in lags:
        origins = len(displacements) - lag
        counts = np.zeros(bins)
        for first in range(0, origins, size):
            last = min(first + size, origins)
            moved = displacements[first + lag : last + lag] - displacements[first:last]
            counts += np.histogram(np.linalg.norm(moved, axis=2), edges)[0]
        own.append(counts / (origins * ions) / np.diff(edges))
        if start is not None and cell is not None and ions > 1:
            other.append(_distinct(displacements, start, int(lag), cell, edges))
    distinct = np.array(other) if other else np.zeros((0, bins))
    return VanHove(centres, np.array(lags) * interval_fs / 1000.0, np.array(own), distinct)


def _widths(cell: Floats) -> Floats:
    """Distances between opposite faces."""
    return 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)


def _distinct(moved: Floats, start: Floats, lag: int, cell: Floats, edges: Floats) -> Floats:
    """G_d/ρ: minimum images reach to half the width of the cell, where the bins end."""
    ions, last = moved.shape[1], len(moved) - lag
    origins = np.arange(0, last, max(1, last * ions**2 // PAIRS))
    pick = np.arange(0, ions, max(1, ions**2 // PAIRS))
    inverse = np.linalg.inv(cell)
    others = pick[:, None] != np.arange(ions)
    counts = np.zeros(len(edges) - 1)
    for origin in origins:
        apart = ((moved[origin + lag] + start)[None, :] - (moved[origin] + start)[pick, None]) @ inverse
        apart -= np.round(apart)
        distance = np.linalg.norm(apart @ cell, axis=2)[others]
        counts += np.histogram(distance, edges)[0]
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    density = (ions - 1) / abs(np.linalg.det(cell))
    return counts / (len(origins) * len(pick) * density * shells)


OBSERVABLE = VanHoveFunctions()
