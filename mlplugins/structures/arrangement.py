"""Labels that are the predictions in another arrangement: transposed, turned, of exchanged atoms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from mlplugins.quantities import QUANTITIES

Array = NDArray[np.float64]

LEFT, LEAST = 0.25, 0.2
"""Part of the differences that another arrangement may leave, and the least that these are of the labels."""
FRAMES, ATOMS = 3, 4
"""Fewest frames of the same atoms, and atoms of a frame, that tell."""


def otherwise(name: str, labels: Sequence[Array], predictions: Sequence[Array]) -> str | None:
    """A sentence on how the labels of a quantity are the predictions in another arrangement, None if not.

    Args:
        name: of the quantity.
        labels, predictions: of every frame.

    >>> born = np.arange(9.0).reshape(1, 3, 3)
    >>> text = otherwise("born_effective_charges", [born.transpose(0, 2, 1)] * 2, [born] * 2)
    >>> text.partition(" (")[0]
    'born_effective_charges: labels = transposed predictions'
    """
    quantity = QUANTITIES[name]
    pairs = [
        (np.asarray(a, dtype=np.float64), np.asarray(b)) for a, b in zip(labels, predictions, strict=True)
    ]
    before = _rms([a - b for a, b in pairs])
    if before < LEAST * _rms([a for a, _ in pairs]):
        return None
    tensor = len(quantity.shape) == 2 and not quantity.symmetric
    if tensor and _rms([np.swapaxes(a, -1, -2) - b for a, b in pairs]) < LEFT * before:
        return f"{name}: labels = transposed predictions (rows and columns exchanged: see docs/heads.md)"
    if quantity.per != "atom" or quantity.shape != (3,) or len(pairs) < FRAMES:
        return None
    large = [(a, b) for a, b in pairs if len(a) >= ATOMS]
    if len(large) == len(pairs) and _rms([a - b @ _rotation(a, b) for a, b in pairs]) < LEFT * before:
        return (
            f"{name}: labels = predictions turned, in every frame: positions and labels are of different "
            "orientations (the standard one of Gaussian, LAMMPS' box), expected those of the positions"
        )
    if len({a.shape for a, _ in pairs}) == 1:
        order = _order(pairs)
        exchanged = int((order != np.arange(len(order))).sum())
        if exchanged and _rms([a[order] - b for a, b in pairs]) < LEFT * before:
            return (
                f"{name}: labels = predictions of other atoms ({exchanged} of {len(order)} exchanged, alike "
                "in every frame): another order (sorted by element?), expected that of the positions"
            )
    return None


def _rotation(label: Array, prediction: Array) -> Array:
    """The proper rotation that brings the predictions nearest to the labels (Kabsch)."""
    u, _, v = np.linalg.svd(prediction.T @ label)
    u[:, -1] *= np.sign(np.linalg.det(u @ v))
    return np.asarray(u @ v)


def _order(pairs: Sequence[tuple[Array, Array]]) -> NDArray[np.intp]:
    """Which label belongs to which atom, one assignment for all frames."""
    cost = sum(((a[None, :] - b[:, None]) ** 2).sum(axis=2) for a, b in pairs)
    return np.asarray(linear_sum_assignment(cost)[1])


def _rms(parts: Sequence[Array]) -> float:
    return float(np.sqrt(np.mean(np.concatenate([np.ravel(part) ** 2 for part in parts]))))
