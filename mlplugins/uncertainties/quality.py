"""How good predicted standard deviations σ are, judged by the errors ε of values that were not trained on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, spearmanr

Array = NDArray[np.float64]

FEWEST = 19
"""Values for a 95 % interval that holds whatever the distribution: n + 1 ≥ 1/0.05."""

REMOVED = np.linspace(0.0, 0.95, 20)
"""Fractions of the values left out by `sparsification`."""


NORMAL_LOG = 0.5 * (np.euler_gamma + math.log(2.0))
"""−E ln|z| of a standard normal z: so much smaller is an error than its σ, in the mean of logarithms."""


def quality(errors: Array, deviations: Array) -> dict[str, Any]:
    """Calibration, sharpness and ranking in one table.

    Args:
        errors: (n,), prediction − label.
        deviations: (n,), predicted standard deviations.

    Returns:
        `n`; `z_mean`, `z_rms` of z = ε/σ (0, 1); `coverage_68`, `coverage_95`: share of values within the
        central 68.27 and 95 % intervals; `nll`: mean negative log likelihood; `rll_percent`: relative log
        likelihood, 0 as good as one constant σ, 100 if σ = |ε| (Kellner and Ceriotti 2024);
        `rll_exact_percent`: what σ known exactly would reach, were these errors normal ones of it (0: they
        have one σ); `spearman` of σ and |ε|; `ause`: area between the sparsification curve and the one by
        true errors, over the RMSE (0: best; a σ that tells nothing: `ause_random`); `conformal_95`: factor q
        for which ε lies within ± q σ in 95 % of values exchangeable with these; None of fewer than 19.

    >>> rng = np.random.default_rng(0)
    >>> s = rng.uniform(0.1, 2.0, 20000)
    >>> found = quality(rng.normal(0.0, s), s)
    >>> [round(found[key], 1) for key in ("z_rms", "coverage_68", "coverage_95", "conformal_95")]
    [1.0, 0.7, 0.9, 2.0]
    >>> abs(found["rll_percent"] - found["rll_exact_percent"]) < 1.0
    True
    """
    z = errors / deviations
    constant = np.full(len(errors), math.sqrt(float(np.mean(errors**2))))
    oracle = np.maximum(np.abs(errors), 1e-6 * constant)
    own, none, best = (_nll(errors, s) for s in (deviations, constant, oracle))
    spread = none - best
    ranked = len(errors) > 2 and np.ptp(deviations) > 0
    return {
        "n": len(errors),
        "z_mean": float(np.mean(z)),
        "z_rms": float(np.sqrt(np.mean(z**2))),
        "coverage_68": float(np.mean(np.abs(z) < 1.0)),
        "coverage_95": float(np.mean(np.abs(z) < norm.ppf(0.975))),
        "nll": own,
        "rll_percent": 100.0 * (none - own) / spread if spread > 0 else 0.0,
        "rll_exact_percent": 100.0 * max(0.0, 1.0 - NORMAL_LOG / spread) if spread > 0 else 0.0,
        "spearman": float(spearmanr(deviations, np.abs(errors))[0]) if ranked else None,
        "ause": _area(errors, deviations),
        "ause_random": _area(errors, None),
        "conformal_95": conformal(errors, deviations, 0.95),
    }


def conformal(errors: Array, deviations: Array, share: float) -> float | None:
    """The ⌈(n + 1) share⌉-th smallest |ε|/σ; None if n is too small for it."""
    rank = math.ceil((len(errors) + 1) * share)
    if rank > len(errors):
        return None
    return float(np.sort(np.abs(errors / deviations))[rank - 1])


def sparsification(errors: Array, order_by: Array) -> Array:
    """RMSE of what is left when the fractions `REMOVED` with the largest `order_by` are left out."""
    squares = errors[np.argsort(order_by, kind="stable")] ** 2
    kept = [max(1, round(len(squares) * (1.0 - fraction))) for fraction in REMOVED]
    return np.sqrt(np.cumsum(squares)[np.array(kept) - 1] / np.array(kept))


def _area(errors: Array, deviations: Array | None) -> float:
    """Mean distance of two sparsification curves over the RMSE of all; None: of a σ that tells nothing."""
    ideal = sparsification(errors, np.abs(errors))
    own = np.full(len(REMOVED), ideal[0]) if deviations is None else sparsification(errors, deviations)
    return float(np.mean(own - ideal) / ideal[0]) if ideal[0] > 0 else 0.0


def _nll(errors: Array, deviations: Array) -> float:
    return float(0.5 * np.mean((errors / deviations) ** 2 + np.log(2.0 * math.pi * deviations**2)))
