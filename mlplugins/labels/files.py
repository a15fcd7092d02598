"""Labels from elsewhere: folders with structures are written, and whoever labels puts a result into them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import ase.io
from ase import Atoms

from mlplugins.errors import BadInput
from mlplugins.labels._contract import CodeResult, LabelSettings
from mlplugins.labels.command import read, require_format


class Settings(LabelSettings):
    """By hand, or by a job script.

    Attributes:
        output: the file that is waited for in the folder of each structure; any format that ASE reads with
            energy and forces.
        structure: name of a file in which the structure is written, for the code that labels.
        structure_format: ASE's name of its format; by the name if absent.
        command: run by the job script in the folder of each structure; None: no script.
        code: name and version of the program, for the record.
    """

    output: str = "result.extxyz"
    structure: str = "structure.extxyz"
    structure_format: str | None = None
    command: str | None = None
    code: str = "by hand"

    WORK: ClassVar = ("structure", "structure_format", "command", "output")

    def require(self) -> None:
        """Refuse a format that ASE does not write, and to label what somebody else does."""
        require_format(self.structure, self.structure_format)
        if self.cluster:
            raise BadInput("labels: 'cluster': with 'kind: files' somebody else labels; leave it out")

    def is_awaited(self, folder: Path, atoms: Atoms) -> bool:
        """Whether there is no result yet; the file of the structure is written."""
        path = folder / self.structure
        if not path.is_file():
            ase.io.write(path, atoms, format=self.structure_format)
        return not (folder / self.output).is_file()

    def job(self) -> str | None:
        """Run in the folder of a structure."""
        return self.command


def compute(settings: Settings, atoms: Atoms, folder: Path) -> CodeResult:
    """Read the label of one structure."""
    return read(folder.parent / settings.output, atoms, settings.code)
