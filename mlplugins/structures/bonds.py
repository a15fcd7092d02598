"""How close atoms come, in lengths of bonds: tells Å from bohr, nm and reduced units."""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii
from numpy.typing import ArrayLike, NDArray

from mlplugins.structures.distances import distances
from mlplugins.units import A_PER_BOHR

FARTHEST = 1.4
"""Closest atoms of a whole set, over the sum of their covalent radii, above which lengths look like bohr."""
CLOSEST = 0.55
"""As above, below which lengths are no Å: N2 at 5000 K reaches 0.65."""
NOBLE = (2, 10, 18, 36, 54, 86)


def ratios(
    numbers: NDArray[np.int64], positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike, reach: float = 2.0
) -> NDArray[np.float64]:
    """Distances of pairs over the sums of their covalent radii, each pair once, all up to `reach`."""
    radii = covalent_radii[numbers]
    first, second, apart = distances(positions, cell, pbc, reach * 2 * float(radii.max()))
    return np.asarray(np.sort(apart / (radii[first] + radii[second]))[::2])


def closest(
    numbers: NDArray[np.int64], positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike, reach: float = 2.0
) -> float:
    """The least of `ratios`; infinite without neighbours within `reach`.

    >>> round(closest(np.array([1, 1]), [[0, 0, 0], [0, 0, 0.74]], np.zeros((3, 3)), [False] * 3), 2)
    1.19
    """
    return float(ratios(numbers, positions, cell, pbc, reach).min(initial=np.inf))


def too_far(ratio: float) -> str:
    """What the closest atoms of a set say if their distance is above `FARTHEST`; "" otherwise."""
    if not FARTHEST <= ratio < np.inf:
        return ""
    return (
        f"the closest atoms of all frames are {ratio:.2f} times as far apart as bonds of these elements "
        f"are long: positions and cell in bohr ({1 / A_PER_BOHR:.2f} per Å)?"
    )
