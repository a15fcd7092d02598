"""Labels by Quantum ESPRESSO's pw.x, through ASE's input and output."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, ClassVar

import ase.io
from ase import Atoms

from mlplugins import files
from mlplugins.config import Positive
from mlplugins.errors import BadInput
from mlplugins.labels._contract import (
    CodeResult,
    LabelFailed,
    LabelSettings,
    require_periodicity,
    require_program,
    run_program,
)
from mlplugins.labels.command import read
from mlplugins.structures import state

INPUT, OUTPUT = "label.pwi", "label.pwo"
CONVERGED, NOT_CONVERGED, DONE = "convergence has been achieved", "convergence NOT achieved", "JOB DONE."
_VERSION = re.compile(r"Program PWSCF (v\.?\S+)")


class Settings(LabelSettings):
    """pw.x.

    Attributes:
        pseudo_dir: folder of the pseudopotentials.
        pseudopotentials: file of each element.
        input_data: sections of the input (`control`, `system`, `electrons`, …) with their keywords; a single
            point with forces and stress is added.
        kspacing: distance of the k points, 1/Å; None: Γ only, or `kpts`.
        kpts: numbers of k points.
        command: how pw.x is called; `-in label.pwi` is added.
    """

    pseudo_dir: str
    pseudopotentials: dict[str, str]
    input_data: dict[str, dict[str, Any]] = {}
    kspacing: Positive | None = None
    kpts: list[int] | None = None
    command: str = "pw.x"

    WORK: ClassVar = ("command", "pseudo_dir")

    def require(self) -> None:
        """Refuse pseudopotentials that are not there."""
        require_program(self.command)
        for name in self.pseudopotentials.values():
            if not (Path(self.pseudo_dir) / name).is_file():
                raise BadInput(f"labels: 'pseudopotentials': no file '{name}' in '{self.pseudo_dir}'")

    def located(self, base: Path) -> Any:
        """With the absolute path of the pseudopotentials."""
        return self.model_copy(update={"pseudo_dir": str((base / self.pseudo_dir).absolute())})

    def physics(self) -> dict[str, Any]:
        """The pseudopotentials by their content."""
        folder = Path(self.pseudo_dir)
        marks = {symbol: files.sha256(folder / name) for symbol, name in self.pseudopotentials.items()}
        return {**super().physics(), "pseudopotentials_sha256": marks}


def compute(settings: Settings, atoms: Atoms, folder: Path) -> CodeResult:
    """Label one structure."""
    missing = sorted(set(atoms.get_chemical_symbols()) - set(settings.pseudopotentials))
    if missing:
        raise LabelFailed(f"'pseudopotentials' has no {', '.join(missing)}")
    _require_charge(state.of(atoms.info).charge, settings)
    if "assume_isolated" not in settings.input_data.get("system", {}):
        remedy = "set pbc to T T T, with the vacuum you want, or 'system: assume_isolated' in 'input_data'"
        require_periodicity(atoms, "pw.x", remedy)
    fixed = {"calculation": "scf", "tprnfor": True, "tstress": bool(atoms.pbc.all()), "outdir": "./out"}
    sections = {**settings.input_data}
    sections["control"] = {**sections.get("control", {}), **fixed, "pseudo_dir": settings.pseudo_dir}
    ase.io.write(
        folder / INPUT,
        atoms,
        format="espresso-in",
        input_data=sections,
        pseudopotentials=settings.pseudopotentials,
        kspacing=settings.kspacing,
        kpts=settings.kpts,
    )
    words = [*shlex.split(settings.command), "-in", INPUT]
    status = run_program(words, folder, OUTPUT, settings.timeout)
    path = folder / OUTPUT
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    require_converged(text, status)
    version = _VERSION.search(text)
    return read(path, atoms, f"Quantum ESPRESSO {version.group(1) if version else ''}".strip())


def _require_charge(charge: float, settings: Settings) -> None:
    """Refuse a structure of another charge than the input is for."""
    given = float(settings.input_data.get("system", {}).get("tot_charge", 0.0))
    if charge != given:
        raise LabelFailed(
            f"the structure has a charge of {charge:g}, 'tot_charge' of 'input_data' is {given:g}; label "
            "structures of each charge with an input of their own"
        )


def require_converged(text: str, status: int = 0) -> None:
    """Refuse an output of electrons that did not converge, or of a run that did not end.

    Raises:
        LabelFailed: saying which.

    >>> require_converged("convergence has been achieved in 9 iterations ... JOB DONE.")
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()][-5:]
    if NOT_CONVERGED in text or CONVERGED not in text:
        raise LabelFailed("the electrons of pw.x did not converge", lines)
    if DONE not in text or status != 0:
        raise LabelFailed(f"pw.x did not come to its end (status {status})", lines)
