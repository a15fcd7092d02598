"""Every test has 30 s: of processor time, its child processes included, lest a busy machine fail it.

A slower or shared processor needs more of it: a fixed calculation, timed after a long test, gives the factor.
What fixtures make for several tests is not counted. Tests marked `exhaustive` have no limit.

Where MLPLUGINS_TEST_TIMES names a file, a line is added to it for each set-up, call and teardown: processor
seconds, seconds by the clock, which of the three, test. What fixtures make for several tests is in the set-up
of the first, the start of the process too.
"""

import os
import time

import pytest

BUDGET_S = 30.0
REFERENCE_S = 0.017
"""Of `_calculation` on the machine on which the limit was set."""
PHASE_START = pytest.StashKey[float]()


def _used() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _calculation() -> float:
    start = time.process_time()
    sum(k * k for k in range(400_000))
    return time.process_time() - start


def slowness() -> float:
    """How many times slower than the reference this processor is, at least 1."""
    return max(1.0, min(_calculation() for _ in range(5)) / REFERENCE_S)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Write down what the phase of the test has used since the one before."""
    report = yield
    file = os.environ.get("MLPLUGINS_TEST_TIMES")
    if file:
        start = item.config.stash.get(PHASE_START, 0.0)
        item.config.stash[PHASE_START] = _used()
        with open(file, "a") as lines:
            lines.write(f"{_used() - start:.3f}\t{call.duration:.3f}\t{call.when}\t{item.nodeid}\n")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Fail a test that has used more."""
    start = _used()
    result = yield
    used = _used() - start
    if used <= BUDGET_S or item.get_closest_marker("exhaustive"):
        return result
    used /= slowness()
    if used > BUDGET_S:
        pytest.fail(
            f"took {used:.2g} s of processor time; a test has {BUDGET_S:g} s: make it cheaper, or mark it "
            "exhaustive if another shows the same",
            pytrace=False,
        )
    return result
