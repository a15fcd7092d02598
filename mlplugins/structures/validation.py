"""Checks of labelled structures before anything is computed from them."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import ArrayLike, NDArray

from mlplugins.errors import BadInput
from mlplugins.quantities import QUANTITIES
from mlplugins.structures import state as states
from mlplugins.structures.dataset import Keys, Structure
from mlplugins.structures.labels import flags, near
from mlplugins.structures.neighbors import FARTHEST, neighbor_list

MIN_CELL_WIDTH = 1e-2
"""Periodic cells thinner than this (Å) count as having no volume."""

MIN_DISTANCE = 0.1
"""Atoms closer than this (Å) count as being in the same place."""

ALIKE, SAME_FORCE = 1e-6, 1e-4
"""Energies per atom (eV) and forces (eV/Å) that count as the same, as copies of a file round them."""

MARK = 8
"""Digits of a frame's mark: of 20 000 frames one in 200 000 others is taken for one of them."""

DIGITS = 7
"""Decimals (Å) to which two structures must agree to be the same structure."""


def check(
    structures: Sequence[Structure], keys: Keys, need_forces: bool = True, where: str = "data.keys"
) -> None:
    """Refuse frames that cannot be learned from: labels absent or not finite, cells without volume,
    atoms on top of each other; `where` a configuration names the keys.

    Raises:
        BadInput: naming file, frame, what was expected, what came and the remedy.
    """
    for structure in structures:
        if len(structure) == 0:
            raise BadInput(f"{structure.origin}: no atoms; remove the frame")
        unknown = sorted(set(structure.numbers.tolist()) - set(range(1, len(chemical_symbols))))
        if unknown:
            raise BadInput(
                f"{structure.origin}: atomic number {unknown[0]} is no element (0 is ASE's dummy 'X'); "
                "name the elements in the file, or remove the frame"
            )
        # what a head predicts is learned without energies, too
        whole = keys.energy is not None and not (structure.energy is None and structure.more)
        for quantity in QUANTITIES.values():
            needed = whole and (quantity.required or (need_forces and quantity.name == "forces"))
            if needed and structure.get(quantity.name) is None:
                raise absent(structure, quantity.name, getattr(keys, quantity.name), where)
        _check_finite(structure)
        _check_cell(structure)
        _check_distances(structure)


def check_periodicity(structures: Sequence[Structure]) -> None:
    """Refuse a set in which some frames are periodic and others are not (isolated atoms may be either)."""
    frames = [s for s in structures if len(s) > 1]
    if not frames:
        return
    first = frames[0]
    for structure in frames:
        if not np.array_equal(structure.pbc, first.pbc):
            raise BadInput(
                f"mixed pbc: {first.origin} has pbc {flags(first.pbc)}, {structure.origin} has "
                f"{flags(structure.pbc)}. Often a lost flag: correct pbc in the file. "
                "If molecules and crystals are meant to be mixed, set data.mixed_pbc: true"
            )


def unique(structures: Sequence[Structure]) -> tuple[list[Structure], list[str]]:
    """Drop repeated frames; returns the frames kept and one warning per file pair that had repeats.

    Raises:
        BadInput: the same structure with different energies or forces.
    """
    seen: dict[bytes, Structure] = {}
    repeats: list[tuple[Structure, Structure]] = []
    for structure in structures:
        key = _fingerprint(structure)
        other = seen.setdefault(key, structure)
        if other is not structure:
            _check_same_labels(other, structure)
            repeats.append((other, structure))
    if not repeats:
        return list(structures), []
    example = f"{repeats[0][1].origin} repeats {repeats[0][0].origin}"
    return list(seen.values()), [
        f"dropped {len(repeats)} duplicate frame(s) of the training data ({example})"
    ]


def check_disjoint(train: Sequence[Structure], held_out: Sequence[Structure], name: str) -> list[str]:
    """Refuse validation or test frames that are also training frames: their errors would mean nothing.

    Returns:
        A warning about frames that are training frames moved, turned, rounded or with their atoms reordered,
        which the labels give away.
    """
    known = {_fingerprint(s): s for s in train}
    shared = [(known[key], s) for s in held_out if (key := _fingerprint(s)) in known]
    if shared:
        raise BadInput(
            f"duplicate frames: {len(shared)} {name} frame(s) are also training frames, e.g. "
            f"{shared[0][1].origin} = {shared[0][0].origin}; remove them from one of the two"
        )
    alike = [(other, s) for s, other in zip(held_out, _alike(train, held_out)) if other is not None]
    if not alike:
        return []
    return [
        f"{len(alike)} {name} frame(s) have the energy, the cell's volume and the sizes of all forces of "
        f"training frames, e.g. {alike[0][1].origin} of {alike[0][0].origin}: the same structures, moved, "
        "turned or with their atoms reordered? Errors of such frames mean nothing"
    ]


