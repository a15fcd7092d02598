"""Fixture of the tests of the native ops."""

import pytest

from mlplugins import ops


@pytest.fixture(scope="module")
def compiled(native_build):
    """The library loaded in this process; fails, not skips, where it is not."""
    if ops.load() != "compiled":
        pytest.fail("the native library is built but not loaded: run this test in a process of its own")
