"""Radial distribution functions of each pair of species, and coordination numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mlplugins.analysis.jackknife import BLOCKS, jackknife, positive
from mlplugins.analysis.markup import Cell, table
from mlplugins.analysis.numbers import DASH, parts
from mlplugins.analysis.observables.base import Observable
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.sample import Sample
from mlplugins.analysis.value import Value
from mlplugins.analysis.written import csv_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
BIN_A, FARTHEST_A = 0.05, 12.0
PAIRS = 15_000_000
"""Distances of a temperature: frames, and in large cells atoms that are looked from, are thinned."""
AT_ONCE = 1_000_000
SMOOTH_A, LEAST_PEAK = 0.1, 1.3
"""Width of the Gaussian through which the first shell is looked for, and the height of its peak."""


@dataclass(frozen=True)
class Shell:
    """The first shell of a pair: its peak and the minimum behind it, Å, and the neighbours up to there."""

    peak_a: float
    minimum_a: float
    neighbours: Value
    reverse: Value


@dataclass(frozen=True)
class Radial:
    """Radial distribution functions.

    Attributes:
        radius_a: middles of the bins.
        pairs: (species, species) → g (bins,).
        shells: the first shell of each; None without a peak.
        frames: that were used.
    """

    radius_a: Floats
    pairs: dict[tuple[str, str], Floats]
    shells: dict[tuple[str, str], Shell | None]
    frames: int


class RadialDistribution(Observable[Radial]):
    """From snapshots of all atoms; up to half the smallest width of the cell."""

    order = 91
    keys = ("radial_distribution",)
    files = ("radial.csv",)

    def compute(self, sample: Sample, notes: list[str]) -> Radial | None:
        """None without a cell that is periodic in all directions."""
        species = sample.species
        chosen = []
        for run in sample.trajectories:
            shots = run.snapshots
            if shots is not None:
                late = shots.times_ps >= sample.settings.discard_ps
                chosen += [(shots.symbols, *each) for each in zip(shots.fractions[late], shots.cells[late])]
        return radial(chosen, species) if chosen else None

    def as_json(self, found: Radial) -> dict[str, object]:
        """Every pair."""
        pairs = {
            "-".join(pair): {"g": g.tolist(), **_entry(found.shells[pair])} for pair, g in found.pairs.items()
        }
        entry = {"r_A": found.radius_a.tolist(), "n_frames": found.frames, "pairs": pairs}
        return {"radial_distribution": entry}

    def tables(self, found: Sequence[tuple[RunResult, Radial]]) -> dict[str, str]:
        """In long form."""
        lines = [
            [f"{run.temperature_k:g}", *pair, f"{radius:.6g}", f"{value:.6g}"]
            for run, each in found
            for pair, g in each.pairs.items()
            for radius, value in zip(each.radius_a, g)
        ]
        return {"radial.csv": csv_table(["T_K", "species", "other", "r_A", "g"], lines)}

    def section(self, found: Sequence[tuple[RunResult, Radial]]) -> list[str]:
        """First shells at the middle temperature."""
        run, each = found[len(found) // 2]
        header = ["pair", "peak (Å)", "minimum (Å)", "second around first", "first around second"]
        rows: list[list[Cell]] = []
        for pair, shell in each.shells.items():
            start = [f"{pair[0]}–{pair[1]}"]
            if shell is None:
                rows.append([*start, DASH, DASH, DASH, DASH])
                continue
            ends = (f"{shell.peak_a:.2f}", f"{shell.minimum_a:.2f}")
            rows.append([*start, *ends, parts(shell.neighbours), parts(shell.reverse)])
        caption = (
            f"First shells at {run.temperature_k:g} K ({each.frames} frames, bins of {BIN_A:g} Å): first "
            "peak of g(r), the minimum behind it, and neighbours up to there."
        )
        return ["<h2>Radial distribution</h2>", table(header, rows, caption)]

    def figures(self, found: Sequence[tuple[RunResult, Radial]]) -> dict[str, Figure]:
        """Pairs with the mobile ions, and the others, at the middle temperature."""
        from mlplugins import plotting

        run, each = found[len(found) // 2]
        mobile = {pair: g for pair, g in each.pairs.items() if run.species in pair}
        others = {pair: g for pair, g in each.pairs.items() if run.species not in pair}
        caption = f"Radial distribution functions at {run.temperature_k:g} K"
        caption += f": (a) of {run.species}, (b) of the framework." if others else "."
        figure = plotting.canvas(plotting.PAGE if others else plotting.COLUMN * 1.2, 2.7, caption)
        panels = figure.subplots(1, 2 if others else 1, squeeze=False)[0]
        looks = [style for style in ("-", "--", ":") for _ in plotting.CYCLE]
        for axes, shown in zip(panels, (mobile, others)):
            for pair, color, look in zip(shown, plotting.CYCLE * 3, looks):
                axes.plot(each.radius_a, shown[pair], look, color=color, lw=1.0, label=f"{pair[0]}–{pair[1]}")
            axes.axhline(1.0, color=plotting.GREY, lw=0.6)
            axes.set(xlabel="r (Å)", ylabel="g(r)", xlim=(0, None), ylim=(0, None))
            axes.legend()
            plotting.finish(axes)
        plotting.letters(panels if others else [])
        return {"radial": figure}


def radial(frames: Sequence[tuple[NDArray[np.str_], Floats, Floats]], first: str = "") -> Radial:
    """g(r) of every pair of species: 1 for an ideal gas.

    Args:
        frames: (elements (N,), positions in fractions of the cell (N, 3), cell as rows in Å).
        first: the species named first in its pairs.

    >>> lattice = np.stack(np.meshgrid(*[np.arange(4) / 4] * 3), axis=-1).reshape(-1, 3)
    >>> found = radial([(np.array(["Ar"] * 64), lattice, 12.0 * np.eye(3))])
    >>> shell = found.shells["Ar", "Ar"]
    >>> round(shell.peak_a, 1), round(shell.neighbours.value, 6)
    (3.0, 6.0)
    """
    names, indices = np.unique(frames[0][0], return_inverse=True)
    order = sorted(range(len(names)), key=lambda k: (names[k] != first, names[k]))
    groups = {str(names[k]): np.flatnonzero(indices == k) for k in order}
    reach = min(0.5 * min(float(_widths(cell).min()) for _, _, cell in frames), FARTHEST_A)
    bins = max(int(reach / BIN_A), 1)
    total = len(frames[0][0]) ** 2 / 2
    used = frames[:: max(1, int(np.ceil(len(frames) * total / PAIRS)))]
    every = max(1, int(total * len(used) / PAIRS))  # of the atoms
    pairs = list(combinations_with_replacement(groups, 2))
    looked = {name: group[::every] for name, group in groups.items()}
    counts = np.zeros((BLOCKS, len(pairs), bins))
    weights = np.zeros((BLOCKS, 2))  # frames; of an even density
    for number, (_, fractions, cell) in enumerate(used):
        block = number * BLOCKS // len(used)
        weights[block] += 1, 1 / abs(float(np.linalg.det(cell)))
        for row, (a, b) in enumerate(pairs):
            counts[block, row] += _counted(fractions[looked[a]], fractions[groups[b]], cell, bins)
    edges = BIN_A * np.arange(bins + 1)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    result, first_shells = {}, {}
    for row, (a, b) in enumerate(pairs):
        others = len(groups[b]) - (a == b)
        even = weights[:, 1].sum() * len(looked[a]) * max(others, 1) * shells
        result[a, b] = counts[:, row].sum(axis=0) / even
        around = counts[:, row].cumsum(axis=1) / len(looked[a])
        first_shells[a, b] = _shell(result[a, b], around, weights[:, 0], len(groups[a]) / len(groups[b]))
    return Radial(0.5 * (edges[1:] + edges[:-1]), result, first_shells, len(used))


def _widths(cell: Floats) -> Floats:
    """Distances between opposite faces."""
    return np.asarray(1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0))


def _counted(first: Floats, second: Floats, cell: Floats, bins: int) -> Floats:
    """Distances in each bin; none of an atom to itself."""
    size = max(1, AT_ONCE // len(second))
    counts = np.zeros(bins)
    for begin in range(0, len(first), size):
        apart = second[None] - first[begin : begin + size, None]
        apart -= np.round(apart)
        distance = np.sqrt(((apart @ cell) ** 2).sum(axis=2)).ravel()
        near = distance[(distance < bins * BIN_A) & (distance > 0)]
        counts += np.bincount((near / BIN_A).astype(np.intp), minlength=bins)[:bins]
    return counts


def _shell(g: Floats, around: Floats, frames: Floats, ratio: float) -> Shell | None:
    """First shell; `around`: neighbours up to each bin, summed over the frames of each block."""
    smooth = ndimage.gaussian_filter1d(g, SMOOTH_A / BIN_A)
    rising = np.flatnonzero((smooth[1:-1] > smooth[:-2]) & (smooth[1:-1] >= smooth[2:])) + 1
    peaks = [int(k) for k in rising if smooth[k] >= LEAST_PEAK]
    if not peaks:
        return None
    falling = np.flatnonzero((smooth[1:-1] < smooth[:-2]) & (smooth[1:-1] <= smooth[2:])) + 1
    behind = [int(k) for k in falling if k > peaks[0]]
    if not behind:
        return None
    sums = np.stack([around[:, behind[0]], frames], axis=1)
    number = positive(*jackknife(sums, lambda total: total[0] / total[1]))
    return Shell((peaks[0] + 0.5) * BIN_A, (behind[0] + 0.5) * BIN_A, number, number.scaled(ratio))


def _entry(shell: Shell | None) -> dict[str, object]:
    if shell is None:
        return {"first_peak_A": None, "first_minimum_A": None, "neighbours": None, "neighbours_reverse": None}
    return {
        "first_peak_A": shell.peak_a,
        "first_minimum_A": shell.minimum_a,
        "neighbours": shell.neighbours.as_json(),
        "neighbours_reverse": shell.reverse.as_json(),
    }


OBSERVABLE = RadialDistribution()
