"""Which labels of a data set are used, which are not, and what is unusual about them."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from mlplugins.errors import BadInput
from mlplugins.quantities import MILLI, QUANTITIES, VOIGT, Quantity, with_labels
from mlplugins.quantities import labels as all_labels
from mlplugins.structures import bonds, components, digits
from mlplugins.structures import state as states
from mlplugins.structures.dataset import Keys, Structure
from mlplugins.structures.neighbors import neighbor_list

SAME_EV = 1e-6
"""Energies per atom closer than this (eV) count as one."""

NET_FORCE = 0.05
"""Net force, as a fraction of √(Σ F²), above which atoms of exactly zero force look constrained."""

CROWD = 4
"""So many atoms or more do not fit into a cube of 1 Å."""

DENSE_A3 = 60.0
"""Volume per atom (Å³) below which a cell looks like that of a solid or liquid."""

(FREE_ENERGY,) = QUANTITIES["energy"].other_keys
LOOKED_AT = 100
"""Frames that are searched for a bond."""

ASYMMETRIC = 0.02
"""Σ v/r⁴ of the neighbours of an atom over Σ 1/r³, above which no symmetry makes its force zero."""

_PER_ATOM = re.compile(r"per_?atom|peratom|/_?atom|^e_?pa$", re.IGNORECASE)
_NO_LABEL = re.compile(r"tol|uncert|var|std|dev|cut", re.IGNORECASE)


def require_named(structures: Sequence[Structure], keys: Keys, where: str = "data.keys") -> None:
    """Refuse a key that the user named and that no frame has; `where` a configuration names the keys.

    Raises:
        BadInput: naming the key and the nearest names that there are.
    """
    available = {name for s in structures for name in s.available}
    for label in [label.option for label in all_labels()]:
        key = getattr(keys, label)
        section = "heads" if label in keys.units and where == "data.keys" else where
        if structures and keys.is_named(label) and key not in available and not keys.is_default(label):
            raise BadInput(
                f"{section}: {label}: no frame holds '{key}' ({len(structures)} read, first "
                f"{structures[0].origin}); {near(key, available)}. "
                f"Name the right one, or set {label}: null to do without"
            )


def near(key: str, available: Iterable[str], who: str = "the frames hold") -> str:
    """The available names, those similar to `key` first.

    >>> near("REF_stresses", ["energy", "REF_stress"])
    "the frames hold: REF_stress, energy; nearest: 'REF_stress'"
    """
    names = sorted(available)
    lower = {name.lower(): name for name in names}
    close = [lower[name] for name in difflib.get_close_matches(key.lower(), lower, n=2)]
    rest = [name for name in names if name not in close]
    hint = f"; nearest: {', '.join(map(repr, close))}" if close else ""
    return f"{who}: {', '.join([*close, *rest]) or 'no labels at all'}{hint}"


def notes(structures: Sequence[Structure], keys: Keys, others: Iterable[str | None] = ()) -> list[str]:
    """Notes for the user about the labels that are used and those that are not.

    Args:
        structures: the frames, read with `keys`.
        keys: names of the labels.
        others: further names that are used, such as those of a cheaper method.
    """
    found: list[str | None] = [*_taken(structures, keys, others)]
    found += [
        _per_atom(keys),
        _free_energy(structures, keys),
        _no_stress(structures, keys),
        _unused(structures, keys, others),
    ]
    found += [_constrained(structures), _without_forces(structures), _partial(structures)]
    found += [_unconverged(structures), _far_apart(structures), *digits.check(structures)]
    return [note for note in found if note]


def _taken(structures: Sequence[Structure], keys: Keys, others: Iterable[str | None]) -> list[str]:
    """Labels that were taken from names that nobody gave."""
    named = {getattr(keys, label.option) for label in all_labels()} | {*others}
    named |= {key for quantity in QUANTITIES.values() for key in quantity.other_keys}
    notes = []
    for name in sorted({name for s in structures for name in s.taken} - named):
        n = sum(name in s.taken for s in structures)
        option = next(q.labels for q in QUANTITIES.values() if _is_like(q, name, structures))
        kind = next((label for label in option if label.option in name.lower()), option[0])
        meaning = " (−V·stress, eV)" if kind.is_virial else ""
        notes.append(
            f"'{name}' is taken as the {kind.option}{meaning}: no label has the usual name, and no other is "
            f"called like it ({n} of {len(structures)} frames). To choose yourself: data.keys: "
            f"{{{kind.option}: NAME}}, or null"
        )
    return notes


def _per_atom(keys: Keys) -> str | None:
    if keys.energy is None or not _PER_ATOM.search(keys.energy):
        return None
    return (
        f"data.keys: energy: '{keys.energy}' is called like an energy per atom, and is read as that of the "
        "whole structure: name the total energy, or multiply by the number of atoms"
    )


def check_flags(structures: Sequence[Structure]) -> None:
    """Refuse frames that are not periodic along some vectors of a cell of a solid (a lost flag), and
    fractional coordinates in the place of Å.

    Raises:
        BadInput: naming the frame.
    """
    for s in structures:
        check_lengths(s)
        if said := lost_flag(s):
            raise BadInput(said)


def check_lengths(s: Structure) -> None:
    """Refuse fractional coordinates in the place of Å.

    Raises:
        BadInput: naming the frame.
    """
    if len(s) >= CROWD and s.positions.min() >= 0.0 and s.positions.max() <= 1.0:
        raise BadInput(
            f"{s.origin}: all {len(s)} atoms lie between 0 and 1 Å, which fractional coordinates do: "
            "write Cartesian positions in Å"
        )


def lost_flag(s: Structure) -> str:
    """What speaks for a lost periodic flag: atoms that go on across a face without one; "" if nothing."""
    if s.pbc.all() or len(s) < 2 or not 0.0 < s.volume < DENSE_A3 * len(s):
        return ""
    inside = neighbor_list(s.positions, s.cell, s.pbc, float(np.cbrt(DENSE_A3)))
    if len(inside.centers) == 0:
        return ""
    bond = float(np.linalg.norm(inside.vectors, axis=1).min())
    images = neighbor_list(s.positions, s.cell, [True] * 3, 1.1 * bond)
    beyond = np.linalg.norm(images.vectors[images.shifts[:, ~s.pbc].any(axis=1)], axis=1)
    # images on top of each other: the box of a cluster, not the cell of a solid
    if not len(beyond) or beyond.min() <= 0.8 * bond:
        return ""
    free = " and ".join(axis for axis, periodic in zip("xyz", s.pbc) if not periodic)
    surface = (
        f"for a free surface add vacuum along {free}" if s.pbc.any() else "remove the cell of a molecule"
    )
    return (
        f"{s.origin}: pbc {flags(s.pbc)}, but across its faces atoms and images of others come "
        f"as close ({1.1 * bond:.2f} Å or less) as neighbours within it: was the flag lost (ASE's "
        f"Atoms are not periodic by default)? Set pbc to T T T, or {surface}"
    )


def flags(pbc: NDArray[np.bool_]) -> str:
    """Periodic directions as extended xyz writes them.

    >>> flags(np.array([True, True, False]))
    'T T F'
    """
    return " ".join("T" if p else "F" for p in pbc)


def _free_energy(structures: Sequence[Structure], keys: Keys) -> str | None:
    both = [s for s in structures if s.energies.keys() >= {"energy", FREE_ENERGY}]
    apart = [abs(s.energies["energy"] - s.energies[FREE_ENERGY]) / len(s) for s in both]
    if keys.energy not in ("energy", FREE_ENERGY) or max(apart, default=0.0) < SAME_EV:
        return None
    size = f"in {len(both)} of {len(structures)} frames, by up to {MILLI * max(apart):.3g} meV/atom"
    if FREE_ENERGY in both[0].taken:
        mixed = (
            "" if len(both) == len(structures) else "; the others have only 'energy', which is taken there"
        )
        return (
            f"'{FREE_ENERGY}' and 'energy' differ ({size}): '{FREE_ENERGY}' is learned, whose derivatives "
            f"the forces and the stress are{mixed}; to learn E(σ→0), name it: data.keys: {{energy: energy}}"
        )
    return (
        f"'energy' is learned as named, but it differs from '{FREE_ENERGY}' ({size}), whose derivatives "
        f"VASP's, CASTEP's and GPAW's forces are: data.keys: {{energy: {FREE_ENERGY}}} takes that one"
    )


def _no_stress(structures: Sequence[Structure], keys: Keys) -> str | None:
    tensors = [key for key in (keys.stress, keys.virial) if key is not None]
    lost = [s for s in structures if s.stress is None and set(tensors) & set(s.taken)]
    zero = [s for s in lost if s.pbc.any()]
    if zero:
        return (
            f"{len(zero)} frame(s) have a stress of exactly zero beside forces that are not, e.g. "
            f"{zero[0].origin}: taken as not computed"
        )
    if lost and any(map(keys.is_named, ("stress", "virial"))):
        return (
            f"the stress of {len(lost)} frame(s) that are not periodic is not used, e.g. {lost[0].origin}: "
            "it holds nothing that the forces do not"
        )
    absent = not any(set(tensors) & set(s.taken) for s in structures)
    if absent and "stress" in keys.named and keys.stress is not None:
        return f"no frame holds the stress that data.keys names ('{keys.stress}'); nothing is learned of it"
    return None


def _partial(structures: Sequence[Structure]) -> str | None:
    found = []
    for name, quantity in ((each.name, each) for each in with_labels()):
        possible = [s for s in structures if s.pbc.any() or not quantity.per_volume]
        labelled = sum(s.get(name) is not None for s in possible)
        if 0 < labelled < len(possible):
            found.append(f"{labelled} of {len(structures)} frames have the label '{name}'")
    return "; ".join(found) + ": the others train without" if found else None


def _unused(structures: Sequence[Structure], keys: Keys, others: Iterable[str | None]) -> str | None:
    used = {name for s in structures for name in s.taken} | set(others) | {"energy", FREE_ENERGY}
    spare = sorted({name for s in structures for name in s.available} - used)
    listed = {
        name: [n for n in spare if _is_like(quantity, n, structures) and not _NO_LABEL.search(n)]
        for name, quantity in reversed(QUANTITIES.items())
    }
    names = [name for group in listed.values() for name in group]
    if not names:
        return None
    hint = ""
    declined = keys.stress is None and keys.virial is None
    if listed["stress"] and not declined and not any(s.stress is not None for s in structures):
        name = listed["stress"][0]
        kind = "virial" if "virial" in name.lower() else "stress"
        meaning = "−V·stress in eV" if kind == "virial" else "eV/Å³, positive = tensile"
        hint = f"; no stress is learned: if '{name}' is {meaning}, set data.keys: {{{kind}: {name}}}"
    return f"labels in the frames that are not used: {', '.join(dict.fromkeys(names))}{hint}"


def _unconverged(structures: Sequence[Structure]) -> str | None:
    found = [s for s in structures if s.unconverged]
    if not found:
        return None
    return (
        f"{len(found)} of {len(structures)} frames, e.g. {found[0].origin}: VASP's electronic iteration "
        "ended at NELM, not at EDIFF, so energy and forces are not converged; leave such frames out, or "
        "repeat them with a larger NELM"
    )


def _is_like(quantity: Quantity, name: str, structures: Sequence[Structure]) -> bool:
    """Whether a label has the name and the shape of a quantity."""
    if not quantity.like or not re.search(quantity.like, name, re.IGNORECASE):
        return False
    return any(_fits(quantity, s.shapes[name], len(s)) for s in structures if name in s.shapes)


def _fits(quantity: Quantity, shape: tuple[int, ...], n_atoms: int) -> bool:
    expected = quantity.full_shape(n_atoms)
    if quantity.symmetric:  # in any order of rows, or as Voigt has it
        one = shape[1:] if quantity.per == "atom" and shape[:1] == (n_atoms,) else shape
        return math.prod(one) in (len(VOIGT), math.prod(quantity.shape))
    return shape == expected


def _without_forces(structures: Sequence[Structure]) -> str | None:
    """Forces of exactly zero on all atoms, though the surroundings pull at them: never computed."""
    zero = [s for s in structures if s.forces is not None and len(s) > 1 and not s.forces.any()]
    if len(zero) == len(structures):
        return None  # said elsewhere
    found = [s for s in zero if _pulled(s)]
    if not found:
        return None
    return (
        f"{len(found)} of {len(structures)} frames, e.g. {found[0].origin}, have forces of exactly zero on "
        "all atoms, which their surroundings do not explain: never computed? The model would learn "
        "these zeros: leave such frames out"
    )


def _pulled(s: Structure) -> bool:
    edges = neighbor_list(s.positions, s.cell, s.pbc, float(np.cbrt(DENSE_A3)))
    if len(edges.centers) == 0:
        return False
    r = np.linalg.norm(edges.vectors, axis=1)
    pull, size = np.zeros((len(s), 3)), np.zeros(len(s))
    np.add.at(pull, edges.centers, edges.vectors / r[:, None] ** 4)
    np.add.at(size, edges.centers, r**-3)
    return bool((np.linalg.norm(pull, axis=1) > ASYMMETRIC * size).any())


def _far_apart(structures: Sequence[Structure]) -> str | None:
    """No two atoms of any frame are bonded, as if lengths were in bohr."""
    frames = [s for s in structures if len(s) > 1 and not np.isin(s.numbers, bonds.NOBLE).any()]
    ratio = np.inf
    for s in frames[:: max(1, len(frames) // LOOKED_AT)]:
        ratio = min(ratio, bonds.closest(s.numbers, s.positions, s.cell, s.pbc))
        if ratio < bonds.FARTHEST:
            return None
    said = bonds.too_far(ratio)
    return f"{said} Expected Å, eV and eV/Å" if said else None


def unseen_states(structures: Sequence[Structure], inputs: Collection[str] = ()) -> list[str]:
    """Notes on electronic states that differ from frame to frame: a model that does not take them averages
    over them.

    Args:
        structures: the frames.
        inputs: `charge`, `spin_multiplicity`, if the model takes them, and entries of `info` that it sees.
    """
    unseen = {name for s in structures for name in s.states if states.input_of(name) not in inputs}
    names = sorted(unseen - set(inputs))
    notes = []
    for name in names:
        values = sorted({str(s.states[name]) for s in structures if name in s.states})
        if len(values) > 1:
            shown = ", ".join(values[:4]) + ", …" * (len(values) > 4)
            notes.append(
                f"the frames differ in '{name}' ({shown}), which the model does not see: it learns one "
                "energy for each geometry; train on frames of one state"
                + (", or name them: energies: [NAME, …]" if name == "head" else "")
            )
    return notes


def _constrained(structures: Sequence[Structure]) -> str | None:
    """Forces set to zero by constraints: they break Newton's third law."""
    found = []
    for s in structures:
        if s.forces is None or len(s) < 2:
            continue
        zero = ~s.forces.any(axis=1)
        net = float(np.linalg.norm(s.forces.sum(axis=0)))
        if 0 < zero.sum() < len(s) and net > NET_FORCE * float(np.linalg.norm(s.forces)) + 1e-4 * len(s):
            found.append((s.origin, int(zero.sum()), net))
    if not found:
        return None
    origin, n, net = found[0]
    return (
        f"{len(found)} frame(s) have atoms whose forces are exactly zero while the forces of the frame do "
        f"not add up to zero, e.g. {origin} ({n} atoms, net force {net:.2g} eV/Å): constrained atoms, "
        "whose forces were set to zero? The model would learn these zeros"
    )


def indefinite(structures: Sequence[Structure]) -> list[str]:
    """A warning about polarizabilities that no ground state has."""
    tensors = [s.get("polarizability") for s in structures if s.get("polarizability") is not None]
    said = components.indefinite(tensors, "heads: polarizability")
    return [said] if said else []