def _alike(train: Sequence[Structure], held_out: Sequence[Structure]) -> Iterator[Structure | None]:
    """For each frame the training frame whose labels say that it is the same structure."""
    groups: dict[bytes, list[tuple[float, int]]] = {}
    for k, s in enumerate(train):
        groups.setdefault(np.sort(s.numbers).tobytes(), []).append((s.energy or 0.0, k))
    for group in groups.values():
        group.sort()
    for s in held_out:
        group = groups.get(np.sort(s.numbers).tobytes(), [])
        near = ALIKE * len(s)
        first = bisect_left(group, ((s.energy or 0.0) - near, -1))
        last = bisect_left(group, ((s.energy or 0.0) + near, len(train)))
        yield next((train[k] for _, k in group[first:last] if _same_forces(train[k], s)), None)


def _same_forces(a: Structure, b: Structure) -> bool:
    """Whether the sizes of the forces are the same, in any order, and neither all zero; the volumes, too."""
    if a.forces is None or b.forces is None or not (a.forces.any() and b.forces.any()):
        return False
    first, second = (np.sort(np.linalg.norm(forces, axis=1)) for forces in (a.forces, b.forces))
    same = np.allclose(first, second, rtol=0.0, atol=SAME_FORCE)
    return bool(same and np.isclose(a.volume, b.volume, rtol=1e-4) and np.array_equal(a.pbc, b.pbc))


def _apart(values: NDArray[np.float64], least: float) -> NDArray[np.bool_]:
    """Values separated from the median by a gap above `least` and above three times all gaps before it.

    The energies of a dissociation curve reach far, but step by step.

    >>> _apart(np.array([0.0, 0.1, 0.3, 0.6, 1.0, 9.0]), 0.5).tolist()
    [False, False, False, False, False, True]
    """
    order = np.argsort(values)
    apart = np.zeros(len(values), dtype=bool)
    middle = len(values) // 2
    for outward in (order[middle:], order[: middle + 1][::-1]):
        gaps = np.abs(np.diff(values[outward]))
        before = np.maximum.accumulate(np.concatenate([[0.0], gaps[:-1]])) if len(gaps) else gaps
        jumps = np.flatnonzero(gaps > np.maximum(least, 3.0 * before))
        if len(jumps):
            apart[outward[jumps[0] + 1 :]] = True
    return apart


def outliers(residuals: ArrayLike, structures: Sequence[Structure]) -> list[str]:
    """Warnings about labels that look like a unit mistake or a failed calculation; isolated atoms are far
    from everything else, as they should be.

    Args:
        residuals: (S,) energy minus composition baseline, eV.
        structures: the S structures.
    """
    warnings: list[str] = []
    alone = np.array([s.is_isolated_atom for s in structures], dtype=bool)
    residuals = np.asarray(residuals, dtype=np.float64)[~alone]
    structures = [s for s, is_alone in zip(structures, alone) if not is_alone]
    if not structures:
        return warnings
    per_atom = np.asarray(residuals, dtype=np.float64) / np.array([len(s) for s in structures])
    deviation = np.abs(per_atom - np.median(per_atom))
    limit = max(1.0, 20.0 * float(np.median(deviation)))
    far = np.flatnonzero((deviation > limit) & _apart(per_atom, 0.25 * limit))
    if len(far):
        worst = int(far[np.argmax(deviation[far])])
        warnings.append(
            f"{len(far)} frame(s) have energies more than {limit:.1f} eV/atom away from the rest, the worst "
            f"{structures[worst].origin} ({deviation[worst]:.1f} eV/atom): another unit (expected eV), "
            "another reference, or a failed calculation?"
        )
    forces = [s for s in structures if s.forces is not None and len(s) > 1]
    if forces:
        largest = max(forces, key=lambda s: float(np.abs(s.forces).max()))  # type: ignore[arg-type]
        value = float(np.abs(largest.forces).max())  # type: ignore[arg-type]
        if value > 100.0:
            warnings.append(
                f"{largest.origin}: force component of {value:.0f} eV/Å; expected eV/Å, not kcal/mol/Å"
            )
        if value < 1e-6:
            warnings.append("all forces are zero; is the key right?")
    return warnings


def data_hash(structures: Iterable[Structure]) -> str:
    """SHA-256 of structures and labels, in order.

    >>> len(data_hash([]))
    64
    """
    digest = hashlib.sha256()
    for s in structures:
        for value in (s.numbers, s.positions, s.cell, s.pbc, s.energy, s.forces, s.stress):
            digest.update(b"-" if value is None else np.ascontiguousarray(value).tobytes())
        for name in sorted(s.more):  # nothing for a quantity that the frame has not: older hashes stay
            digest.update(name.encode() + np.ascontiguousarray(s.more[name]).tobytes())
        digest.update(_state(s) + s.head.encode())
    return digest.hexdigest()


