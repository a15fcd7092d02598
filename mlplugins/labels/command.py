"""Labels by any program: a command that is run in a folder with the structure, and whose output ASE reads."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import ase.io
from ase import Atoms
from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat

from mlplugins.errors import BadInput
from mlplugins.labels._contract import CodeResult, LabelFailed, LabelSettings, run_program, same_structure
from mlplugins.structures import dataset

LOG = "command.log"


class Settings(LabelSettings):
    """A command.

    Attributes:
        command: for the shell; its working directory is new and holds the structure. What it prints is kept
            in command.log.
        structure: name of the file of the structure that the command reads.
        structure_format: ASE's name of its format; by the name if absent.
        output: the file that it writes, in any format that ASE reads with energy and forces.
        log: file in which `converged` and `not_converged` are sought.
        converged: text that the log must hold.
        not_converged: text that it must not hold.
        code: name and version of the program, for the record.
    """

    command: str
    output: str
    structure: str = "structure.extxyz"
    structure_format: str | None = None
    log: str = LOG
    converged: str | None = None
    not_converged: str | None = None
    code: str = "command"

    WORK: ClassVar = ("structure", "structure_format")

    def require(self) -> None:
        """Refuse a format that ASE does not write."""
        require_format(self.structure, self.structure_format)


def require_format(name: str, form: str | None) -> None:
    """Refuse a file of structures whose format ASE does not know."""
    try:
        get_ioformat(form or filetype(name, read=False))
    except UnknownFileTypeError as error:
        raise BadInput(f"labels: 'structure': ASE knows no format of '{form or name}' ({error})") from error


def compute(settings: Settings, atoms: Atoms, folder: Path) -> CodeResult:
    """Label one structure."""
    ase.io.write(folder / settings.structure, atoms, format=settings.structure_format)
    status = run_program(["sh", "-c", settings.command], folder, LOG, settings.timeout)
    log = folder / settings.log
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()][-5:]
    if settings.not_converged is not None and settings.not_converged in text:
        raise LabelFailed(f"{settings.log} says '{settings.not_converged}'", lines)
    if settings.converged is not None and settings.converged not in text:
        raise LabelFailed(f"{settings.log} does not say '{settings.converged}'", lines)
    if status != 0:
        raise LabelFailed(f"the command ended with status {status}", lines)
    return read(folder / settings.output, atoms, settings.code)


def read(path: Path, atoms: Atoms, code: str) -> CodeResult:
    """The label in the last frame of a file.

    Raises:
        LabelFailed: no such file, other atoms, unconverged electrons (VASP), no energy or forces.
    """
    try:
        structure = dataset.read(str(path))[-1]
    except BadInput as error:
        raise LabelFailed(str(error)) from error
    if structure.unconverged:
        raise LabelFailed(f"{path.name}: the electrons have not converged")
    if structure.energy is None or structure.forces is None:
        raise LabelFailed(f"{path.name} holds no energy or no forces")
    same_structure(atoms, structure.to_atoms(), path.name)
    return CodeResult(structure.energy, structure.forces, structure.stress, code)
