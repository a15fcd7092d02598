import json
import math

import numpy as np
import pytest

from mlplugins.checks.result import Check


@pytest.mark.parametrize(
    ("value", "passed"), [(0.0, True), (1.0, True), (1.1, False), (math.nan, False), (math.inf, False)]
)
def test_only_a_finite_value_within_the_limit_passes(value, passed):
    check = Check("energy", "ase", 1, value, 1.0, "eV")
    assert check.passed is passed
    assert json.dumps(Check("energy", "ase", 1, np.float64(value), 1.0, "eV").record())
    assert set(check.record()) >= {"name", "engine", "ranks", "value", "limit", "unit", "passed"}
