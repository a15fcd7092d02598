"""Every test has 30 s: of processor time, its child processes included, lest a busy machine fail it.

A slower processor needs more of it: a fixed calculation, timed once, gives the factor. What fixtures make for
several tests is not counted. Tests marked `exhaustive` have no limit.
"""

import functools
import os
import time

import pytest

BUDGET_S = 30.0
REFERENCE_S = 0.017
"""Of `_calculation` on the machine on which the limit was set."""


def _used() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _calculation() -> float:
    start = time.process_time()
    sum(k * k for k in range(400_000))
    return time.process_time() - start


@functools.cache
def slowness() -> float:
    """How many times slower than the reference this processor is, at least 1."""
    return max(1.0, min(_calculation() for _ in range(5)) / REFERENCE_S)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Fail a test that has used more."""
    start = _used()
    result = yield
    used = (_used() - start) / slowness()
    if used > BUDGET_S and not item.get_closest_marker("exhaustive"):
        pytest.fail(
            f"took {used:.2g} s of processor time; a test has {BUDGET_S:g} s: make it cheaper, or mark it "
            "exhaustive if another shows the same",
            pytrace=False,
        )
    return result
