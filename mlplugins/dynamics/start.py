"""The start structure: what a run keeps of it, what is reported, and what is refused by name.

Kept in every engine: elements, positions, cell, periodicity, masses, constraints that hold Cartesian
components of atoms, velocities, and charge and spin for models that take them. Everything else that a file
may hold (labels, the rest of `info`, tags) stays behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian, FixCom, FixedLine, FixedPlane, FixScaled
from numpy.typing import NDArray

from mlplugins.errors import BadInput
from mlplugins.structures import extxyz
from mlplugins.structures import state as states
from mlplugins.structures.dataset import Keys, from_atoms
from mlplugins.units import BOLTZMANN_EV_K

Velocities = Literal["auto", "thermal", "structure"]

AXES = "xyz"
ALIGNED = 1e-8
"""How far a cell vector or a direction may be off a Cartesian axis, relative to its length."""

NO_PART = {"initial_charges": "charges", "initial_magmoms": "magnetic moments"}
NO_LABELS = Keys(energy=None, forces=None, stress=None)
VELOCITY_COLUMNS = ("vel", "velo", "velocity", "velocities")


class ForModel(NamedTuple):
    """What of a start depends on the model.

    Attributes:
        repulsive: it holds a repulsion of nuclei, so that atoms may start on top of each other.
        inputs: `charge`, `spin_multiplicity`, if it takes them.
        closest: the shortest distance of each pair of elements (`Li-S`) in its training frames, Å.
    """

    repulsive: bool = False
    inputs: tuple[str, ...] = ()
    closest: Mapping[str, float] = MappingProxyType({})


class Start(NamedTuple):
    """A start structure as passed to the engines.

    Attributes:
        atoms: with its own masses, its momenta (if they are kept; the centre of mass at rest) and at most
            `FixAtoms` and `FixCartesian`.
        notes: sentences for the user about what is kept and what has no part.
    """

    atoms: Atoms
    notes: tuple[str, ...]


def read_structure(source: str) -> Atoms:
    """Read `file` or `file@index` (default: the last frame), without calculator.

    Raises:
        BadInput: no such file, not readable, no such frame, positions, cell, masses or velocities not finite.
    """
    name, at, index = source.rpartition("@")
    indexed = bool(at) and index.lstrip("+-").isdigit()  # a folder may be called me@work
    path = Path(name if indexed else source)
    if not path.is_file():
        raise BadInput(f"no such structure file: '{path}'")
    try:
        atoms = extxyz.read(path, int(index) if indexed else -1)
    except BadInput as error:
        raise BadInput(f"structure '{source}': {error}") from None
    except Exception as error:  # ASE's readers raise whatever the format's parser raises
        reason = (f"{type(error).__name__}: {error}".splitlines() or [""])[0]
        raise BadInput(
            f"structure '{source}': ASE cannot read it ({reason}); expected FILE or FILE@INDEX"
        ) from error
    if not isinstance(atoms, Atoms) or len(atoms) == 0:
        raise BadInput(f"structure '{source}': expected one structure with atoms")
    for what, values in (
        ("positions", atoms.positions),
        ("cell vectors", atoms.cell.array),
        ("velocities", atoms.get_momenta()),
        ("masses", atoms.get_masses()),
    ):
        if not np.isfinite(values).all():
            raise BadInput(f"structure '{source}': {what} are not finite")
    if (atoms.get_masses() <= 0).any():
        k = int(np.argmin(atoms.get_masses()))
        raise BadInput(
            f"structure '{source}': atom {k} ({atoms.symbols[k]}) has a mass of {atoms.get_masses()[k]:g} u; "
            "expected positive masses"
        )
    atoms.calc = None
    return atoms


def prepare(
    given: Atoms,
    source: str,
    supercell: tuple[int, int, int],
    velocities: Velocities,
    model: ForModel | None = None,
) -> Start:
    """Prepare the structure that the runs start from.

    Args:
        given: as read.
        source: its name for messages.
        supercell: repetitions.
        velocities: `structure`: its own; `thermal`: none here, the engines draw them; `auto`: its own if it
            has any and is not repeated.
        model: what depends on the model.

    Raises:
        BadInput: atoms on top of each other, fractional coordinates, a lost periodic flag; a supercell along
            a direction that is not periodic; constraints that no engine keeps, or that leave nothing to
            move; velocities asked for that are not there, or that a supercell would repeat.
    """
    model = model or ForModel()
    doubts = _doubts(given, source, model)
    mask = _fixed(given, source)
    if any(n > 1 and not periodic for n, periodic in zip(supercell, given.pbc)):
        raise BadInput(f"'supercell': {list(supercell)} repeats a direction that is not periodic")
    atoms = Atoms(given.numbers, given.positions, cell=given.cell, pbc=given.pbc)
    atoms.info = _state(given, source, supercell, model.inputs)
    notes = [*doubts, *_without_part(given, model.inputs)]
    if given.has("masses") and not np.array_equal(given.get_masses(), atoms.get_masses()):
        atoms.set_masses(given.get_masses())
        notes.append(f"masses of the structure are kept: {_masses(atoms)}")
    if _own_velocities(given, source, supercell, velocities, notes):
        atoms.set_momenta(given.get_momenta())
    atoms = atoms.repeat(supercell)
    mask = np.tile(mask, (int(np.prod(supercell)), 1))
    _constrain(atoms, mask, source, notes)
    if atoms.has("momenta"):
        _rest(atoms)
        notes.append(
            f"velocities of the structure are kept ({temperature(atoms):.4g} K, "
            f"{'fixed atoms' if atoms.constraints else 'the centre of mass'} at rest); "
            "`velocities: thermal` draws them at each temperature instead"
        )
    return Start(atoms, tuple(notes))


def _doubts(atoms: Atoms, source: str, model: ForModel) -> list[str]:
    """Refuse distances and periodic flags that no material has; notes on those that few have: close atoms of
    a model made for them, and a film or wire without vacuum."""
    from mlplugins.structures import bonds, labels, nearest  # they need torch, which `doctor` does without

    s = from_atoms(atoms, NO_LABELS, f"structure '{source}'")
    labels.check_lengths(s)
    said = labels.lost_flag(s)
    if said and not s.pbc.any():
        raise BadInput(said)
    notes = [f"{said} (the run starts with free surfaces there)"] if said else []
    ratio = bonds.closest(s.numbers, s.positions, s.cell, s.pbc, reach=bonds.CLOSEST)
    if said := nearest.too_close(model.closest, atoms):
        notes.append(f"structure '{source}': {said}")
    if ratio >= bonds.CLOSEST:
        return notes
    close = (
        f"structure '{source}': the closest atoms are {ratio:.2f} lengths of bonds of their elements apart: "
        "atoms on top of each other, or lengths in nm? Expected Å"
    )
    if not model.repulsive:
        raise BadInput(
            f"{close}. Such pairs are for models with a repulsion of nuclei: `mlplugins convert MODEL --zbl`"
        )
    return [*notes, f"{close} (the model holds a repulsion of nuclei, so the run starts)"]


def fixed(atoms: Atoms) -> NDArray[np.bool_]:
    """Cartesian components that are fixed, (N, 3), of a structure from `prepare`."""
    mask = np.zeros((len(atoms), 3), dtype=bool)
    for constraint in atoms.constraints:
        mask[constraint.index] |= getattr(constraint, "mask", np.ones(3, dtype=bool))
    return mask


def fixed_whole(atoms: Atoms) -> NDArray[np.bool_]:
    """Atoms that are fixed in all components, (N,)."""
    return np.asarray(fixed(atoms).all(axis=1))


def patterns(mask: NDArray[np.bool_]) -> dict[str, NDArray[np.intp]]:
    """Atoms by the components that are fixed.

    >>> patterns(np.array([[True, True, True], [False, False, False], [False, False, True]]))
    {'xyz': array([0]), 'z': array([2])}
    """
    names = np.array(["".join(a for a, held in zip(AXES, row) if held) for row in mask])
    return {str(name): np.flatnonzero(names == name) for name in dict.fromkeys(names) if name}


def degrees_of_freedom(atoms: Atoms) -> int:
    """3N − 3 (centre of mass at rest), or the number of free components if any is fixed.

    >>> degrees_of_freedom(Atoms("Ar4"))
    9
    >>> degrees_of_freedom(Atoms("Ar4", constraint=FixAtoms([0])))
    9
    """
    mask = fixed(atoms)
    return int((~mask).sum()) if mask.any() else 3 * len(atoms) - 3


def temperature(atoms: Atoms) -> float:
    """2 E_kin / (k_B f) with f from `degrees_of_freedom`, K."""
    return float(2 * atoms.get_kinetic_energy() / (BOLTZMANN_EV_K * degrees_of_freedom(atoms)))


def thermal(atoms: Atoms, kelvin: float, seed: int) -> Atoms:
    """A copy with normally distributed velocities at exactly that temperature, its centre of mass or held
    components at rest, as LAMMPS' `velocity create` makes them.

    >>> round(temperature(thermal(Atoms("Ar4"), 300.0, 1)), 6)
    300.0
    """
    moving = atoms.copy()
    widths = np.sqrt(moving.get_masses()[:, None] * BOLTZMANN_EV_K * kelvin)
    momenta = np.random.default_rng(seed).standard_normal((len(moving), 3)) * widths
    moving.set_momenta(momenta, apply_constraint=False)
    _rest(moving)
    scale = np.sqrt(kelvin / temperature(moving))
    moving.set_momenta(moving.get_momenta() * scale, apply_constraint=False)
    return moving


def _fixed(atoms: Atoms, source: str) -> NDArray[np.bool_]:
    mask = np.zeros((len(atoms), 3), dtype=bool)
    alone = True
    for constraint in atoms.constraints:
        if isinstance(constraint, FixCom):
            alone = False
            continue  # the centre of mass always rests
        held = _components(constraint, atoms)
        if held is None:
            raise BadInput(
                f"structure '{source}': the constraint {type(constraint).__name__} cannot be kept in "
                "every engine (FixAtoms, FixCartesian, planes and lines along axes can): take it out of the "
                "file"
            )
        mask[constraint.index] |= held
    if mask.any() and not alone:
        raise BadInput(
            f"structure '{source}': FixCom and fixed atoms contradict each other; keep one of them"
        )
    return mask


def _components(constraint: object, atoms: Atoms) -> NDArray[np.bool_] | None:
    """Cartesian components that a constraint fixes, or None if it is of another kind."""
    everything = np.ones(3, dtype=bool)
    if isinstance(constraint, FixAtoms):
        return everything
    if isinstance(constraint, FixCartesian):
        return np.asarray(constraint.mask, dtype=bool)
    if isinstance(constraint, FixScaled):
        held = np.asarray(constraint.mask, dtype=bool)
        free = np.abs(atoms.cell.array[~held])  # the atom moves along these cell vectors only
        still = (free <= ALIGNED * np.abs(atoms.cell.array).max()).all(axis=0)
        return still if still.sum() == held.sum() else None
    if isinstance(constraint, FixedPlane | FixedLine):
        along = np.abs(constraint.dir) > 1 - ALIGNED
        if not along.any():
            return None
        return along if isinstance(constraint, FixedPlane) else ~along
    return None


def _constrain(atoms: Atoms, mask: NDArray[np.bool_], source: str, notes: list[str]) -> None:
    if not mask.any():
        return
    free = [axis for k, axis in enumerate(AXES) if not mask[:, k].any()]
    if free:
        raise BadInput(
            f"structure '{source}': components of atoms are fixed, but none along {', '.join(free)}: the "
            "momentum there is conserved, which the engines count differently; fix one atom there as well"
        )
    if mask.all():
        raise BadInput(f"structure '{source}': every atom is fixed, nothing would move")
    groups = patterns(mask)
    whole = FixAtoms(indices=groups["xyz"]) if "xyz" in groups else None
    parts = [
        FixCartesian(indices, mask=[axis in name for axis in AXES])
        for name, indices in groups.items()
        if name != "xyz"
    ]
    atoms.set_constraint([*([whole] if whole is not None else []), *parts])
    what = ", ".join(f"{len(indices)} in {name}" for name, indices in groups.items())
    notes.append(
        f"fixed atoms of the structure are kept ({what}, of {len(atoms)}): "
        f"{degrees_of_freedom(atoms)} degrees of freedom, and the centre of mass is not held besides"
    )


def _own_velocities(
    given: Atoms, source: str, supercell: tuple[int, int, int], velocities: Velocities, notes: list[str]
) -> bool:
    moving = bool(given.get_momenta().any())
    if velocities == "structure" and not moving:
        raise BadInput(
            f"'velocities: structure': structure '{source}' has no velocities (momenta) of its own"
        )
    if not moving:
        return False
    if velocities == "thermal":
        notes.append(
            "velocities of the structure are not used: thermal ones are drawn (`velocities: thermal`)"
        )
        return False
    if supercell == (1, 1, 1):
        return True
    if velocities == "structure":
        raise BadInput(
            f"'velocities: structure' with 'supercell': {list(supercell)}: every copy would move alike; "
            "use velocities: thermal"
        )
    notes.append("velocities of the structure are not used: in a supercell every copy would move alike")
    return False


def _rest(atoms: Atoms) -> None:
    """Set the momenta of fixed components, or of the centre of mass, to zero."""
    mask, momenta = fixed(atoms), atoms.get_momenta()
    if mask.any():
        momenta[mask] = 0.0
    else:
        masses = atoms.get_masses()[:, None]
        momenta -= masses * momenta.sum(axis=0) / masses.sum()
    atoms.set_momenta(momenta, apply_constraint=False)


def _state(
    given: Atoms, source: str, supercell: tuple[int, int, int], inputs: tuple[str, ...]
) -> dict[str, Any]:
    """Charge and spin, for a model that takes them."""
    found = {name: states.stated(given.info, name) for name in inputs}
    kept = {name: value for name, value in found.items() if value is not None}
    if kept != {name: getattr(states.ElectronicState(), name) for name in kept} and np.prod(supercell) > 1:
        said = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in kept.items())
        raise BadInput(
            f"structure '{source}': {said} of one cell says nothing of {int(np.prod(supercell))} of them: "
            "repeat the structure yourself, and state charge and spin of the whole (leave `supercell` out)"
        )
    return kept


def _without_part(given: Atoms, inputs: tuple[str, ...]) -> list[str]:
    notes = [
        f"{what} of the structure have no part in the dynamics: the potential takes none"
        for name, what in NO_PART.items()
        if given.has(name) and given.arrays[name].any()
    ]
    notes += [
        f"column '{name}' of the structure is not used: ASE's name for velocities is 'momenta'"
        for name in given.arrays
        if name.lower() in VELOCITY_COLUMNS
    ]
    notes += [
        f"'{name}' of the structure ({given.info[name]}) has no part: the potential takes none"
        for name in ("charge", "total_charge")
        if np.ndim(given.info.get(name, 0)) == 0
        and given.info.get(name, 0) not in (0, 0.0, None)
        and states.CHARGE not in inputs
    ]
    return notes


def _masses(atoms: Atoms) -> str:
    kinds = sorted(
        {(str(symbol), round(float(mass), 8)) for symbol, mass in zip(atoms.symbols, atoms.get_masses())}
    )
    names = [f"{symbol} {mass:g}" for symbol, mass in kinds]
    return ", ".join(names[:8]) + (" u" if len(names) <= 8 else f", … ({len(names)} kinds) u")
