"""Measured spectra beside computed ones."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlplugins.analysis.readers._text import Floats
from mlplugins.errors import BadInput

AXES = re.compile(r"\b(THz|meV|eV|nm|[µμu]m|microns?|wavelength)\b", re.IGNORECASE)
"""What the head of a file may say of another axis than that of wave numbers."""
WAVE_NUMBERS = re.compile(r"cm\s*(\^?[-−]1|⁻¹)|1/cm|wave ?number", re.IGNORECASE)
TRANSMITTANCE = re.compile(r"(%T\b|\btransm\w*)", re.IGNORECASE)


@dataclass(frozen=True)
class Experiment:
    """A measured spectrum.

    Attributes:
        path: the file.
        per_cm, values: (N,), in the order of wave numbers; the values times `scale`.
        scale: factor on what the file says.
        scaled_to_area: the factor was chosen so that the areas are equal.
        overlap: ∫√(a b) of both curves with area one, in the common range: 1 for curves of one shape.
    """

    path: Path
    per_cm: Floats
    values: Floats
    scale: float
    scaled_to_area: bool
    overlap: float


def experiment(path: Path, per_cm: Floats, curve: Floats, scale: float | None) -> Experiment:
    """Read two columns, cm⁻¹ and intensity, and scale them.

    Args:
        path: text; lines that begin with # are remarks; columns by blanks, commas or semicolons; a comma in a
            number is a decimal one where blanks or semicolons are between the columns.
        per_cm, curve: (F,), the computed spectrum in the range that is shown.
        scale: factor on the values; None: to the area of the curve in the common range.

    Raises:
        BadInput: no such file, no two columns of numbers, a head that says another unit than cm⁻¹ or a
            transmittance, wave numbers that are not in the range.
    """
    if not path.is_file():
        raise BadInput(f"experiment: no such file: '{path}'")
    x, y = _read(path)
    low, high = max(x[0], per_cm[0]), min(x[-1], per_cm[-1])
    common = (per_cm >= low) & (per_cm <= high)
    if common.sum() < 3:
        raise BadInput(
            f"{path}: from {x[0]:g} to {x[-1]:g}, the spectrum from {per_cm[0]:.0f} to {per_cm[-1]:.0f} "
            "cm⁻¹: "
            "expected wave numbers in cm⁻¹ in the same range"
        )
    measured = np.maximum(np.interp(per_cm[common], x, y), 0.0)
    computed = np.maximum(curve[common], 0.0)
    if not measured.sum() > 0:
        raise BadInput(f"{path}: no intensity between {low:g} and {high:g} cm⁻¹")
    factor = scale if scale is not None else float(computed.sum() / measured.sum())
    overlap = float(np.sqrt(measured / measured.sum() * computed / computed.sum()).sum())
    return Experiment(path, x, factor * y, factor, scale is None, overlap)


def _read(path: Path) -> tuple[Floats, Floats]:
    """Two columns in the order of the first."""
    rows: list[list[float]] = []
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
        text, _, remark = line.partition("#")
        words = re.split(r"[;\s]+", text.strip("; \t"))
        if len(words) > 1 and not any(word.startswith(",") or word.endswith(",") for word in words):
            words = [word.replace(",", ".") for word in words]
        else:
            words = text.replace(",", " ").replace(";", " ").split()
        try:
            values = [float(word) for word in words[:2]]
        except ValueError as error:
            if rows:
                raise BadInput(f"{path}, line {number}: {error}; expected numbers") from error
            values, remark = [], line  # a head
        if not rows:
            _require_absorption(remark, f"{path}, line {number}")
        if not values:
            continue
        if len(values) < 2 or not np.isfinite(values).all():
            raise BadInput(f"{path}, line {number}: expected two finite numbers, cm⁻¹ and intensity")
        rows.append(values)
    table = np.array(rows)
    if len(table) < 2:
        raise BadInput(f"{path}: expected two columns, cm⁻¹ and intensity, of several points")
    x, y = table[np.argsort(table[:, 0], kind="stable")].T
    return x, y


def _require_absorption(head: str, where: str) -> None:
    """Refuse what the head of a file says of its columns.

    Raises:
        BadInput: no wave numbers, or a transmittance.
    """
    other = TRANSMITTANCE.search(head) or (None if WAVE_NUMBERS.search(head) else AXES.search(head))
    if other is not None:
        raise BadInput(
            f"{where}: '{head.strip()[:60]}' says {other[1]}: expected wave numbers in cm⁻¹, and an "
            "intensity that is large where light is absorbed or scattered: convert the columns, and "
            "correct this line"
        )
