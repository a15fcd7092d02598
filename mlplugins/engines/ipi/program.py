"""Paths of i-PI's program and of our driver file."""

from __future__ import annotations

import inspect
import shutil
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from mlplugins.engines.findings import Finding, package
from mlplugins.errors import MissingDependency

SKIN = 0.5
"""Default skin of the driver's neighbour list, Å."""

DRIVER = "mlplugins_driver.py"


def program() -> str:
    """The program `i-pi`, beside this Python or in the PATH.

    Raises:
        MissingDependency: there is none.
    """
    beside = Path(sys.executable).parent / "i-pi"
    found = str(beside) if beside.is_file() else shutil.which("i-pi")
    if found is None:
        raise MissingDependency("the program i-pi is not in the PATH: pip install 'mlplugins[ipi]'")
    return found


def sockets_prefix() -> str:
    """Where i-PI puts its unix sockets unless told otherwise.

    Raises:
        MissingDependency: i-PI is not installed.
    """
    try:
        from ipi.interfaces.sockets import InterfaceSocket  # slow, and not needed by files that are written
    except ImportError as error:
        raise MissingDependency(f"i-PI is missing ({error}): pip install 'mlplugins[ipi]'") from error
    return str(inspect.signature(InterfaceSocket).parameters["sockets_prefix"].default)


def driver_file() -> Path:
    """The driver file, in an installed wheel or in a source checkout.

    Raises:
        MissingDependency: it is not there.
    """
    folder = Path(str(resources.files("mlplugins")))
    for place in (folder / "ipi_drivers", folder.parent / "ipi_drivers"):
        if (place / DRIVER).is_file():
            return place / DRIVER
    raise MissingDependency(
        f"'{DRIVER}' is not in this installation: pip install --force-reinstall 'mlplugins[ipi]'"
    )


def diagnose() -> Iterator[Finding]:
    """Whether i-PI is installed."""
    yield package("ipi", "pip install 'mlplugins[ipi]'")
