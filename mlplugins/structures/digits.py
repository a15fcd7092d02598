"""Labels that were never computed, and numbers that were rounded: what their digits show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlplugins.quantities import MILLI
from mlplugins.structures.dataset import Structure

DISTINCT, MOST = 8, 3
"""Different values that show how many decimals a column has, and decimals looked for."""
STIFFNESS = 20.0
"""Of bonds, eV/Å²: what a displacement does to forces."""
WORST_EV_A, WORST_EV = 0.02, 2e-3
"""Errors by rounding (RMS) that are said: of forces, of energies per atom."""
LEAST_FORCE = 0.05
"""RMS of the forces (eV/Å) of frames that are no ideal crystals."""


def check(structures: Sequence[Structure]) -> list[str]:
    """Warnings about energies that are all the same, and about numbers with few digits."""
    moved = [s for s in structures if len(s) > 1 and _force(s) > LEAST_FORCE]
    return [text for text in (_same(moved), *_rounded(moved)) if text]


def _force(s: Structure) -> float:
    """RMS, eV/Å; 0 without forces."""
    return 0.0 if s.forces is None else float(np.sqrt(np.mean(np.square(s.forces))))


def _same(frames: Sequence[Structure]) -> str:
    energies = {s.energy for s in frames if s.energy is not None}
    if len(frames) < 3 or len(energies) != 1 or any(s.energy is None for s in frames):
        return ""
    if len({np.asarray(s.forces).tobytes() for s in frames}) < len(frames):
        return ""
    return (
        f"the energy is {energies.pop():.9g} eV in all {len(frames)} frames that have forces, which differ: "
        "was it never computed? Set energy: null in data.keys, or give the right ones"
    )


def _rounded(frames: Sequence[Structure]) -> list[str]:
    if not frames:
        return []
    energies = np.array([s.energy for s in frames if s.energy is not None])
    size = float(np.mean([len(s) for s in frames]))
    columns = (
        ("positions", _stacked([s.positions for s in frames]), "Å", STIFFNESS, WORST_EV_A, "eV/Å in forces"),
        ("forces", _stacked([s.forces for s in frames]), "eV/Å", 1.0, WORST_EV_A, "eV/Å"),
        ("energies", energies, "eV", 1 / size, WORST_EV, "eV/atom"),
    )
    found = []
    for name, values, unit, factor, worst, what in columns:
        places = decimals(values)
        error = 0.0 if places is None else factor * 10.0**-places / np.sqrt(12)
        if error > worst:
            scale, milli = (MILLI * error, "m") if error < 1 else (error, "")
            found.append(
                f"the {name} have {places} decimals ({unit}) in all {len(frames)} frames: rounding makes "
                f"errors of {scale:.2g} {milli}{what}, which no model can learn: write more digits"
            )
    return found


def _stacked(rows: Sequence[NDArray[np.float64] | None]) -> NDArray[np.float64]:
    return np.concatenate([row for row in rows if row is not None])


def decimals(values: ArrayLike) -> int | None:
    """Decimals of all of many numbers, None if they are more than three or nobody can tell.

    >>> decimals(np.arange(100) / 100), decimals(np.arange(100) / 7), decimals([0.5, 1.0])
    (2, None, None)
    """
    flat = np.ravel(np.asarray(values, dtype=np.float64))
    if len(np.unique(flat)) < DISTINCT or not np.isfinite(flat).all():
        return None
    for places in range(MOST + 1):
        scaled = flat * 10.0**places
        if np.all(np.abs(scaled - np.rint(scaled)) < 1e-6 * np.maximum(np.abs(scaled) * 1e-9, 1.0)):
            return places
    return None
