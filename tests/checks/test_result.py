import math

import pytest

from mlplugins.checks.result import Check


@pytest.mark.parametrize(
    ("value", "passed"), [(0.0, True), (1.0, True), (1.1, False), (math.nan, False), (math.inf, False)]
)
def test_only_a_finite_value_within_the_limit_passes(value, passed):
    check = Check("energy", "ase", 1, value, 1.0, "eV")
    assert check.passed is passed
    assert set(check.record()) >= {"name", "engine", "ranks", "value", "limit", "unit", "passed"}
