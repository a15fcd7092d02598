"""How long ions are on the way between sites: bounds on the time between frames, however far apart they are.

Ions cross a surface between two sites, both ways together, at the rate ρ⟨|v|⟩ with ⟨|v|⟩ = √(2kT/πm) and ρ
the density of ions on it per length, whatever the forces (transition-state theory): there are at most as many
hops, and the transmission coefficient κ = hops/crossings, for the surface with the fewest, is 0.05 to 1 in
crystals (0.15 in Li6PS5Cl at 500 K). ρ needs no time, so a wrong time between frames shows in κ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mlplugins.analysis.numbers import significant
from mlplugins.analysis.sites import NOWHERE, SHIFTS, Sites, States
from mlplugins.units import ASE_TIME_PER_FS, BOLTZMANN_EV_K

Floats = NDArray[np.float64]
LEAST_KAPPA, MOST_KAPPA = 0.01, 3.0
"""Beyond these the time is another: κ is at most 1, and known to a factor of about 2."""
CRYSTALS = 0.05, 1.0
"""Of crystals, which most times that nobody checked are in."""
FEWEST_HOPS, FEWEST_SEEN = 20, 30
"""Hops, and ions seen near a surface, below which κ is not known."""
RESOLVED = 0.2
"""Hops per ion and frame above which frames miss many."""
EDGES = np.linspace(0.25, 0.75, 11)
"""Surfaces between two sites, in parts of their distance."""
POINTS = 300_000


class Passage(NamedTuple):
    """Of one stretch: hops, frames of all ions, and those near each surface, number and per length (1/Å)."""

    hops: int
    frames: int
    seen: Floats
    density: Floats


def passage(moved: Floats, start: Floats, states: States, sites: Sites) -> Passage:
    """Hops between sites, and how often ions were seen on the way of such hops.

    Args:
        moved: displacements (frames, ions, 3), Å, from the positions `start` (ions, 3).
        states: sites of the ions (frames, ions), as `sites.follow` gives them.
        sites: the sites.
    """
    before, after = states[:-1], states[1:]
    hopped = (before != NOWHERE) & (before != after)
    ways = np.unique(_way(before[hopped], after[hopped], len(sites)))
    every = max(1, states.size // POINTS)
    points = ((moved[::every] + start).reshape(-1, 3) @ np.linalg.inv(sites.cell)) % 1.0 @ sites.cell
    images = (sites.fractions[None] + SHIFTS[:, None]).reshape(-1, 3) @ sites.cell
    index = np.asarray(cKDTree(images).query(points, k=2)[1])
    near, next_ = images[index[:, 0]], images[index[:, 1]]
    first, second = (index % len(sites)).T
    apart = np.linalg.norm(next_ - near, axis=1)
    place = np.einsum("ia,ia->i", points - near, next_ - near) / apart**2
    # the bottleneck may be nearer to the smaller of two sites
    occupancy = np.bincount(states[states != NOWHERE], minlength=len(sites))
    place = np.where(occupancy[first] > occupancy[second], 1 - place, place)
    used = np.isin(_way(first, second, len(sites)), ways)
    width = np.diff(EDGES)
    seen, _ = np.histogram(place[used], EDGES)
    density, _ = np.histogram(place[used], EDGES, weights=every / apart[used])
    return Passage(int(hopped.sum()), int(states.size), seen.astype(float), density / width)


def _way(a: NDArray[np.generic], b: NDArray[np.generic], n: int) -> NDArray[np.intp]:
    low, high = np.minimum(a, b).astype(np.intp), np.maximum(a, b).astype(np.intp)
    return np.asarray(low * n + high)


def kappa(parts: Sequence[Passage], mass_u: float, temperature_k: float, interval_fs: float) -> float | None:
    """Transmission coefficient of all stretches for ions of this mass; None where it is not known."""
    hops, frames = sum(part.hops for part in parts), sum(part.frames for part in parts)
    if hops < FEWEST_HOPS or hops > RESOLVED * frames:
        return None
    density = np.sum([part.density for part in parts], axis=0)
    fewest = int(density.argmin())
    if sum(float(part.seen[fewest]) for part in parts) < FEWEST_SEEN:
        return None
    speed = float(np.sqrt(2 * BOLTZMANN_EV_K * temperature_k / np.pi / mass_u)) * ASE_TIME_PER_FS
    return hops / float(density[fewest] * speed * interval_fs)


def allowed(found: float | None, interval_fs: float) -> tuple[float, float] | None:
    """Times between frames, fs, with which κ would be that of a crystal; None where it is not known.

    >>> allowed(0.15, 100.0)
    (15.0, 300.0)
    """
    return None if found is None else (interval_fs * found / CRYSTALS[1], interval_fs * found / CRYSTALS[0])


def doubt(found: float | None, species: str, temperature_k: float, interval_fs: float) -> list[str]:
    """A warning about a κ that no crystal has.

    >>> doubt(5e-4, "Li", 600.0, 1e5)[0].partition(":")[0]
    'Li is 2000 times as long on the way between two sites as free flight at 600 K takes'
    >>> doubt(150.0, "Li", 600.0, 0.1)[0].partition(":")[0]
    'Li hops 150 times as often as it can pass between two sites in free flight at 600 K'
    >>> doubt(0.15, "Li", 600.0, 100.0)
    []
    """
    if found is None or LEAST_KAPPA < found < MOST_KAPPA:
        return []
    free = f"free flight at {temperature_k:g} K"
    if found < 1:
        how, what = (
            "long",
            f"is {significant(1 / found)} times as long on the way between two sites as {free} takes",
        )
    else:
        how, what = (
            "short",
            f"hops {significant(found)} times as often as it can pass between two sites in {free}",
        )
    return [
        f"{species} {what}: is the time between frames, {interval_fs:.4g} fs, too {how} (time step in fs × "
        "MD steps between frames)? D goes with its inverse"
    ]
