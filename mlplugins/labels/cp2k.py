"""Labels by CP2K, with the settings of an input file of one's own.

Whether the electrons converged is read from the output: CP2K before 2024.1 ends with status 0, energy and
forces printed, although they did not.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlplugins import files
from mlplugins.labels._contract import CodeResult, LabelFailed, LabelSettings, require_program, run_program
from mlplugins.labels._cp2k_input import single_point
from mlplugins.units import A_PER_BOHR, BAR_PER_EV_A3, EV_PER_HARTREE, GPA_PER_EV_A3

INPUT, OUTPUT = "label.inp", "label.out"
STARTED, ENDED = "PROGRAM STARTED AT", "PROGRAM ENDED AT"
CONVERGED, NOT_CONVERGED = "SCF run converged", "SCF run NOT converged"
LINES = 5
STRESS_UNITS = {"GPa": GPA_PER_EV_A3, "bar": BAR_PER_EV_A3}
_NUMBER = r"([-+]?\d+\.\d+(?:[EeDd][-+]?\d+)?)"
_ENERGY = re.compile(rf"ENERGY\| Total FORCE_EVAL \( (\w+) \) energy \[(?:a\.u\.|hartree)\]:?\s+{_NUMBER}")
_FORCE = re.compile(rf"^ *\d+ +\d+ +[A-Za-z]+\w* +{_NUMBER} +{_NUMBER} +{_NUMBER} *$", re.M)
_NEW_FORCE = re.compile(rf"^ *FORCES\| +\d+ +{_NUMBER} +{_NUMBER} +{_NUMBER}", re.M)
_STRESS = re.compile(rf"^ *STRESS\| +[xyz] +{_NUMBER} +{_NUMBER} +{_NUMBER} *$", re.M)
_STRESS_HEAD = re.compile(r"STRESS\| Analytical stress tensor \[(\w+)\]")
_VERSION = re.compile(r"CP2K\| version string:\s+(.+)")


class Settings(LabelSettings):
    """CP2K.

    Attributes:
        input: an input file of yours; cell and coordinates are replaced, forces and stress asked for, all
            else stays.
        command: how CP2K is called; ` -i label.inp` is added.
        set: keywords with other values, such as `FORCE_EVAL/DFT/SCF/MAX_SCF: 80`; for `retries`.
    """

    input: str
    command: str = "cp2k.psmp"
    set: dict[str, str | int | float] = {}

    FILES: ClassVar = ("input",)
    WORK: ClassVar = ("command",)

    def require(self) -> None:
        """Refuse an input or a program that is not there."""
        super().require()
        require_program(self.command)

    def physics(self) -> dict[str, Any]:
        """The input by its content."""
        return {**super().physics(), "input_sha256": files.sha256(Path(self.input))}


def compute(settings: Settings, atoms: Atoms, folder: Path) -> CodeResult:
    """Label one structure."""
    given = Path(settings.input)
    text = single_point(given.read_text(encoding="utf-8"), str(given), atoms, settings.set)
    files.write_text(folder / INPUT, text)
    words = [*shlex.split(settings.command), "-i", INPUT]
    status = run_program(words, folder, OUTPUT, settings.timeout)
    return read(files_text(folder / OUTPUT), len(atoms), status)


def files_text(path: Path) -> str:
    """The text of an output, whatever bytes a crash has left in it."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def read(text: str, n_atoms: int, status: int = 0) -> CodeResult:
    """The label in an output of CP2K 2023 or later, of its last start if it was appended to.

    Args:
        text: the output.
        n_atoms: of the structure.
        status: with which CP2K ended.

    Raises:
        LabelFailed: it did not end or not converge, or the output lacks something.
    """
    text = text[max(text.rfind(STARTED), 0) :]
    lines = [line.strip() for line in text.splitlines() if line.strip()][-LINES:]
    if NOT_CONVERGED in text:
        raise LabelFailed("the SCF did not converge", lines)
    if ENDED not in text:
        raise LabelFailed(f"CP2K did not come to its end (status {status})", lines)
    if status != 0:
        raise LabelFailed(f"CP2K ended with status {status}", lines)
    energies = _ENERGY.findall(text)
    if not energies:
        raise LabelFailed("the output of CP2K has no energy", lines)
    method, energy = energies[-1]
    if method == "QS" and CONVERGED not in text:
        raise LabelFailed(f"the output of CP2K does not say '{CONVERGED}'", lines)
    forces = _forces(text)
    if forces.shape != (n_atoms, 3):
        raise LabelFailed(f"the output of CP2K has {len(forces)} forces, expected {n_atoms}", lines)
    version = _VERSION.search(text)
    code = version.group(1).strip() if version else "CP2K"
    return CodeResult(float(energy) * EV_PER_HARTREE, forces, _stress(text), code)


def _forces(text: str) -> NDArray[np.float64]:
    """(N, 3), eV/Å, from the table of CP2K 2023 or that of 2024 on."""
    _, old, after = text.rpartition("ATOMIC FORCES in [a.u.]")
    rows = _FORCE.findall(after.partition("SUM OF ATOMIC FORCES")[0]) if old else _NEW_FORCE.findall(text)
    values = [[float(word.upper().replace("D", "E")) for word in row] for row in rows]
    return np.array(values).reshape(-1, 3) * EV_PER_HARTREE / A_PER_BOHR


def _stress(text: str) -> NDArray[np.float64] | None:
    """(3, 3), eV/Å³; CP2K prints it like a pressure, with the opposite of ASE's sign."""
    head = _STRESS_HEAD.search(text)
    if head is None:
        return None
    rows = _STRESS.findall(text[head.end() :])[:3]
    if head.group(1) not in STRESS_UNITS or len(rows) < 3:
        raise LabelFailed(f"the stress of CP2K is in {head.group(1)}; expected GPa or bar, and three rows")
    printed = np.array([[float(word.upper().replace("D", "E")) for word in row] for row in rows])
    return -0.5 * (printed + printed.T) / STRESS_UNITS[head.group(1)]