def absent(structure: Structure, what: str, key: str | None, where: str) -> BadInput:
    """The error of a frame without the label `what`, which was sought as `key`; `where` keys are named."""
    if key is None:
        return BadInput(
            f"{structure.origin}: {where}: {{{what}: null}} reads no {what}, but training.loss.{what} or "
            f"training.targets asks for them: leave that out, or name the {what}"
        )
    alone = f"; to learn from energies alone, set {where}: {{forces: null}}" if what == "forces" else ""
    if what == "energy" and structure.more:
        alone = f"; to learn nothing but what `heads` predict, set {where}: {{energy: null}}"
    option = f" (or --keys {what}=NAME)" if where == "data.keys" else ""
    have = near(key, structure.available, "the frame holds")
    return BadInput(
        f"{structure.origin}: no {what} (looked for key '{key}'); {have}. "
        f"Name the right one with {where}: {{{what}: NAME}}{option}{alone}"
    )


def _check_finite(structure: Structure) -> None:
    for name in ("positions", "cell", *QUANTITIES):
        value = structure.get(name)
        if value is None:
            continue
        finite = np.isfinite(value)
        if not finite.all():
            where = "" if np.ndim(value) == 0 else f" at {_place(name, finite)}"
            bad = value if np.ndim(value) == 0 else np.asarray(value)[~finite][0]
            raise BadInput(
                f"{structure.origin}: {name} is {bad}{where}, expected a finite number; drop the frame"
            )
        if name in ("positions", "cell") and not np.all(np.abs(value) < FARTHEST):
            raise BadInput(
                f"{structure.origin}: {name} reach {np.abs(value).max():.1e} Å, expected less than "
                f"{FARTHEST:.0e} Å; another unit, or a damaged frame: drop it"
            )


def _place(name: str, finite: np.ndarray) -> str:
    index = np.argwhere(~finite)[0].tolist()
    per_atom = name == "positions" or (name in QUANTITIES and QUANTITIES[name].per == "atom")
    return f"atom {index[0]}" if per_atom else f"index {index}"


def _check_cell(structure: Structure) -> None:
    periodic = structure.cell[structure.pbc]
    if len(periodic) == 0:
        return
    if float(np.linalg.svd(periodic, compute_uv=False)[-1]) < MIN_CELL_WIDTH:
        raise BadInput(
            f"{structure.origin}: periodic (pbc {flags(structure.pbc)}) with a cell of zero volume, "
            f"{structure.cell.tolist()}; correct the cell, or set pbc to F for a molecule"
        )


def _check_distances(structure: Structure) -> None:
    # one atom per cell of the search grid; a range of MIN_DISTANCE would need a huge grid
    extent = np.maximum(np.ptp(structure.positions, axis=0), 1.0)
    reach = max(2 * MIN_DISTANCE, float(np.cbrt(extent.prod() / len(structure))))
    edges = neighbor_list(structure.positions, structure.cell, structure.pbc, reach)
    if len(edges.centers) == 0:
        return
    distances = np.linalg.norm(edges.vectors, axis=1)
    closest = int(np.argmin(distances))
    if distances[closest] < MIN_DISTANCE:
        raise BadInput(
            f"{structure.origin}: atoms {edges.centers[closest]} and {edges.neighbors[closest]} are "
            f"{distances[closest]:.3f} Å apart, expected more than {MIN_DISTANCE} Å; wrong positions or cell?"
        )


def _check_same_labels(a: Structure, b: Structure) -> None:
    same_energy = abs((a.energy or 0.0) - (b.energy or 0.0)) <= 1e-3 * len(a)
    both = a.forces is not None and b.forces is not None
    if same_energy and (not both or np.allclose(a.forces, b.forces, atol=1e-2)):  # type: ignore[arg-type]
        return
    raise BadInput(
        f"duplicate frames with different labels: {a.origin} ({a.energy} eV) and {b.origin} ({b.energy} eV) "
        "are the same structure; two levels of theory in one set? Remove one"
    )


def frame_marks(structures: Iterable[Structure]) -> str:
    """Eight hexadecimal digits for every frame (elements, positions, cell; no labels), one after another.

    >>> frame_marks([])
    ''
    """
    return "".join(_fingerprint(s).hex()[:MARK] for s in structures)


def marked(structures: Sequence[Structure], marks: str) -> list[Structure]:
    """The frames that are among those of `frame_marks`."""
    known = {marks[k : k + MARK] for k in range(0, len(marks), MARK)}
    return [s for s in structures if _fingerprint(s).hex()[:MARK] in known]


def _fingerprint(structure: Structure) -> bytes:
    digest = hashlib.sha256()
    digest.update(structure.numbers.tobytes() + structure.pbc.tobytes())
    cell = structure.cell if structure.pbc.any() else np.zeros((3, 3))
    for array in (structure.positions, cell):
        digest.update((np.round(array, DIGITS) + 0.0).tobytes())
    digest.update(_state(structure) + structure.head.encode())
    return digest.digest()


def _state(structure: Structure) -> bytes:
    """Charge and spin, since an ion may have the positions of its molecule; nothing of neutral singlets."""
    row = states.row(structure.states)
    return b"" if row == [*states.ElectronicState()] else np.array(row).tobytes()
