"""Frames of VASP runs whose electronic iteration ended at NELM, far from EDIFF.

Their energies and forces are read like any others. VASP 5.4 writes "EDIFF is reached" under them, too, so the
number of iterations and the last change of the energy decide.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

_NELM = re.compile(r"\bNELM\s*=\s*(\d+)")
_EDIFF = re.compile(r"\bEDIFF\s*=\s*([-+.\dEe]+)")
_ITERATION = re.compile(r"- Iteration\s*\d+\(\s*(\d+)\)")
_CHANGE = re.compile(r"total energy-change \(2\. order\)\s*:\s*([-+.\dEe]+)")
_XML_NUMBER = re.compile(r'<i (?:type="int" )?name="(NELM|EDIFF)">\s*([-+.\dEe]+)\s*</i>')
_XML_ENERGY = re.compile(r'name="e_fr_energy">\s*([-+.\dEe]+)')


def unconverged(path: Path | str) -> list[bool]:
    """For every ionic step of an OUTCAR or vasprun.xml: whether its electrons had not converged.

    Empty for other files.

    >>> unconverged("examples/data/li6ps5cl_pbe/test.extxyz")
    []
    """
    name = Path(path).name
    reader: Callable[[Iterator[str]], Iterator[bool]] | None = None
    if "OUTCAR" in name:
        reader = _outcar
    elif "vasprun" in name and ".xml" in name:
        reader = _vasprun
    if reader is None:
        return []
    with open(path, encoding="utf-8", errors="replace") as lines:
        return list(reader(lines))


def _outcar(lines: Iterator[str]) -> Iterator[bool]:
    most, wanted = 0, 0.0  # NELM, EDIFF
    iteration, change, given_up = 0, 0.0, False
    for line in lines:
        if found := _ITERATION.search(line):
            iteration = int(found[1])
        elif found := _CHANGE.search(line):
            change = abs(float(found[1]))
        elif "EDIFF was not reached" in line:
            given_up = True
        elif "free  energy   TOTEN" in line:  # of the ionic step: electronic ones are spaced otherwise
            yield given_up or (iteration == most and change > wanted)
            iteration, change, given_up = 0, 0.0, False
        elif not most and (found := _NELM.search(line)):
            most = int(found[1])
        elif found := _EDIFF.search(line):
            wanted = float(found[1])


def _vasprun(lines: Iterator[str]) -> Iterator[bool]:
    most, wanted = 0, 0.0
    energies: list[float] = []
    in_step = False
    for line in lines:
        if "<scstep>" in line:
            in_step = True
        elif "</scstep>" in line:
            in_step = False
        elif in_step and (found := _XML_ENERGY.search(line)):
            energies.append(float(found[1]))
        elif "</calculation>" in line:
            change = abs(energies[-1] - energies[-2]) if len(energies) > 1 else 0.0
            yield len(energies) == most and change > wanted  # responses to fields add more steps than NELM
            energies = []
        elif found := _XML_NUMBER.search(line):
            # the first NELM: those of later sections are of other loops
            most, wanted = (most or int(found[2]), wanted) if found[1] == "NELM" else (most, float(found[2]))
