"""Fixtures for all tests: the native build, the reference data, quiet threads."""

import gc
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mlplugins.ops import compiler

from . import pictures, scripting, warm
from .budget import pytest_runtest_call, pytest_runtest_makereport  # noqa: F401

ROOT = Path(__file__).parents[1]
OPS = ROOT / "tests" / "ops"
MEMORY, ROOM_BYTES = Path("/dev/shm"), 4e9
pictures.switch_off()
scripting.speed_up()
# i-PI, campaigns and models wait for the disk at each line or file that they write
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
# ranks that wait for each other let others have the core: two workers on two cores start two ranks each
os.environ.setdefault("MPIR_CVAR_POLLS_BEFORE_YIELD", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark what starts an engine; files with long tests first, lest the last worker be alone with one.

    Whatever uses the native build starts an engine, but for the tests of the ops, which run here.
    """
    for item in items:
        starts = {"native_build", "processes"} & set(getattr(item, "fixturenames", ()))
        if starts and OPS not in item.path.parents:
            item.add_marker("engine")
    slow = [item for item in items if item.get_closest_marker("slow")]
    engines = Counter(item.path for item in slow if item.get_closest_marker("engine"))
    others = Counter(item.path for item in slow)
    items.sort(key=lambda item: (-engines[item.path], -others[item.path]))


def pytest_collection_finish():
    """What has been imported and collected stays: no garbage is looked for there, no fork copies it."""
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """TorchScript specialises a model for seconds when it meets a second structure: only in slow tests.

    (And where a test asks for it; engines in processes of their own always do.)
    """
    if item.get_closest_marker("slow"):
        return (yield)
    before = _fusion_strategy([])
    try:
        return (yield)
    finally:
        _fusion_strategy(before)


def _fusion_strategy(strategy):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.set_fusion_strategy(strategy)


@pytest.fixture(scope="session")
def native_build():
    """The compiled plug-in; a test that needs it fails, not skips, if it cannot be built."""
    compiler.build()


@pytest.fixture
def warm_start() -> Iterator[None]:
    """Programs in Python start as forks of this process; see `warm`."""
    with warm.starts():
        yield


@pytest.fixture
def drawn() -> Iterator[None]:
    """Pictures are drawn; see `pictures`."""
    with pictures.drawn():
        yield


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """Folder of the reference data sets."""
    folder = os.environ.get("MLPLUGINS_REFERENCE_DATA")
    if not folder:
        pytest.skip("reference data not here: MLPLUGINS_REFERENCE_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def li6ps5cl() -> Path:
    """This project's own PBE data set."""
    return ROOT / "examples" / "data" / "li6ps5cl_pbe"
