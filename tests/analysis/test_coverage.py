"""Intervals and medians on many walks, with the harness of `benchmarks/coverage.py`."""

import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WALKS = 150


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "name",
    ["independent, 200 hops", "barriers 1 kT, 60 ps", "fcc traps 1 kT, 40 ps", "two states 10 ps, 40 ps"],
)
def test_intervals_hold_the_truth_and_medians_are_right(name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import coverage
    import motions

    (kind,) = [kind for kind in motions.KINDS if kind.name == name]
    rows = coverage.coverage(kind, WALKS, tmp_path, False, False)
    for quantity in ("D*", "D_σ", "H"):
        low, value, high, exact, sure = np.array(rows[quantity]).T
        assert ((low < exact) & (exact < high)).mean() >= 0.90, quantity
        # the median of a normal distribution
        error = 1.25 * np.std(np.log(value[value > 0])) / np.sqrt(WALKS)
        assert abs(np.log(np.median(value / exact))) < 0.03 + 2 * error, quantity
        assert (sure == 0).mean() < 0.12, quantity
    for module in ("coverage", "motions"):
        sys.modules.pop(module, None)
