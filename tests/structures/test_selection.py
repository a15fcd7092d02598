import numpy as np
import pytest

from mlplugins.errors import BadInput
from mlplugins.structures.selection import choose


def _features(n=60):
    """Rows near a 4-dimensional subspace of 12 dimensions."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 4)) @ rng.normal(size=(4, 12)) + 1e-3 * rng.normal(size=(n, 12))


@pytest.mark.long
def test_every_farthest_point_is_farthest_from_those_before():
    x = _features()
    chosen = choose(x, 10, "fps", seed=5)
    for k in range(1, 10):
        distances = np.linalg.norm(x[:, None] - x[chosen[:k]], axis=2).min(axis=1)
        assert distances[chosen[k]] == pytest.approx(distances.max(), rel=1e-9)


def test_cur_rebuilds_the_rows_better_than_chance():
    x = _features()

    def error(rows):
        basis = x[rows]
        return np.linalg.norm(x - x @ np.linalg.pinv(basis) @ basis)

    chance = np.mean([error(choose(x, 4, "random", seed)) for seed in range(20)])
    assert error(choose(x, 4, "cur")) < 0.8 * chance


@pytest.mark.parametrize("method", ["fps", "cur", "random"])
def test_choice_is_distinct_and_repeatable(method):
    x = _features()
    chosen = choose(x, 15, method, seed=1)
    assert len(set(chosen)) == 15
    assert chosen == choose(x, 15, method, seed=1)
    assert sorted(choose(x, 100, method)) == list(range(60))


@pytest.mark.parametrize(("n", "method", "text"), [(0, "fps", "1 or more"), (2, "fsp", "did you mean 'fps'")])
def test_wrong_use_is_refused(n, method, text):
    with pytest.raises(BadInput, match=text):
        choose(_features(), n, method)
