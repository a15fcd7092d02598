"""Trajectories that look like something else: fractions for Å, other units, lost flags, two runs in one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis.readers._text import Floats, Frame
from mlplugins.errors import BadInput

CROWD = 4
"""So many atoms or more do not fit into a cube of 1 Å."""
NARROW_A, SPREAD = 3.0, 0.25
DENSE_A3 = 4.0
"""Volume per atom (Å³) below that of any solid at ordinary pressure (diamond 5.7)."""
CROSSINGS = 3
"""Jumps by whole cell vectors along directions that are said to be not periodic."""
WHOLE = 0.1
SEAM = 6.0
"""A step of the median ion, over the usual one, that begins another run."""
SEAM_A, FEWEST_IONS, BLOCK = 0.3, 3, 32


def require_lengths(frame: Frame, where: str) -> None:
    """Refuse fractional coordinates in the place of Å.

    Raises:
        BadInput: all atoms lie between 0 and 1 Å although the cell is wider.
    """
    x = frame.positions
    wide = np.linalg.norm(frame.cell, axis=1).min() > NARROW_A
    apart = bool((np.ptp(x, axis=0) > SPREAD).all())
    if wide and apart and len(x) >= CROWD and x.min() >= 0.0 and x.max() <= 1.0:
        raise BadInput(
            f"{where}: all {len(x)} atoms lie between 0 and 1 Å of a cell of several Å, which fractional "
            "coordinates do: write Cartesian positions in Å (LAMMPS: x y z), or name the columns xs ys zs"
        )


class LostFlags:
    """Directions that are said to be not periodic, along which atoms are wrapped all the same."""

    def __init__(self) -> None:
        self._before: Floats | None = None
        self._crossings = 0

    def see(self, frame: Frame, where: str) -> None:
        """Compare a frame with the one before.

        Raises:
            BadInput: atoms jump by whole cell vectors.
        """
        if all(frame.periodic):
            return
        before, self._before = self._before, frame.positions
        if before is None or len(before) != len(frame.positions) or not np.linalg.det(frame.cell):
            return
        steps = (frame.positions - before) @ np.linalg.inv(frame.cell)
        steps = steps[:, [not flag for flag in frame.periodic]]
        whole = np.rint(steps)
        self._crossings += int(np.count_nonzero((whole != 0) & (np.abs(steps - whole) < WHOLE)))
        if self._crossings >= CROSSINGS:
            raise BadInput(
                f"{where}: atoms jump by whole cell vectors along directions that the file says are not "
                f"periodic (pbc {' '.join('FT'[flag] for flag in frame.periodic)}): was the flag lost (ASE's "
                "Atoms are not periodic by default)? Set pbc to T along them"
            )


def density(volume: float, n_atoms: int) -> list[str]:
    """A warning about a cell that is too small for its atoms."""
    if not volume < DENSE_A3 * n_atoms:
        return []
    return [
        f"the cell has {volume / n_atoms:.2g} Å³ per atom, less than any solid at ordinary pressure "
        "(diamond: 5.7): lengths in another unit (lj, nm)? Expected Å"
    ]


def seams(rows: NDArray[np.float64], n_ions: int, steps: Sequence[int]) -> list[str]:
    """A warning about frames between which nearly all ions jump.

    Args:
        rows: (frames, …) that begin with the displacements of the ions, 3 columns each, Å.
        n_ions: number of ions.
        steps: MD step of every frame.
    """
    if len(rows) != len(steps) or n_ions < FEWEST_IONS or len(rows) < CROWD:
        return []
    usual = np.concatenate(
        [_median_steps(rows[k : k + BLOCK + 1], n_ions) for k in range(0, len(rows) - 1, BLOCK)]
    )
    spacing = np.diff(steps)
    far = usual > max(SEAM * float(np.median(usual)), SEAM_A)
    found = np.flatnonzero(far & (spacing <= np.median(spacing)))
    if not len(found):
        return []
    k = int(found[0])
    return [
        f"between frames {k + 1} and {k + 2} half of the ions move by {usual[k]:.2g} Å or more, "
        f"{usual[k] / np.median(usual):.0f} times as far as usual ({len(found)} such place(s)): several runs "
        "in one file? They were taken as one; give each its own file and its own entry"
    ]


def _median_steps(rows: NDArray[np.float64], n_ions: int) -> NDArray[np.float64]:
    """How far the median ion moves from each frame to the next, Å."""
    steps = np.diff(rows[:, : 3 * n_ions], axis=0).reshape(len(rows) - 1, n_ions, 3)
    return np.asarray(np.median(np.linalg.norm(steps, axis=2), axis=1))
