"""Contract of a kind of label: `labels/NAME.py` with `Settings`, a subclass of `LabelSettings`, and
`compute(settings, atoms, folder)`; the kinds are found by the names of their files."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlplugins import registry
from mlplugins.config import Count, Positive, Section, validated
from mlplugins.dynamics.output import last_lines
from mlplugins.dynamics.process import RunningStage
from mlplugins.dynamics.run import Command, Stage
from mlplugins.dynamics.settings import Cluster
from mlplugins.errors import BadInput, RunFailed

PACKAGE = "mlplugins.labels"
POLL_S = 0.02
OTHER_ATOMS_A = 1e-3
"""Atoms farther from where they were asked for, or such a cell, are another structure."""


class LabelFailed(RunFailed):
    """No label of this structure: the code failed, did not converge or gave what cannot be.

    Args:
        reason: in words.
        lines: last messages of the code.
    """

    def __init__(self, reason: str, lines: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.lines = list(lines)


@dataclass(frozen=True)
class CodeResult:
    """What a code said of one structure.

    Attributes:
        energy: eV.
        forces: (N, 3), eV/Å.
        stress: (3, 3), eV/Å³ in ASE's sign; None if there is none.
        code: its name and version.
    """

    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64] | None
    code: str


class LabelSettings(Section):
    """Keys that every kind has; a kind adds its own.

    Attributes:
        kind: of label.
        store: folder of the labels; None = one beside the output.
        timeout: of one attempt, s.
        parallel: structures at the same time.
        retries: keys of the kind with other values, one mapping for each further attempt; then the structure
            is given up.
        jobs: number of jobs of a scheduler's array: write the script, compute nothing here.
        cluster: of `mlplugins simulate`: label in jobs of a scheduler, through Parsl, and wait for them.
        max_force: larger forces are no label, eV/Å.
        energy_window: energies farther from the median of their composition are no label, eV per atom.
    """

    kind: str
    store: str | None = None
    timeout: Positive = 3600.0
    parallel: Count = 1
    retries: list[dict[str, Any]] = []
    jobs: Count | None = None
    cluster: Cluster | None = None
    max_force: Positive = 100.0
    energy_window: Positive = 5.0

    FILES: ClassVar[tuple[str, ...]] = ()
    """Keys of the kind that name files."""
    WORK: ClassVar[tuple[str, ...]] = ()
    """Keys of the kind that do not change the labels."""

    def located(self, base: Path) -> Self:
        """With paths that do not depend on the working directory; given ones are relative to `base`."""
        paths = {key: str((base / value).absolute()) for key in self.FILES if (value := getattr(self, key))}
        return self.model_copy(update=paths)

    def require(self) -> None:
        """Refuse what cannot work, before any label is computed."""
        for key in self.FILES:
            path = getattr(self, key)
            if path and not Path(path).is_file():
                raise BadInput(f"labels: '{key}': no such file: '{path}'")

    def physics(self) -> dict[str, Any]:
        """All that the labels depend on; one store holds labels of one such set."""
        left_out = {*set(LabelSettings.model_fields) - {"kind"}, *self.WORK, *self.FILES}
        return self.model_dump(mode="json", exclude=left_out)

    def is_awaited(self, folder: Path, atoms: Atoms) -> bool:
        """Whether somebody else has still to put a result into the folder of this structure."""
        return False

    def job(self) -> str | None:
        """What a job script runs in the folder of a structure; None: the label is computed by a worker."""
        return None

    def attempt(self, number: int) -> Self:
        """As they are in an attempt, numbered from 0."""
        change = self.retries[number - 1] if number else {}
        return validated(type(self), {**self.model_dump(), **change}, f"labels: 'retries', {number}")


class Kind(Protocol):
    """A module with these names."""

    Settings: type[LabelSettings]

    def compute(self, settings: Any, atoms: Atoms, folder: Path) -> CodeResult:
        """Label one structure.

        Args:
            settings: of the file's own `Settings`.
            atoms: the structure.
            folder: new and empty, for the files of the code, which stay; the working directory.

        Raises:
            LabelFailed: there is no label, and why.
        """


def kinds() -> list[str]:
    """Names of the kinds.

    >>> {"emt", "cp2k"} <= set(kinds())
    True
    """
    return registry.available(PACKAGE)


def load_kind(name: str) -> Any:
    """The module of a kind (`Kind`)."""
    return registry.load(PACKAGE, name, "kind of label")


def settings_of(content: Mapping[str, Any], where: str) -> LabelSettings:
    """The settings of labels that were read from `where`, retries checked as well.

    Raises:
        BadInput: no such kind, unknown or ill-typed keys.

    >>> settings_of({"kind": "emt"}, "labels.yaml").kind
    'emt'
    """
    name = content.get("kind")
    if not isinstance(name, str):
        raise BadInput(f"{where}: missing key 'kind': which code labels; one of {', '.join(kinds())}")
    settings: LabelSettings = validated(load_kind(name).Settings, content, where)
    if settings.jobs and settings.cluster:
        raise BadInput(f"{where}: 'jobs' writes a script, 'cluster' submits by itself; leave one of them out")
    for number, change in enumerate(settings.retries, 1):
        fixed = sorted(set(change) & (set(LabelSettings.model_fields) - {"timeout", "max_force"}))
        if fixed:
            raise BadInput(f"{where}: 'retries', {number}: '{fixed[0]}' is the same in every attempt")
        settings.attempt(number)
    return settings


def same_structure(asked: Atoms, got: Atoms, code: str) -> None:
    """Refuse results of other atoms than were asked for.

    Raises:
        LabelFailed: naming the difference.
    """
    if len(asked) != len(got) or (asked.numbers != got.numbers).any():
        raise LabelFailed(
            f"{code} computed {got.get_chemical_formula()}, asked for was "
            f"{asked.get_chemical_formula()}, or in another order"
        )
    moved = got.positions - asked.positions
    if asked.pbc.any():
        fractions = np.linalg.solve(asked.cell.complete().T, moved.T).T
        moved = (fractions - np.rint(fractions) * asked.pbc) @ asked.cell.complete()
        if np.abs(got.cell.array - asked.cell.array)[asked.pbc].max() > OTHER_ATOMS_A:
            raise LabelFailed(f"{code} computed another cell than was asked for")
    if len(asked) and np.abs(moved).max() > OTHER_ATOMS_A:
        raise LabelFailed(f"{code} moved an atom by {np.abs(moved).max():.3g} Å: set it to a single point")


def require_periodicity(atoms: Atoms, code: str, remedy: str) -> None:
    """Refuse for a code that would compute it as periodic in three directions what is periodic in fewer.

    Args:
        atoms: the structure.
        code: its name, with the version that was seen to do so.
        remedy: what else can be done.

    Raises:
        LabelFailed: with the flags.

    >>> require_periodicity(Atoms("H", cell=[9, 9, 9], pbc=True), "code", "")
    """
    if not atoms.pbc.all():
        flags = " ".join("TF"[not periodic] for periodic in atoms.pbc)
        raise LabelFailed(
            f"pbc {flags}, but {code} computes the structure as periodic in all three directions, with the "
            f"images that the cell leaves; {remedy}"
        )


def require_program(command: str) -> None:
    """Refuse a command whose program is not there.

    >>> require_program("no-code -np 4")
    Traceback (most recent call last):
    ...
    mlplugins.errors.BadInput: labels: 'command': no program 'no-code' in PATH: install it or name its path
    """
    words = shlex.split(command)
    if not words or shutil.which(words[0]) is None:
        name = words[0] if words else ""
        raise BadInput(f"labels: 'command': no program '{name}' in PATH: install it or name its path")


def run_program(words: Sequence[str], folder: Path, log: str, timeout: float) -> int:
    """Run a program in a folder, its messages in the file `log`; its exit status. It ends with this process.

    Raises:
        LabelFailed: no such program, or it took longer than `timeout` seconds.
    """
    stage = Stage(words[0], Command(tuple(words), log))
    held = os.open(os.devnull, os.O_RDONLY)
    try:
        running = RunningStage(stage, folder, held)
    except OSError as error:
        raise LabelFailed(f"cannot start '{words[0]}': {error.strerror or error}") from error
    finally:
        os.close(held)
    deadline = time.monotonic() + timeout
    status = None
    with contextlib.ExitStack() as stack:
        stack.callback(running.stop)
        while (status := running.poll()) is None:
            if time.monotonic() > deadline:
                raise LabelFailed(f"'{words[0]}' ran longer than {timeout:g} s", last_lines(folder / log, 3))
            time.sleep(POLL_S)
    return status
