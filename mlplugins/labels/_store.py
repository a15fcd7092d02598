"""The store of labels: one folder for each structure, named after its content; the files are the state.

    STORE/labels.json            what the labels depend on, and how they are computed now
    STORE/HASH/structure.extxyz  what is to be labelled
    STORE/HASH/attempt_1/        files of the code; outcome.json once the attempt has failed
    STORE/HASH/label.extxyz      the label: the folder is done
    STORE/HASH/failed.json       no attempt is left

Whoever labels a structure holds the lock of its folder. Files appear whole, under their final names, so that
a process killed at any moment leaves a store from which the next one goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms

from mlplugins import files
from mlplugins.errors import BadInput
from mlplugins.labels._contract import LabelSettings, settings_of
from mlplugins.structures import extxyz, state

SETTINGS, STRUCTURE, LABEL, FAILED, OUTCOME, LOCK = (
    "labels.json",
    "structure.extxyz",
    "label.extxyz",
    "failed.json",
    "outcome.json",
    ".lock",
)
AGAIN = (
    "put a copy back or, if the settings are certainly those of before, write null into it; nothing is lost"
)
"""Of the settings that a folder was begun with."""
PLACES = 8
"""Decimals of the lengths, in Å, that files of extended xyz hold; structures that agree in them are one."""


class LabelStore:
    """A folder of labels, of one kind and one set of settings.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def open(self, settings: LabelSettings) -> None:
        """Make the store, or continue the one that is there.

        Raises:
            BadInput: it holds labels of another kind or of other settings.
        """
        path = self.path / SETTINGS
        now = files.plain(settings.physics())
        if path.is_file():
            before = (read_record(path) or {"physics": now})["physics"]
            names = sorted({*before, *now})
            differences = [
                f"'{n}' was {before.get(n)!r}, is {now.get(n)!r}"
                for n in names
                if before.get(n) != now.get(n)
            ]
            if differences:
                raise BadInput(
                    f"the labels in '{self.path}' were made with other settings: {'; '.join(differences)}. "
                    "Put the old settings back, or name another folder ('store')"
                )
        elif any(self.path.glob(f"*/{STRUCTURE}")):
            raise BadInput(f"'{path}' is missing: {AGAIN}")
        elif self.path.is_dir() and any(self.path.iterdir()):
            raise BadInput(f"'{self.path}' is not empty and holds no labels; name another folder ('store')")
        record = {"physics": now, "settings": settings.model_dump(mode="json")}
        _write_json(path, record)

    def settings(self) -> LabelSettings:
        """As the labels are computed now."""
        path = self.path / SETTINGS
        if not path.is_file():
            raise BadInput(f"'{self.path}' is no store of labels: it has no {SETTINGS}")
        return settings_of(read_record(path)["settings"], str(path))

    def add(self, atoms: Atoms) -> str:
        """The name of the folder of a structure, made if there is none."""
        name = fingerprint(atoms)
        path = self.path / name / STRUCTURE
        if not path.is_file():
            plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
            plain.info |= state.entries(atoms.info)
            _write_frame(path, plain)
        return name

    def structure(self, name: str) -> Atoms:
        """What is, or was, to be labelled."""
        return _read_frame(self.path / name / STRUCTURE, name, "it is written again")

    def label(self, name: str) -> Atoms | None:
        """The labelled structure, None if there is no label."""
        path = self.path / name / LABEL
        return _read_frame(path, name, "the structure is labelled again") if path.is_file() else None

    def put(self, name: str, labelled: Atoms) -> None:
        """Write a label: the folder is done."""
        _write_frame(self.path / name / LABEL, labelled)
        (self.path / name / FAILED).unlink(missing_ok=True)

    def is_done(self, name: str) -> bool:
        """Whether there is a label."""
        return (self.path / name / LABEL).is_file()

    def is_over(self, name: str, attempts: int) -> bool:
        """Whether nothing is left to do: a label, or `attempts` failures."""
        return self.is_done(name) or self.failures(name) >= attempts

    def failures(self, name: str) -> int:
        """Number of attempts that have failed; those that were interrupted do not count."""
        return len(list((self.path / name).glob(f"attempt_*/{OUTCOME}")))

    def outcomes(self, name: str) -> list[dict[str, Any]]:
        """Records of the attempts that have failed, in order."""
        found = (self.path / name).glob(f"attempt_*/{OUTCOME}")
        return [_read_json(path) for path in sorted(found, key=lambda p: int(p.parent.name.split("_")[1]))]

    def new_attempt(self, name: str) -> Path:
        """A new folder: codes append to what they find."""
        used = [int(path.name.split("_")[1]) for path in (self.path / name).glob("attempt_*")]
        path = self.path / name / f"attempt_{max(used, default=0) + 1}"
        path.mkdir()
        return path

    def fail(self, name: str, attempt: Path, record: dict[str, Any], attempts: int) -> None:
        """Record a failure; after the last of `attempts` also that the structure is given up."""
        _write_json(attempt / OUTCOME, record)
        outcomes = self.outcomes(name)
        if len(outcomes) >= attempts:
            _write_json(self.path / name / FAILED, {"attempts": outcomes})

    def pending(self, names: Sequence[str], attempts: int) -> list[str]:
        """Those that still need a label."""
        return [name for name in names if not self.is_over(name, attempts)]

    @contextlib.contextmanager
    def locked(self, name: str, wait: bool) -> Iterator[bool]:
        """The lock of a folder for as long as the block runs; gives whether it was had.

        Args:
            name: of the folder.
            wait: for another process that labels this structure.
        """
        descriptor = os.open(self.path / name / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(descriptor)


def fingerprint(atoms: Atoms) -> str:
    """Name of a structure: a hash of its elements, positions, cell, periodicity, charge and spin.

    Raises:
        BadInput: a charge or spin that is no number, or is said twice and differs.

    >>> a = Atoms("Cu", positions=[[0, 0, 1.0]])
    >>> b = Atoms("Cu", positions=[[0, 0, 1.0 + 1e-12]])
    >>> fingerprint(a) == fingerprint(b), len(fingerprint(a))
    (True, 20)
    """
    digest = hashlib.sha256(atoms.numbers.astype(np.int64).tobytes())
    for lengths in (atoms.positions, atoms.cell.array):
        digest.update(np.rint(np.asarray(lengths) * 10**PLACES).astype(np.int64).tobytes())
    digest.update(np.asarray(atoms.pbc, dtype=bool).tobytes())
    states = {name: state.stated(atoms.info, name) for name in state.NAMES}
    said = {name: value for name, value in states.items() if value is not None}
    digest.update(json.dumps(said, sort_keys=True).encode())
    return digest.hexdigest()[:20]


def _write_frame(path: Path, atoms: Atoms) -> None:
    stream = io.StringIO()
    ase.io.write(stream, atoms, format="extxyz")
    files.write_bytes(path, stream.getvalue().encode(), lasting=True)


def _read_frame(path: Path, name: str, then: str) -> Atoms:
    try:
        found = extxyz.read(path, 0)
    except Exception as error:  # of text that is no frame any more readers raise anything
        raise BadInput(f"'{path}' is damaged: {error}; remove it, and {then}") from error
    if not isinstance(found, Atoms) or fingerprint(found) != name:
        raise BadInput(
            f"'{path}' is damaged: it holds another structure than the one that its folder is named after; "
            f"remove it, and {then}"
        )
    return found


def _write_json(path: Path, content: Any) -> None:
    text = json.dumps(files.plain(content), indent=2, allow_nan=False) + "\n"
    files.write_bytes(path, text.encode(), lasting=True)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"'{path}' is damaged: not JSON ({error}); move its folder away") from error


def read_record(path: Path) -> Any:
    """What a folder was begun with; None where the user says so.

    Raises:
        BadInput: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"'{path}' is damaged: not JSON ({error}): {AGAIN}") from error
