"""Whether material fills the cell of a run: the volume of a slab is not that of its cell."""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy.spatial import cKDTree

from mlplugins.analysis.readers._text import Floats
from mlplugins.analysis.unwrapping import AXES, Place

EVERY = 16
"""Frames between two looks."""
GAP_A = 6.0
"""No condensed phase has wider layers without the centre of an atom (graphite 3.4 Å, caesium about 4)."""
SPACINGS = 2.5
"""… nor layers of more than this many mean distances of atoms: a dilute gas has gaps without being a slab."""
HOLE_A = 4.0
"""From the nearest atom; the widest holes of dense phases have 3.4 Å (caesium)."""
EMPTY, CLUSTERED, POINTS = 0.3, 2.0, 12
"""Share of a cell that is in holes, in all and against that of atoms at random; points along each axis."""
SHAPES = {1: "a slab", 2: "a wire", 3: "a cluster"}


class Filling:
    """Looks for empty layers across the cell that last through the run.

    >>> filling = Filling()
    >>> from mlplugins.analysis.unwrapping import Lattice
    >>> cell = np.diag([9.0, 9.0, 30.0])
    >>> box = Lattice(cell, np.linalg.inv(cell), np.zeros(3), np.full(3, True), volume=2430.0)
    >>> grid = np.stack(np.meshgrid([0, 1, 2], [0, 1, 2], [0, 1, 2, 3, 4]), axis=-1).reshape(-1, 3)
    >>> filling.see(Place(grid * [1 / 3, 1 / 3, 0.1], box, None))
    >>> filling.vacuum(45)
    {'c': 18.0}
    """

    def __init__(self) -> None:
        self._seen = 0
        self._gaps: Floats = np.full(3, np.inf)
        self._heights: Floats = np.zeros(3)
        self._volume = 0.0
        self._last: Place | None = None

    def see(self, place: Place) -> None:
        """Look at a frame; only some of them are used."""
        if self._seen % EVERY == 0:
            lattice = place.lattice
            sorted_ = np.sort(place.fractions % 1.0, axis=0)
            gaps = np.diff(sorted_, axis=0, append=sorted_[:1] + 1.0).max(axis=0)
            self._gaps = np.minimum(self._gaps, np.where(lattice.periodic, gaps, 0.0) * lattice.heights)
            self._heights, self._volume = lattice.heights, lattice.volume
            self._last = place
        self._seen += 1

    def vacuum(self, atoms: int) -> dict[str, float]:
        """Width (Å) of the empty layer across each cell vector that has one."""
        if not self._seen or atoms < 2:
            return {}
        full = self._volume * float(np.prod(np.maximum(1 - self._gaps / self._heights, 1e-3)))
        limit = max(GAP_A, SPACINGS * (full / atoms) ** (1 / 3))
        return {AXES[k]: float(gap) for k, gap in enumerate(self._gaps) if gap > limit}

    def doubts(self) -> list[str]:
        """A warning about a cell of which a large part is far from every atom, though the atoms are close."""
        if self._last is None or not self._last.lattice.periodic.all():
            return []
        number = len(self._last.fractions)
        share = _in_holes(self._last)
        at_random = np.exp(-4 / 3 * np.pi * HOLE_A**3 * number / self._volume)
        if share < max(EMPTY, CLUSTERED * at_random):
            return []
        return [
            f"{share:.0%} of the cell is farther than {HOLE_A:g} Å from every atom "
            f"({self._volume / number:.3g} Å³ per atom): a porous material, or a cell that is not that of "
            "these positions (in bohr, its volume would be 6.7 times too large, σ as much too small)? Its "
            "volume was taken; give --volume if it is another"
        ]


def _in_holes(place: Place) -> float:
    """Share of the points of a grid in the cell that are farther than HOLE_A from all atoms."""
    lattice = place.lattice
    inside = place.fractions % 1.0
    margin = HOLE_A / lattice.heights
    shifts = [np.arange(-np.ceil(width), np.ceil(width) + 1) for width in margin]
    images = (inside + shift for shift in product(*shifts))
    near = np.concatenate([each[((each > -margin) & (each < 1 + margin)).all(axis=1)] for each in images])
    steps = (np.arange(POINTS) + 0.5) / POINTS
    points = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    distances, _ = cKDTree(near @ lattice.cell).query(points @ lattice.cell, distance_upper_bound=HOLE_A)
    return float(np.isinf(distances).mean())


def without_volume(periodic: tuple[bool, bool, bool], empty: dict[str, float], heights: Floats) -> str:
    """Why the cell has no volume that a conductivity could be divided by; "" if it has one."""
    open_ = [AXES[k] for k in range(3) if not periodic[k]]
    if open_:
        return (
            f"the run is not periodic along {_names(open_)}, so the volume of its cell is not that of "
            "the material"
        )
    if empty:
        parts = [
            f"{gap:.1f} of {heights[AXES.index(name)]:.1f} Å along {name}" for name, gap in empty.items()
        ]
        return (
            f"no atom ever enters {' and '.join(parts)}: {SHAPES[len(empty)]} in vacuum, so the volume of "
            "the cell is not that of the material"
        )
    return ""


def _names(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
