"""Hyper-parameter search on logarithmic scales: refined grid, Nelder–Mead, BFGS, optuna's TPE."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from mlplugins.errors import BadInput, MissingDependency, RunFailed

METHODS = ("grid", "nelder-mead", "bfgs", "tpe")
REFUSED = 1e30
"""Score of values that may not be chosen, where an optimiser needs a number."""


@dataclass(frozen=True)
class Variable:
    """A positive number to be searched between `low` and `high`; `levels` of the first grid."""

    name: str
    low: float
    high: float
    levels: int


class Trial(NamedTuple):
    """Values that were tried, by name, and their score (the lower the better; infinite: refused)."""

    values: dict[str, float]
    score: float


Score = Callable[[dict[str, float]], float]


def search(
    method: str, variables: Sequence[Variable], score: Score, trials: int = 40, seed: int = 0
) -> list[Trial]:
    """All trials, in order; the caller takes the best.

    The grid is refined around its best point, halving its spacing, until `trials` are spent (the first grid
    is always completed). Nelder–Mead and BFGS start from the best point of a grid of half as many levels.

    Args:
        method: one of `METHODS`.
        variables: what to search.
        score: to be minimised; infinite where values are refused.
        trials: number of evaluations.
        seed: of TPE.

    >>> found = search("grid", [Variable("x", 0.01, 100.0, 5)], lambda v: (v["x"] - 2.0) ** 2, 11)
    >>> round(min(found, key=lambda t: t.score).values["x"], 2)
    1.78

    Raises:
        BadInput: an unknown method, bounds that are no interval.
        RunFailed: every trial was refused.
    """
    for v in variables:
        if not 0.0 < v.low <= v.high < math.inf:
            raise BadInput(f"search: bounds of {v.name}: expected 0 < low ≤ high, got {v.low}, {v.high}")
    book = _Book(variables, score)
    if method == "grid":
        _grid(book, trials)
    elif method == "tpe":
        _tpe(book, trials, seed)
    elif method in METHODS:
        _local(book, method, trials)
    else:
        raise BadInput(f"search.method: expected one of {', '.join(METHODS)}, got '{method}'")
    if all(math.isinf(t.score) for t in book.trials):
        raise RunFailed(
            "search: every trial was refused by the conditioning guard; widen the bounds towards shorter "
            "length "
            "scales and larger regularisation"
        )
    return book.trials


class _Book:
    """Trials so far; works on logarithms, within the bounds, and computes nothing twice."""

    def __init__(self, variables: Sequence[Variable], score: Score) -> None:
        self.variables = list(variables)
        self.score = score
        self.low = np.log([v.low for v in variables])
        self.high = np.log([v.high for v in variables])
        self.trials: list[Trial] = []
        self.known: dict[tuple[float, ...], float] = {}

    def __call__(self, logarithms: NDArray[np.float64] | Sequence[float]) -> float:
        point = np.clip(np.asarray(logarithms, dtype=np.float64), self.low, self.high)
        key = tuple(np.round(point, 9))
        if key not in self.known:
            values = {v.name: float(np.exp(x)) for v, x in zip(self.variables, point)}
            found = self.score(values)
            self.known[key] = found if math.isfinite(found) else math.inf
            self.trials.append(Trial(values, self.known[key]))
        return self.known[key]

    def best(self) -> NDArray[np.float64]:
        found = min(self.trials, key=lambda t: t.score)
        return np.log([found.values[v.name] for v in self.variables])

    def coarse(self, levels: Sequence[int]) -> NDArray[np.float64]:
        """Evaluate a grid; returns its spacing. The first variable is the slowest one."""
        axes = [np.linspace(a, b, n) for a, b, n in zip(self.low, self.high, levels)]
        for point in itertools.product(*axes):
            self(point)
        return np.array([(b - a) / max(n - 1, 1) for a, b, n in zip(self.low, self.high, levels)])


def _grid(book: _Book, trials: int) -> None:
    step = book.coarse([v.levels for v in book.variables])
    while len(book.trials) < trials and float(step.max()) > 1e-2:
        step = 0.5 * step
        center = book.best()
        for move in itertools.product(*[(-1, 0, 1)] * len(step)):
            book(center + np.array(move) * step)


def _local(book: _Book, method: str, trials: int) -> None:
    step = book.coarse([max(2, (v.levels + 1) // 2) for v in book.variables])
    start = book.best()

    def finite(x: Any) -> float:
        return min(book(x), REFUSED)

    if method == "nelder-mead":
        simplex = np.vstack(
            [start, start + 0.5 * np.diag(np.where(start + 0.5 * step <= book.high, step, -step))]
        )
        options: Any = {"initial_simplex": simplex, "maxfev": trials, "xatol": 0.02, "fatol": 1e-4}
        minimize(finite, start, method="Nelder-Mead", options=options)
        return
    bounds = list(zip(book.low, book.high))
    slopes: Any = {"maxfun": trials, "eps": 0.02}
    minimize(finite, start, method="L-BFGS-B", bounds=bounds, options=slopes)


def _tpe(book: _Book, trials: int, seed: int) -> None:
    try:
        import optuna
    except ImportError as missing:
        raise MissingDependency(
            "search.method: tpe needs optuna: pip install 'mlplugins[train]'"
        ) from missing

    def objective(trial: optuna.Trial) -> float:
        point = [trial.suggest_float(v.name, a, b) for v, a, b in zip(book.variables, book.low, book.high)]
        return min(book(point), REFUSED)

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        study.optimize(objective, n_trials=trials)
    finally:
        optuna.logging.set_verbosity(verbosity)
