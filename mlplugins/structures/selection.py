"""Selecting a few rows from many: farthest points and CUR, from scikit-matter."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlplugins.errors import BadInput, MissingDependency, nearest

METHODS = ("fps", "cur", "random")


def choose(
    features: NDArray[np.float64],
    n: int,
    method: str,
    seed: int = 0,
    given: NDArray[np.float64] | None = None,
) -> list[int]:
    """Indices of `n` rows of `features` (M, D) in the order they were chosen; all rows if n ≥ M.

    `fps`: each row is the one farthest from all before it. `cur`: largest leverage in the leading singular
    vector of what the rows before do not span. `random`: uniformly. All begin the same way for the same seed.

    Args:
        features: (M, D).
        n: how many.
        method: see above.
        seed: of the first row.
        given: (G, D), rows that are there already: `fps` takes rows far from these as well.

    >>> sorted(choose(np.array([[0.0], [0.1], [1.0], [0.9]]), 2, "random", seed=3))
    [2, 3]
    >>> choose(np.eye(3)[:, :2], 1, "fps", given=np.array([[1.0, 0.1]]))
    [1]

    Raises:
        BadInput: an unknown method, n < 1.
    """
    if method not in METHODS:
        raise BadInput(f"selection method '{method}': {nearest(method, METHODS)}")
    if n < 1:
        raise BadInput(f"selection: expected to choose 1 or more, got {n}")
    if n >= len(features):
        return list(range(len(features)))
    rng = np.random.default_rng(seed)
    if method == "random":
        return [int(k) for k in rng.permutation(len(features))[:n]]
    if method == "fps" and given is not None and len(given):
        chosen = _run("FPS", np.vstack([given, features]), len(given) + n, initialize=list(range(len(given))))
        return [k - len(given) for k in chosen[len(given) :]]
    if n == 1 or method == "fps":
        return _run("FPS", features, n, initialize=int(rng.integers(len(features))))
    return _run("CUR", features, n, recompute_every=max(1, n // 20))


def _run(name: str, features: NDArray[np.float64], n: int, **options: Any) -> list[int]:
    try:
        from skmatter import sample_selection
    except ModuleNotFoundError as missing:
        raise MissingDependency(
            f"farthest points and CUR need the package '{missing.name}': pip install 'mlplugins[train]'"
        ) from missing
    selector = getattr(sample_selection, name)(n_to_select=n, **options)
    with warnings.catch_warnings():
        # CUR chose as many rows as there are dimensions: the others are all alike to it
        warnings.filterwarnings("ignore", message="Column vector contains only zeros")
        return [int(k) for k in selector.fit(features).selected_idx_]
