"""A process that labels structures of a store: `python -m mlplugins.labels._worker STORE LIST PART OF`.

It labels every OF-th structure of STORE/LIST from the PART-th on (counted from 0), or the one that is named
instead of LIST and what follows. They are computed in a
child: if a code crashes, hangs or uses up the memory, the child goes, its attempt has failed, and the next
child goes on.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress

from mlplugins import files
from mlplugins.dynamics.process import die_with_parent
from mlplugins.labels._contract import CodeResult, LabelFailed, LabelSettings, load_kind
from mlplugins.labels._store import OUTCOME, LabelStore

GRACE_S = 20.0
"""Codes that watch their time themselves end before the process is ended."""
ENDED_BY_OTHERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""A job at its time limit, a user: no fault of the structure."""


def work(store: LabelStore, names: Sequence[str]) -> None:
    """Label structures; what others are at is left to them at first, and waited for at the end."""
    settings = store.settings()
    attempts = 1 + len(settings.retries)
    for wait in (False, True):
        while store.pending(names, attempts):
            if not _in_child(store, names, settings, wait):
                break


def _in_child(store: LabelStore, names: Sequence[str], settings: LabelSettings, wait: bool) -> bool:
    """Label in a child until all is done, or it crashes; gives whether a structure was the reason."""
    parent, mark = os.getpid(), f"{socket.gethostname()} {secrets.token_hex(8)}"
    child = os.fork()
    if child == 0:
        status = 1
        try:
            die_with_parent()
            if os.getppid() == parent:
                for name in names:
                    _one(store, name, settings, wait, mark)
                status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(child, 0)
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number in ENDED_BY_OTHERS:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    for name in names:
        attempt = _claimed(store, name, mark)
        if attempt is None or store.is_done(name):
            continue
        reason = f"the process that computed it ended with status {os.waitstatus_to_exitcode(status)}"
        if number == signal.SIGALRM:
            reason = f"longer than {settings.timeout:g} s"
        elif number:
            reason = f"the process that computed it was ended by signal {number} ({signal.strsignal(number)})"
        with store.locked(name, wait=True):
            store.fail(name, attempt, {"reason": reason, "lines": []}, 1 + len(settings.retries))
        return True
    return False


def _claimed(store: LabelStore, name: str, mark: str) -> Path | None:
    """The attempt at a structure that a child was at when it ended."""
    for claim in (store.path / name).glob("attempt_*/claim"):
        with contextlib.suppress(OSError):
            if claim.read_text() == mark and not (claim.parent / OUTCOME).is_file():
                return claim.parent
    return None


def _one(store: LabelStore, name: str, settings: LabelSettings, wait: bool, mark: str) -> None:
    """One structure: attempts until there is a label or none is left."""
    attempts = 1 + len(settings.retries)
    with store.locked(name, wait) as mine:
        while mine and not store.is_over(name, attempts):
            failures = store.failures(name)
            now = settings.attempt(failures)
            folder = store.new_attempt(name)
            claim = folder / "claim"
            claim.write_text(mark)
            begun, cpu = time.time(), os.times()
            atoms = store.structure(name)
            os.chdir(folder)
            signal.setitimer(signal.ITIMER_REAL, now.timeout + GRACE_S)
            try:
                found = _computed(now, atoms, folder)
            except LabelFailed as error:
                record = {"reason": str(error), "lines": error.lines, "wall_s": time.time() - begun}
                record["settings"] = settings.retries[failures - 1] if failures else {}
                store.fail(name, folder, record, attempts)
            else:
                used = [b - a for a, b in zip(cpu[:4], os.times()[:4])]
                facts = {"wall_s": time.time() - begun, "cpu_s": sum(used), "attempt": failures + 1}
                store.put(name, _frame(name, atoms, found, facts))
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                claim.unlink(missing_ok=True)


def _computed(settings: LabelSettings, atoms: Atoms, folder: Path) -> CodeResult:
    """The label, if it is one."""
    try:
        label: CodeResult = load_kind(settings.kind).compute(settings, atoms, folder)
    except LabelFailed:
        raise
    except Exception as error:  # calculators raise anything
        raise LabelFailed(f"{type(error).__name__}: {error}") from error
    values = [np.array(label.energy), label.forces, *([] if label.stress is None else [label.stress])]
    if label.forces.shape != (len(atoms), 3):
        raise LabelFailed(f"forces of shape {label.forces.shape}, expected {(len(atoms), 3)}")
    if not all(np.isfinite(value).all() for value in values):
        raise LabelFailed("energy, forces or stress are not finite")
    largest = float(np.linalg.norm(label.forces, axis=1).max(initial=0.0))
    if largest > settings.max_force:
        raise LabelFailed(
            f"a force of {largest:.4g} eV/Å on an atom, 'max_force' is {settings.max_force:g} eV/Å"
        )
    return label


def _frame(name: str, atoms: Atoms, label: CodeResult, facts: dict[str, Any]) -> Atoms:
    """The structure with its label, and where that comes from."""
    labelled = atoms.copy()
    results: dict[str, Any] = {"energy": label.energy, "forces": label.forces}
    if label.stress is not None:
        results["stress"] = full_3x3_to_voigt_6_stress(label.stress)
    labelled.calc = SinglePointCalculator(labelled, **results)
    more = {"hash": name, "code": label.code, "host": socket.gethostname(), **files.plain(facts)}
    labelled.info |= {f"label_{key}": value for key, value in more.items()}
    return labelled


def main(words: Sequence[str]) -> None:
    """Label this process' part of what is pending."""
    store = LabelStore(Path(words[0]))
    if len(words) == 2:
        work(store, [words[1]])
        return
    part, of = int(words[2]), int(words[3])
    names = (store.path / words[1]).read_text(encoding="utf-8").split()
    work(store, names[part::of])


if __name__ == "__main__":
    main(sys.argv[1:])
