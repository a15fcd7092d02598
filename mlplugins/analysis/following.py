"""Whether the positions of a run in a changing cell belong to the cells beside them.

A barostat strains the atoms with the cell, so that fractions of the cell hardly feel it. Cells of the frame
before, or positions that were scaled by one cell for all frames, strain the fractions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlplugins.analysis.readers._text import Floats
from mlplugins.analysis.unwrapping import Place

FEWEST, MOST, ATOMS = 20, 5000, 500
"""Frames in which the cell has changed, the most of them that are looked at, and atoms of each."""
ERRORS, NEAR = 6.0, 0.25
"""Standard errors from nothing, and distance from a whole number, of the share of the cells' strain that the
fractions have."""
LAG, SCALED = (0.0, -1.0, 1.0), (0.0, 1.0, 0.0)
"""Shares of the strain from the frame before, to this frame, and to the next, with cells that are late by a
frame, and where every frame's positions were made fractions by one cell."""
ALONE, FLIP = 1e-6, 0.1
"""Strain of a cell that does not change, and of one that is described anew."""


class Following:
    """Strain of the fractions, compared with that of the cells, from frame to frame.

    Attributes:
        changed: whether the cell has changed.
    """

    def __init__(self) -> None:
        self._before: Place | None = None
        self._fractions: list[Floats] = []
        self._cells: list[Floats] = []
        self.changed = False

    def see(self, place: Place) -> None:
        """Compare a frame with the one before."""
        before, self._before = self._before, place
        if before is None or len(self._cells) >= MOST or not place.lattice.periodic.all():
            return
        strain = np.linalg.solve(before.lattice.cell, place.lattice.cell - before.lattice.cell)
        self.changed |= bool(np.abs(strain).max() > ALONE)
        if not self.changed or np.abs(strain).max() > FLIP:
            return
        each = -(-len(place.fractions) // ATOMS)
        x = before.fractions[::each] @ before.lattice.cell
        x = x - x.mean(axis=0)
        steps = place.fractions[::each] - before.fractions[::each]
        steps = (steps - np.rint(steps)) @ before.lattice.cell
        followed = np.linalg.pinv(x.T @ x, rcond=1e-6, hermitian=True) @ (x.T @ steps)
        self._fractions.append(np.asarray(followed, dtype=np.float64))
        self._cells.append(np.asarray(strain, dtype=np.float64))

    def doubts(self) -> list[str]:
        """A warning where the strain of the fractions is that of the cells, or that of the next frame's."""
        cells = np.array(self._cells).reshape(-1, 9)
        if np.count_nonzero(np.abs(cells).max(axis=1, initial=0.0) > ALONE) < FEWEST:
            return []
        design = np.stack([cells[:-2], cells[1:-1], cells[2:]], axis=-1).reshape(-1, 3)
        strain = np.array(self._fractions).reshape(-1, 9)[1:-1].ravel()
        inverse = np.linalg.pinv(design.T @ design, hermitian=True)
        found = inverse @ design.T @ strain
        error = np.sqrt(np.diag(inverse) * np.mean((strain - design @ found) ** 2))
        if _is(LAG, found, error):
            return [
                "the cells are those of the frame before: the atoms strain with the cell of the next frame, "
                "not with their own (cells and positions of two files, joined with an offset?): write "
                "positions and cells of the same steps"
            ]
        if _is(SCALED, found, error):
            return [
                "the positions do not belong to the cells: they are strained twice from frame to frame, as "
                "where fractions were taken in the cell of the first frame and multiplied by that of each: "
                "write Cartesian positions, or fractions of each frame's own cell"
            ]
        return []


def _is(shares: Sequence[float], found: Floats, error: Floats) -> bool:
    whole = np.asarray(shares)
    sure = np.abs(found[whole != 0]) > ERRORS * error[whole != 0]
    return bool((np.abs(found - whole) < NEAR).all() and sure.all() and (error < NEAR).all())
