"""Trajectories that look like something else: fractions for Å, other units, lost flags, two runs in one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from mlplugins.analysis.readers._text import Floats, Frame
from mlplugins.errors import BadInput
from mlplugins.structures import bonds

CROWD = 4
"""So many atoms or more do not fit into a cube of 1 Å."""
NARROW_A, SPREAD = 3.0, 0.25
DENSE_A3 = 4.0
"""Volume per atom (Å³) below that of any solid at ordinary pressure (diamond 5.7)."""
LOOKED_AT = 2000
"""Atoms of a frame among which the closest are looked for."""
REPELLED = 8.0
"""Pairs that an ideal gas would have closer than the closest: its chance of none is exp(−8)."""
CROSSINGS = 3
"""Jumps by whole cell vectors along directions that are said to be not periodic."""
WHOLE = 0.1
SEAM = 6.0
"""A step of the median ion, over the usual one, that begins another run."""
SEAM_A, FEWEST_IONS, BLOCK = 0.3, 3, 32
LOST, LOST_RATIO, LOST_IONS, LOST_PLACES = 8.0, 1.3, 8, 3
"""A step where frames are lost: so many robust standard deviations and times the usual, of so many ions or
more, at so few places. Elsewhere steps stay below half of that: hops have tails, but no gap above them."""
HOPPING = 0.05
"""Share of the ions (two at least) that may hop at once in any frame and is left out."""


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


class Contacts:
    """How close atoms come in frames 1, 2, 4, 8, … of a run."""

    def __init__(self) -> None:
        self._least = np.inf
        self._contacts: list[int] = []  # pairs below `bonds.CLOSEST`
        self._seen = 0

    def see(self, frame: Frame) -> None:
        """Look at a frame, in large ones at the atoms of a part of the cell."""
        self._seen += 1
        if self._seen & (self._seen - 1) or not np.linalg.det(frame.cell):
            return
        numbers = np.array([atomic_numbers[str(name)] for name in frame.symbols])
        fractions = frame.positions @ np.linalg.inv(frame.cell)
        fractions -= np.floor(fractions) * frame.periodic  # unwrapped atoms are far from their neighbours
        positions, pbc = fractions @ frame.cell, frame.periodic
        if len(numbers) > LOOKED_AT:
            low = np.quantile(fractions, 0.3, axis=0)
            width = (LOOKED_AT / len(numbers)) ** (1 / 3)
            part = ((fractions > low) & (fractions < low + width * np.ptp(fractions, axis=0))).all(axis=1)
            numbers, positions, pbc = numbers[part], positions[part], (False, False, False)
        if len(numbers):
            found = bonds.ratios(numbers, positions, frame.cell, pbc)
            self._least = min(self._least, float(found.min(initial=np.inf)))
            self._contacts.append(int((found < bonds.CLOSEST).sum()))

    def doubts(self, symbols: NDArray[np.str_]) -> list[str]:
        """A warning about lengths that are no Å; a dump of one element alone may lack its neighbours."""
        # points that do not repel each other come closer, to n^(-1/3) of a distance that n pairs are within
        expected = (self._least / bonds.CLOSEST) ** 3 * float(np.mean(self._contacts or [0]))
        if self._least < bonds.CLOSEST and expected > REPELLED:
            return [
                f"the closest atoms are {self._least:.2f} lengths of bonds of their elements apart, and not "
                "by chance: lengths in another unit (lj, nm), or wrong elements? Expected Å"
            ]
        noble = {chemical_symbols[number] for number in bonds.NOBLE}
        kinds = set(symbols.tolist())
        said = bonds.too_far(self._least) if len(kinds) > 1 and not kinds & noble else ""
        return [f"{said} Expected Å"] if said else []


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
    """A warning about frames between which nearly all ions jump, or go farther than they do elsewhere.

    Args:
        rows: (frames, …) that begin with the displacements of the ions, 3 columns each, Å.
        n_ions: number of ions.
        steps: MD step of every frame.
    """
    if len(rows) != len(steps) or n_ions < FEWEST_IONS or len(rows) < CROWD:
        return []
    blocks = [_steps(rows[k : k + BLOCK + 1], n_ions) for k in range(0, len(rows) - 1, BLOCK)]
    spacing = np.diff(steps)
    even = spacing <= np.median(spacing)
    usual = np.concatenate([np.median(block, axis=1) for block in blocks])
    far = usual > max(SEAM * float(np.median(usual)), SEAM_A)
    found = np.flatnonzero(far & even)
    if not len(found):
        return _lost(np.concatenate([_without_hops(block) for block in blocks]), even, n_ions)
    k = int(found[0])
    return [
        f"between frames {k + 1} and {k + 2} half of the ions move by {usual[k]:.2g} Å or more, "
        f"{usual[k] / np.median(usual):.0f} times as far as usual ({len(found)} such place(s)): several runs "
        "in one file, or frames lost? They were taken as one; give each its own file and its own entry"
    ]


def _steps(rows: NDArray[np.float64], n_ions: int) -> NDArray[np.float64]:
    """How far each ion moves from each frame to the next, Å."""
    steps = np.diff(rows[:, : 3 * n_ions], axis=0).reshape(len(rows) - 1, n_ions, 3)
    return np.asarray(np.linalg.norm(steps, axis=2))


def _without_hops(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the ions but the fastest, Å."""
    kept = steps.shape[1] - max(2, round(HOPPING * steps.shape[1]))
    if kept < 1:
        return np.zeros(len(steps))
    return np.asarray(np.partition(steps, kept - 1, axis=1)[:, :kept].mean(axis=1))


def _lost(steps: NDArray[np.float64], even: NDArray[np.bool_], n_ions: int) -> list[str]:
    """A warning about the few steps that are longer than all others by far; most ions take part."""
    usual = float(np.median(steps))
    scale = 1.4826 * float(np.median(np.abs(steps - usual)))
    if n_ions < LOST_IONS or len(steps) < BLOCK or scale == 0.0:
        return []
    away = np.where(even, (steps - usual) / scale, 0.0)
    found = np.flatnonzero((away > LOST) & (steps > LOST_RATIO * usual))
    if not 0 < len(found) <= LOST_PLACES or np.delete(away, found).max() > away[found].min() / 2:
        return []
    named = ", ".join(f"{k + 1} and {k + 2}" for k in found)
    return [
        f"between frames {named} nearly all ions move {steps[found].max() / usual:.2g} times as far as "
        "between any others: are frames missing there? The file does not say, and D comes out too large by "
        "the time that is lost; cut the file there, and give the parts as runs of their own"
    ]
