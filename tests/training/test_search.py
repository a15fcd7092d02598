import math

import numpy as np
import optuna
import pytest

from mlplugins.errors import BadInput, RunFailed
from mlplugins.training import folds, learning_curve
from mlplugins.training.search import METHODS, Variable, search

VARIABLES = [Variable("sigma", 1e-2, 1e3, 6), Variable("lam", 1e-12, 1e-2, 6)]


def bowl(values):
    """Minimum at sigma = 3, lam = 1e-7; refused for large sigma."""
    if values["sigma"] > 300:
        return math.inf
    return 1 + math.log(values["sigma"] / 3) ** 2 + 0.1 * math.log(values["lam"] / 1e-7) ** 2


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_minimum(method):
    trials = search(method, VARIABLES, bowl, 80, seed=1)
    best = min(trials, key=lambda t: t.score)
    assert best.score < 1.25
    assert all(1e-2 * 0.999 <= t.values["sigma"] <= 1e3 * 1.001 for t in trials)
    assert len(trials) < 140


def test_optuna_speaks_as_before():
    before = optuna.logging.get_verbosity()
    search("tpe", VARIABLES[:1], lambda v: v["sigma"], 2)
    assert optuna.logging.get_verbosity() == before != optuna.logging.ERROR


def test_nothing_is_computed_twice():
    seen = []
    search("grid", VARIABLES, lambda v: seen.append(tuple(v.values())) or bowl(v), 80)
    assert len(seen) == len(set(seen))


def test_refusals():
    with pytest.raises(BadInput, match="bounds of sigma"):
        search("grid", [Variable("sigma", 2.0, 1.0, 3)], bowl)
    with pytest.raises(RunFailed, match="conditioning guard"):
        search("grid", [Variable("sigma", 1.0, 2.0, 3)], lambda v: math.inf)


def test_folds_are_a_partition_and_stratified_ones_have_equal_means():
    energies = np.random.default_rng(0).normal(size=103)
    spread = {}
    for stratified in (False, True):
        parts = folds.folds(energies, 5, 0, stratified)
        assert sorted(np.concatenate(parts).tolist()) == list(range(103))
        spread[stratified] = float(np.std([energies[p].mean() for p in parts]))
    assert spread[True] < 0.4 * spread[False]
    with pytest.raises(BadInput, match="folds"):
        folds.folds(energies[:3], 4, 0, False)


def test_a_power_law_with_a_floor_is_recovered():
    sizes = [25, 50, 100, 200, 400, 800]
    law = learning_curve.fit(sizes, [2.0 + 300.0 / n**0.8 for n in sizes])
    assert law.a == pytest.approx(2.0, rel=1e-2)
    assert law.b == pytest.approx(300.0, rel=2e-2)
    assert law.c == pytest.approx(0.8, rel=1e-2)
    assert law(1600) == pytest.approx(2.0 + 300.0 / 1600**0.8, rel=1e-3)
    with pytest.raises(BadInput, match="two sizes"):
        learning_curve.fit([10], [1.0])
