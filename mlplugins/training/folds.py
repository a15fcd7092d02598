"""Splits of frames: random or stratified by energy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlplugins.errors import BadInput

Index = NDArray[np.int64]


def folds(
    energies: Sequence[float] | NDArray[np.float64], count: int, seed: int, stratified: bool
) -> list[Index]:
    """Divide N frames into `count` parts of equal size (±1), each sorted.

    Stratified: of every `count` frames that follow each other in energy each part gets one.

    >>> sorted(len(part) for part in folds([0.0, 3.0, 1.0, 2.0, 5.0], 2, seed=0, stratified=True))
    [2, 3]

    Raises:
        BadInput: fewer frames than parts, fewer than two parts.
    """
    n = len(energies)
    if count < 2 or n < count:
        raise BadInput(f"folds: expected 2 … {n} (the number of frames), got {count}")
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    if stratified:
        order = np.argsort(np.asarray(energies), kind="stable")
        for start in range(0, n, count):
            rng.shuffle(order[start : start + count])
    return [np.sort(order[k::count]) for k in range(count)]


def holdout(energies: Sequence[float], size: int, seed: int) -> Index:
    """`size` frames spread evenly over the energies: one at random out of each of `size` equal groups.

    >>> holdout([5.0, 1.0, 4.0, 0.0], 2, 0).tolist()
    [0, 1]
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(np.asarray(energies), kind="stable")
    return np.sort([int(rng.choice(part)) for part in np.array_split(order, size)])
