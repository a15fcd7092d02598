"""The template of the i-PI driver, and whether the first structure from i-PI agrees with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from ase.geometry import cell_to_cellpar
from ipi.utils.io import read_file
from ipi.utils.units import unit_to_internal, unit_to_user
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mlplugins.errors import BadInput
from mlplugins.model_file.structure import Array, Prepared, in_vacuum
from mlplugins.structures import extxyz
from mlplugins.structures import state as states

# once: i-PI looks a unit up in more time than a conversion takes
BOHR: float = unit_to_user("length", "angstrom", 1.0)
ANGSTROM: float = unit_to_internal("length", "angstrom")
ELECTRONVOLT: float = unit_to_internal("energy", "electronvolt")
FORCE: float = unit_to_internal("force", "ev/ang")

SAME = 0.02
"""Atoms closer than this are at the same place, Å: files with three digits, nothing that has moved."""

CLOSE = 0.7
"""Atoms closer than this times the sum of their covalent radii are not there by intention."""

FLAT = 1e-6
"""A cell of less volume is none, Å³."""

VACUUM = 50.0
"""A model of unlimited range sees no images if this much lies between them, Å."""

UNLIKE = "not the template's positions: the order of its atoms cannot be checked"
ISOTOPES = {"D": 1, "T": 1}
FLAGS = "--pbc true, --pbc false"
START_FILE = "give the structure that i-PI starts from, the file in its <initialize>, as the template"
BRACES = (
    "i-PI reads xyz files in bohr unless <file> has both units='angstrom' and cell_units='angstrom', or the "
    "file's comment line says 'positions{angstrom} cell{angstrom}'; state the units there"
)
TRUST = "if atoms were exchanged on purpose (atom swaps, NEB), add order=trust (--order trust)"


@dataclass(frozen=True)
class Template:
    """A template file.

    Attributes:
        path: as given.
        numbers: (N,) atomic numbers, in i-PI's order.
        positions: (N, 3), Å.
        cell: (3, 3), rows are the cell vectors, Å; None if the file has none.
        pbc: (3,) booleans; None if the file does not say.
        in_angstrom: False if the file does not state its units, which i-PI then reads as bohr or as told.
        info: its charge and spin, if it says them.
    """

    path: str
    numbers: NDArray[np.integer]
    positions: Array
    cell: Array | None
    pbc: NDArray[np.bool_] | None
    in_angstrom: bool
    info: dict[str, Any] = field(default_factory=dict)


def read_template(path: str) -> Template:
    """Read a structure: i-PI's xyz and plain xyz with i-PI's reader, everything else with ASE's.

    Raises:
        BadInput: no such file, not a structure, a label that is no element.
    """
    if not Path(path).is_file():
        raise BadInput(f"no such template file: '{path}'")
    head = Path(path).read_text(encoding="utf-8", errors="replace")[:4000].splitlines()
    comment = head[1] if len(head) > 1 else ""
    extended = re.search(r"\b(lattice|properties|pbc)\s*=", comment, re.IGNORECASE)
    try:
        if Path(path).suffix.lower() == ".xyz" and not extended:
            return _read_plain(path, comment)
        atoms: Any = extxyz.read(path, 0)
    except BadInput:
        raise
    except Exception as error:  # readers raise whatever they meet
        raise BadInput(f"template '{path}': ASE cannot read it: {error}") from error
    if len(atoms) == 0:
        raise BadInput(f"template '{path}' has no atoms")
    cell = np.array(atoms.cell) if atoms.cell.array.any() else None
    stated = cell is not None or atoms.pbc.any() or re.search(r"\bpbc\s*=", comment, re.IGNORECASE)
    pbc = np.array(atoms.pbc) if stated else None
    return Template(path, atoms.numbers, atoms.positions, cell, pbc, True, states.entries(atoms.info))


def _read_plain(path: str, comment: str) -> Template:
    with open(path, encoding="utf-8") as file:
        content = read_file("xyz", file)  # in bohr, if nothing else is stated
    stated = re.search(r"[a-z_]+\{[A-Za-z_]+\}", comment) is not None
    unit = BOHR if stated else 1.0  # without units: the numbers as they are
    numbers = np.array([_number(path, k, label) for k, label in enumerate(content["atoms"].names)])
    h = np.array(content["cell"].h).T * unit
    has_cell = re.search(r"CELL[\[({]", comment) is not None
    positions = np.array(content["atoms"].q).reshape(-1, 3) * unit
    return Template(
        path, numbers, positions, h if has_cell else None, np.ones(3, bool) if has_cell else None, stated
    )


def _number(path: str, atom: int, label: str) -> int:
    """`O`, `D`, `O17` (i-PI's isotopes), `H_1`, or an atomic number."""
    text = str(label)
    if text.isdigit() and int(text) < len(chemical_symbols):
        return int(text)
    symbol = re.sub(r"(_.*|\d+)$", "", text)
    if symbol in ISOTOPES:
        return ISOTOPES[symbol]
    if symbol not in atomic_numbers:
        what = f"the label '{text}' of atom {atom} is no element" if text else f"atom {atom} is missing"
        raise BadInput(f"template '{path}': {what}")
    return int(atomic_numbers[symbol])


def periodicity(
    template: Template, option: bool | str, cell: Array, positions: Array, reach: float
) -> NDArray[np.bool_]:
    """Periodic directions of a run, from the option, the template and the first structure that i-PI sends.

    i-PI itself has no notion of periodicity: it always has a cell, and a huge one stands for none. So the
    template decides if it says anything, and the cell otherwise.

    Args:
        template: the template.
        option: True, False, or `template`.
        cell: (3, 3), rows are the cell vectors, Å.
        positions: (N, 3), Å.
        reach: distance beyond which atoms do not feel each other, Å; may be infinite.

    Raises:
        BadInput: the template and the cell contradict each other.
    """
    if isinstance(option, bool):
        return np.full(3, option)
    if not abs(np.linalg.det(cell)) > FLAT and not (template.pbc is not None and template.pbc.any()):
        return np.zeros(3, dtype=bool)  # ASE's server of molecules sends no cell
    isolated = isolated_in(cell, positions, reach)
    sides = _sides(cell)
    if template.pbc is None:
        return np.full(3, not isolated or bool(np.isfinite(reach)))
    if not template.pbc.any() and template.cell is None and not isolated:
        raise BadInput(
            f"the template '{template.path}' says 'not periodic' and has no cell, but in i-PI's cell "
            f"({sides} Å) atoms feel their periodic images: add pbc=true or pbc=false ({FLAGS})"
        )
    cell_before = template.cell
    bulk = cell_before is not None and not isolated_in(cell_before, template.positions, reach)
    if template.pbc.all() and cell_before is not None and bulk and isolated:
        raise BadInput(
            f"the template '{template.path}' is periodic ({_sides(cell_before)} Å), but i-PI's cell "
            f"({sides} Å) leaves its atoms in vacuum: correct it, or add pbc=true or pbc=false ({FLAGS})"
        )
    return template.pbc


def isolated_in(cell: Array, positions: Array, reach: float) -> bool:
    """Whether the cell leaves its atoms in vacuum: their images are beyond `reach` (or 50 Å, if infinite)."""
    if not abs(np.linalg.det(cell)) > FLAT:
        return False
    numbers = np.zeros(len(positions), np.int32)
    structure = Prepared(numbers, positions, cell, np.ones(3, bool), None)
    return in_vacuum(structure, reach if np.isfinite(reach) else VACUUM)


def _sides(cell: Array) -> str:
    return " × ".join(f"{length:.4g}" for length in np.linalg.norm(cell, axis=1))


def describe(pbc: Sequence[bool] | NDArray[np.bool_], cell: Array) -> str:
    """The periodicity in words."""
    if all(pbc):
        return f"periodic, cell {_sides(cell)} Å"
    if not any(pbc):
        return "not periodic"
    return f"periodic along {', '.join(np.array(['a', 'b', 'c'])[np.asarray(pbc)])}, cell {_sides(cell)} Å"


def compare(template: Template, cell: Array, positions: Array) -> str:
    """Compare the first structure with the template; returns in words how they are related.

    Usually the template *is* that structure, wrapped, turned, or (path integrals, restarts) displaced. If
    every atom stands on a place of the template, but on places of other elements, the order is another one.

    Raises:
        BadInput: another order of the atoms, lengths in other units.
    """
    if not abs(np.linalg.det(cell)) > 1e-6:
        return "not compared with the template"
    cell_scale = _cell_scale(template, cell)
    if cell_scale is None and _apart(positions, template.positions, cell).max() < SAME:
        return "the template's positions"  # no cell, or other vectors of the same lattice
    for scale in dict.fromkeys((cell_scale or 1.0, 1.0, BOHR, 1.0 / BOHR)):
        places = _places(template, cell, cell_scale, scale)
        if places is None:
            continue
        if _apart(positions, places, cell).max() < SAME:
            return _units(template, cell_scale, scale)
        found, distance = _nearest(positions, places, cell)
        if distance.max() < SAME and _one_to_one(found):
            _require_order(template, found)
            return _units(template, cell_scale, scale) + " (atoms of an element in another order)"
    places = _places(template, cell, cell_scale, cell_scale or 1.0)
    return UNLIKE if places is None else _compare_moved(template, cell, positions, places)


def _compare_moved(template: Template, cell: Array, positions: Array, places: Array) -> str:
    """The same for atoms that vibrate about their sites, as in a solid; a liquid cannot be compared."""
    found, distance = _nearest(positions, places, cell)
    spacing = _nearest(places, places, cell, 2)[1]
    if len(places) == 1 or not _one_to_one(found) or not (distance < 0.45 * spacing[found]).all():
        return UNLIKE
    wrong = template.numbers[found] != template.numbers
    # atoms that exchange places with a neighbour (a CN- ion that turns round) are in the right order
    far = _apart(places[found], places, cell) > 1.5 * spacing
    if (wrong & far).sum() > 0.5 * wrong.sum():
        _require_order(template, found)
    return f"the template's atoms, moved by up to {distance.max():.2g} Å"


def _cell_scale(template: Template, cell: Array) -> float | None:
    """i-PI's cell over the template's, if it is the same one, perhaps in other units."""
    if template.cell is None or not abs(np.linalg.det(template.cell)) > 1e-6:
        return None
    ours, theirs = cell_to_cellpar(template.cell), cell_to_cellpar(cell)
    for scale in (1.0, BOHR, 1.0 / BOHR):
        if np.allclose(theirs[:3], scale * ours[:3], rtol=1e-4, atol=0) and np.allclose(
            theirs[3:], ours[3:], atol=0.02
        ):
            return scale
    return None


def _places(template: Template, cell: Array, cell_scale: float | None, scale: float) -> Any:
    """The template's positions in i-PI's frame; None if such a scale makes no sense."""
    if template.cell is None or not abs(np.linalg.det(template.cell)) > 1e-6:
        return template.positions * scale
    fractions = template.positions @ np.linalg.inv(template.cell)
    if cell_scale is None:  # the cell has changed since (NPT), or it is another one
        ours, theirs = cell_to_cellpar(template.cell), cell_to_cellpar(cell)
        near = np.allclose(theirs[:3], ours[:3], rtol=0.15) and np.allclose(
            theirs[3:], ours[3:], rtol=0, atol=10
        )
        return fractions @ cell if scale == 1.0 and near else None
    return fractions @ cell * (scale / cell_scale)


def _apart(first: Array, second: Array, cell: Array) -> Array:
    """Distances to the nearest image, right for those much shorter than the cell."""
    fractions = (first - second) @ np.linalg.inv(cell)
    return np.linalg.norm((fractions - np.rint(fractions)) @ cell, axis=1)


def _nearest(
    positions: Array, places: Array, cell: Array, rank: int = 1
) -> tuple[NDArray[np.integer], Array]:
    """For each position the nearest (rank 2: second nearest) of the places' images, and its distance."""
    inverse = np.linalg.inv(cell)
    margin = 5.0 * np.linalg.norm(inverse, axis=0)  # 5 Å, in fractions
    wrapped = (places @ inverse) % 1.0
    images, owners = [], []
    for shift in np.ndindex(3, 3, 3):
        moved = wrapped + np.array(shift) - 1.0
        near = ((moved > -margin) & (moved < 1.0 + margin)).all(axis=1)
        images.append(moved[near])
        owners.append(np.flatnonzero(near))
    tree = cKDTree(np.concatenate(images) @ cell)
    distance, index = (np.asarray(x)[:, 0] for x in tree.query((positions @ inverse) % 1.0 @ cell, k=[rank]))
    return np.append(np.concatenate(owners), 0)[index], distance  # no second one: index is past the end


def _one_to_one(found: NDArray[np.integer]) -> bool:
    return len(np.unique(found)) == len(found)


def _require_order(template: Template, found: NDArray[np.integer]) -> None:
    wrong = np.flatnonzero(template.numbers[found] != template.numbers)
    if len(wrong) == 0:
        return
    atom = int(wrong[0])
    there, here = (chemical_symbols[template.numbers[k]] for k in (found[atom], atom))
    raise BadInput(
        f"i-PI's atoms stand in another order than those of the template '{template.path}': atom {atom} of "
        f"i-PI is where the template has its atom {found[atom]} ({there}), but atom {atom} of the template "
        f"is {here}; {len(wrong)} of {len(found)} atoms would be wrong: {START_FILE}; {TRUST}"
    )


def _units(template: Template, cell_scale: float | None, scale: float) -> str:
    cell_scale = scale if cell_scale is None else cell_scale
    if scale == cell_scale == 1.0:
        return "the template's positions"
    if scale == cell_scale == BOHR and not template.in_angstrom:
        return _read_in_bohr(template)
    what = {(True, False): "positions", (False, True): "cell"}.get(
        (scale != 1.0, cell_scale != 1.0), "positions and cell"
    )
    factor = scale if scale != 1.0 else cell_scale
    raise BadInput(
        f"{what}: what i-PI sends is {factor:.4f} times what the template '{template.path}' has, as if Å "
        f"and bohr were mixed up: {BRACES}"
    )


def _read_in_bohr(template: Template) -> str:
    """Whether a file without units is in bohr: both are possible, but atoms are rarely that close."""
    cell = 1e4 * np.eye(3) if template.cell is None else template.cell
    found, distance = _nearest(template.positions, template.positions, cell, 2)
    bonds = covalent_radii[template.numbers] + covalent_radii[template.numbers[found]]
    atom = int(np.argmin(distance / bonds))
    closest = BOHR * distance[atom]
    if closest < CLOSE * bonds[atom] < distance[atom]:
        raise BadInput(
            f"i-PI has read the lengths of the template '{template.path}' in bohr, which brings its atoms "
            f"{atom} and {found[atom]} within {closest:.3f} Å; are they in Å? {BRACES}"
        )
    return "the template's positions, which i-PI has read in bohr"
