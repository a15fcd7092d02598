"""Structures evaluated by LAMMPS (`run 0`), and runs from a structure, a model and some commands."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlplugins.engines.base import Way
from mlplugins.engines.lammps.data import Box, type_order, write_data
from mlplugins.engines.lammps.deck import DATA, DECK, deck_head, words
from mlplugins.engines.lammps.output import read_dump
from mlplugins.engines.lammps.program import Finished, require, run
from mlplugins.errors import MlpluginsError
from mlplugins.quantities import QUANTITIES, Quantity, Results
from mlplugins.structures import state as states

if TYPE_CHECKING:  # torch: `mlplugins doctor` works without
    from mlplugins.model_file.artifact import Artifact

Array = NDArray[np.float64]

NKTV2P_METAL = 1.6021765e6
"""LAMMPS' own rounding of bar per eV/Å³ in `units metal` (relative 8e-8 from CODATA)."""

DUMP = "atoms.dump"

NEIGHBORS = 50_000
"""Largest neighbour number of an atom in `evaluate`; in ghost mode lists reach over all layers."""

LARGEST_GHOST = 500
"""Atoms up to which the ghost mode is compared as well where the exchange mode is the default."""


def ways(model: Artifact, structures: Sequence[Atoms], ranks: Sequence[int]) -> list[Way]:
    """All structures on the ranks that were asked for, in every mode of the pair style that is used there."""
    exchanges = model.n_layers is not None and model.n_layers > 1 and not model.record.get("portable", False)
    everything = tuple(range(len(structures)))
    small = tuple(k for k in everything if not exchanges or len(structures[k]) <= LARGEST_GHOST)
    found = [Way(everything, 1, "fold")] if 1 in ranks else []
    for count in ranks:
        if count > 1 and exchanges:
            found.append(Way(everything, count, "exchange"))
        if count > 1 and small:
            found.append(Way(small, count, "ghost"))
    return found


def single_points(model: Artifact, structures: Sequence[Atoms], way: Way) -> list[Results | MlpluginsError]:
    """Through `lmp`, `run 0`."""
    keywords = f"device {model.device} mode {way.detail} variant/energy {model.energy_output}"
    try:
        return [*evaluate_all(model.path, structures, way.ranks, keywords, of_model=model)]
    except MlpluginsError as error:
        if len(structures) == 1:
            return [error]
    # one bad structure ends the whole process: ask for each alone
    return [outcome for structure in structures for outcome in single_points(model, [structure], way)]


def run_structure(
    model: Path | str,
    atoms: Atoms,
    commands: Sequence[str],
    directory: Path | str,
    ranks: int = 1,
    keywords: str = "",
    velocities: Array | None = None,
) -> tuple[Finished, Box]:
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
) -> Results:
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
    of_model: Artifact | None = None,
) -> list[Results]:
    """`evaluate` for several structures in one run of `lmp`, which starts slowly. Of a model that is loaded:
    with the charge and spin of each, if it takes them, and with what it predicts of whole systems."""
    inputs = () if of_model is None else tuple(of_model.inputs)
    totals = {} if of_model is None else _totals(of_model)
    require(ranks)
    path = Path(model).resolve()
    with _folder(directory) as folder:
        lines: list[str] = []
        boxes = []
        for k, atoms in enumerate(structures):
            elements = type_order(atoms)
            boxes.append(write_data(folder / f"{k}.{DATA}", atoms, elements))
            own = f"{keywords} {words(states.keywords(atoms.info, inputs))}"
            lines += ["clear", *deck_head(path, elements, boxes[-1].boundary, own, f"{k}.{DATA}")]
            lines += _static_commands(
                f"{k}.{DUMP}", per_atom, sum(math.prod(q.shape) for q in totals.values())
            )
        (folder / DECK).write_text("\n".join(lines) + "\n", encoding="utf-8")
        tables = run(folder / DECK, ranks).tables
        rows = [read_dump(folder / f"{k}.{DUMP}") for k in range(len(structures))]
    found = [_evaluation(*parts) for parts in zip(structures, boxes, tables, rows)]
    return [_with_totals(*parts, totals) for parts in zip(found, boxes, tables)]


def _totals(model: Artifact) -> dict[str, Quantity]:
    """What `compute pair` shows of a model, the energies of several last: of several models the deviation."""
    if model.n_members > 1 or model.family is None:
        return {}
    found = {name: QUANTITIES[name] for name in model.more}
    found = {name: q for name, q in found.items() if q.per == "system" and q.derivative is None}
    return found | dict.fromkeys(model.energies, QUANTITIES["energy"])


def _with_totals(
    results: Results, box: Box, table: dict[str, Array], totals: Mapping[str, Quantity]
) -> Results:
    """The results and the values of `compute pair`, in the frame of the structure."""
    more, column = {}, 0
    for name, quantity in totals.items():
        size = math.prod(quantity.shape)
        values = [table[f"c_totals[{column + k + 1}]"][-1] for k in range(size)]
        more[name] = quantity.turned(np.reshape(values, quantity.shape), box.rotation)
        column += size
    return replace(results, more=more or None)


def _static_commands(dump: str, per_atom: bool, n_totals: int) -> list[str]:
    columns = f"id {' '.join(QUANTITIES['forces'].lammps)}"
    commands = [
        f"neigh_modify one {NEIGHBORS} page {10 * NEIGHBORS}",
        "compute p all pressure NULL virial",
        "thermo_style custom step pe c_p[1] c_p[2] c_p[3] c_p[4] c_p[5] c_p[6]"
        + "".join(f" c_totals[{k}]" for k in range(1, n_totals + 1)),
        "thermo_modify format float %.17g",
    ]
    if n_totals:
        commands.insert(2, "compute totals all pair mlplugins")
    if per_atom:
        columns += " c_energies" + "".join(f" c_virials[{k}]" for k in range(1, 7))
        commands += ["compute energies all pe/atom", "compute virials all stress/atom NULL"]
    commands.append(f"dump forces all custom 1 {dump} {columns}")
    return [*commands, "dump_modify forces format float %.17g sort id", "run 0"]


def _evaluation(atoms: Atoms, box: Box, table: dict[str, Array], rows: Array) -> Results:
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
    energy, forces = float(table["PotEng"][-1]), rows[:, 1:4] @ back
    return Results(energy, forces, stress=stress, energies=energies, virials=virials)


def _matrix(voigt: Array) -> Array:
    """LAMMPS' order xx yy zz xy xz yz → symmetric matrix."""
    xx, yy, zz, xy, xz, yz = voigt
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


@contextmanager
def _folder(directory: Path | str | None) -> Iterator[Path]:
    if directory is not None:
        yield Path(directory)
        return
    with tempfile.TemporaryDirectory(prefix="mlplugins-lammps-") as temporary:
        yield Path(temporary)
