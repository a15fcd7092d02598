"""Consistency of energies, forces and stress: units, signs and component orders that the data contradict.

Two witnesses, in this order: energy differences between close frames (`close_frames`: no model, exact
factors), and what a pair potential fitted to the forces implies (`pair_fit`: a rough factor, but from any
set of frames). The second one counts only where two strengths of its regularisation
agree and the correlation is high.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlplugins import units
from mlplugins.quantities import MILLI
from mlplugins.structures import close_frames, magnitudes, pair_fit
from mlplugins.structures.close_frames import Factors
from mlplugins.structures.dataset import Keys, Structure
from mlplugins.structures.pair_fit import Implied

OFF_FINE, OFF_GOOD, OFF_ROUGH = 1.25, 1.6, 8.0
"""Factors from 1 that are a mistake, from close frames, from a pair potential that explains the forces, and
from one that does not."""

VOLUME_ROWS = 10
"""Frames in each half from which the energy of the volume can be taken out."""

EXPLAINED, FOLLOWED = 0.95, 0.97
"""Share of the forces that such a potential explains, and its correlation with the energies."""

STRONG, WEAK = 0.85, 0.65
"""Correlations that the better and the worse of the two fits must have."""

FEWEST_PAIRS, LEAST_CHANGE, UNEXPLAINED = 10, 2e-3, 0.7
"""Pairs of close frames, RMS difference of their energies (eV), and part of it that no work explains, from
which on forces belong to something else."""

RELATED, FEWEST_FRAMES, ROWS, LEAST_FORCE = 0.1, 12, 10, 0.05
"""Share of the forces that such a potential explains at least where forces belong to the positions (0.4 to 1
in real sets, less than 0.05 with those of other frames); frames, rows per coefficient and RMS force (eV/Å)
from which on it is known."""

SKEW, LEFT = 1e-4, 0.5
"""Asymmetry of cells that tells rows from columns; what a transposed lattice may leave of the unexplained
forces."""

ABSURD_STRESS = 10.0
"""Median of the largest stress component of the frames (eV/Å³; 1.6 TPa) above which its unit is another."""

ABSURD_FORCE = 10.0
"""Median of the RMS force of the frames (eV/Å) above which its unit is another."""

STRESS_UNITS = {
    "GPa": units.GPA_PER_EV_A3,
    "kbar": units.BAR_PER_EV_A3 / MILLI,
    "bar": units.BAR_PER_EV_A3,
    "hartree/bohr³": units.A_PER_BOHR**3 / units.EV_PER_HARTREE,
    "Ry/bohr³": 2 * units.A_PER_BOHR**3 / units.EV_PER_HARTREE,
}
_FORCE_ATOMIC = units.EV_PER_HARTREE / units.A_PER_BOHR
_KJ_MOL = 4.184 / units.EV_PER_KCAL_MOL
ENERGY_UNITS = {
    "energies in hartree": 1 / units.EV_PER_HARTREE,
    "energies in Ry": 2 / units.EV_PER_HARTREE,
    "energies in kcal/mol": 1 / units.EV_PER_KCAL_MOL,
    "energies in kJ/mol": _KJ_MOL,
    "energies in meV": MILLI,
    "forces in hartree/bohr": _FORCE_ATOMIC,
    "forces in Ry/bohr": _FORCE_ATOMIC / 2,
    "forces in kcal/mol/Å": units.EV_PER_KCAL_MOL,
    "forces in kJ/mol/Å": 1 / _KJ_MOL,
    "forces in meV/Å": 1 / MILLI,
    "both in atomic units (hartree, hartree/bohr)": 1 / units.A_PER_BOHR,
}
"""Energy differences over the work of the forces, where the other of the two is in eV or eV/Å."""


class Slope(NamedTuple):
    """Labels compared with implied values: least-squares factor and correlation."""

    value: float
    correlation: float


def check(structures: Sequence[Structure], keys: Keys) -> list[str]:
    """Warnings about labels that contradict each other, with the factor and the units that would explain it.

    Nothing is said where the data do not tell: too few frames, none close to another and no likeness to a
    pair potential.
    """
    found = close_frames.pairs(structures)
    near = close_frames.factors(found)
    rough = [fit for ridge in pair_fit.RIDGES if (fit := pair_fit.implied(structures, ridge)) is not None]
    energy = _energy_factor(near, rough)
    notes = [
        _energy(energy, structures) or _other_energy(found) or _no_work(found) or _unrelated(rough),
        _large_forces(structures),
    ]
    notes += [_transposed(rough)]
    if any(s.stress is not None for s in structures):
        stress = _stress_factor(near, rough, energy)
        notes += [_stress(stress, structures, keys) or _large_stress(structures, keys), _order(rough, keys)]
    return [note for note in notes if note]


class Factor(NamedTuple):
    """A factor, the largest that still counts as correct, and its origin."""

    value: float
    limit: float
    origin: str

    @property
    def is_off(self) -> bool:
        return not 1 / self.limit < self.value < self.limit


def _energy_factor(near: Factors, rough: Sequence[Implied]) -> Factor | None:
    if near.energy is not None:
        return Factor(near.energy, OFF_FINE, f"{near.n} pairs of close frames")
    slopes = [_slope(_per_atom(f, f.energy), _energies(f)) for f in rough]
    slope = _agreed(slopes)
    if slope is None:
        return None
    good = min(f.r2 for f in rough) > EXPLAINED and min(abs(s.correlation) for s in slopes) > FOLLOWED
    return Factor(slope.value, OFF_GOOD if good else OFF_ROUGH, "a pair potential fitted to the forces")


def _energy(factor: Factor | None, structures: Sequence[Structure]) -> str | None:
    if factor is None or not factor.is_off:
        return None
    table = dict(ENERGY_UNITS)
    size = float(np.median([len(s) for s in structures if len(s) > 1]))
    table["energies per atom instead of totals"] = 1.0 / size
    return (
        f"energies and forces do not belong together: energy differences are {factor.value:.3g} times the "
        f"work of the forces (from {factor.origin}), expected 1: "
        f"{_named(factor, table, 'forces of the opposite sign (gradients dE/dr)')}? "
        "Expected eV, eV/Å, F = −dE/dr: convert the file"
    )


def _other_energy(found: close_frames.ClosePairs) -> str | None:
    """Another energy of the same frames that the forces belong to."""
    frames = [*found.first, *found.second]
    names = {name for s in frames for name in s.energies}
    left = {name: value for name in names if (value := close_frames.residual(found, name)) is not None}
    taken = [name for name in left if all(name in s.taken for s in frames)]
    if len(taken) != 1 or len(left) < 2:
        return None
    best = min(left, key=lambda name: left[name])
    spread = float(np.sqrt(np.mean(np.square(found.change))))
    if best == taken[0] or left[best] > 0.5 * left[taken[0]] or left[best] > 0.2 * spread:
        return None
    return (
        f"the forces belong to '{best}' rather than to '{taken[0]}': between {len(found.change)} pairs of "
        f"close frames their work differs by {MILLI * left[best]:.3g} meV (RMS) from the change of the "
        f"one, by {MILLI * left[taken[0]]:.3g} meV from that of the other; data.keys: {{energy: {best}}}"
    )


def _no_work(found: close_frames.ClosePairs) -> str | None:
    """Forces that do not do the work of the energies at all: of other atoms, or of turned structures."""
    n, spread = len(found.change), close_frames.spread(found)
    if n < FEWEST_PAIRS or spread < LEAST_CHANGE or (left := close_frames.unexplained(found)) < UNEXPLAINED:
        return None
    return (
        f"energies and forces do not belong together: between {n} pairs of close frames, whose energies "
        f"differ by {MILLI * spread:.3g} meV (RMS), the work of forces and stress leaves {100 * left:.0f} % "
        "of that unexplained: forces in another order of atoms (sorted by element?), of turned positions, "
        "of another method, or energies that have not converged"
    )


def _unrelated(rough: Sequence[Implied]) -> str | None:
    """Forces that have nothing to do with the positions."""
    frames = rough[0].structures if rough else []
    if len(frames) < FEWEST_FRAMES or len(rough) < 2 or max(fit.r2 for fit in rough) > RELATED:
        return None
    forces = np.concatenate([s.forces for s in frames if s.forces is not None])
    elements = len(np.unique(np.concatenate([s.numbers for s in frames])))
    coefficients = elements * (elements + 1) // 2 * pair_fit.N_RADIAL
    if forces.size < ROWS * coefficients or np.sqrt(np.mean(forces**2)) < LEAST_FORCE:
        return None
    if magnitudes.bond_stiffness(frames):
        return None
    return (
        "the forces do not belong to the positions: a pair potential explains "
        f"{100 * max(rough[0].r2, 0):.2g} % of those in frames that it was not fitted to (expected 40 to "
        "100 %), and no bond pulls back where it is longer: forces of other frames, of atoms in another "
        "order (sorted by element?), or a wrong cell?"
    )


def _large_forces(structures: Sequence[Structure]) -> str | None:
    sizes = [
        float(np.sqrt(np.mean(np.square(s.forces))))
        for s in structures
        if s.forces is not None and len(s) > 1
    ]
    if not sizes or np.median(sizes) < ABSURD_FORCE:
        return None
    return (
        f"the RMS force of the median frame is {np.median(sizes):.3g} eV/Å, more than thermal motion or "
        "relaxation makes: kcal/mol/Å (23.06 per eV/Å) or another unit, for the energies as well?"
    )


def _stress_factor(near: Factors, rough: Sequence[Implied], energy: Factor | None) -> Factor | None:
    """Factor of the stress; None if it agrees with the energies or with the forces (the other is wrong)."""
    other = energy.value if energy is not None else 1.0
    if near.stress is not None:
        found = [near.stress, near.stress * other]
        limit, origin = OFF_FINE, f"{near.n} pairs of strained frames"
    else:
        implied = _rough_stress(rough)
        if implied is None:
            return None
        origin = "the virial that the forces imply" + (", if these are right" if energy is None else "")
        found, limit = [implied, implied / other], OFF_ROUGH
    factors = [Factor(value, limit, origin) for value in found]
    return None if any(not factor.is_off for factor in factors) else factors[0]


def _stress(factor: Factor | None, frames: Sequence[Structure], keys: Keys) -> str | None:
    if factor is None:
        return None
    label, key = _key(keys, frames)
    volume = float(np.median([s.volume for s in frames if s.stress is not None]))
    if label == "stress":
        table = STRESS_UNITS | {"a virial V·σ in eV": volume}
    else:
        table = {f"a stress in {name} instead of a virial": f / volume for name, f in STRESS_UNITS.items()}
        table["a stress in eV/Å³ instead of a virial"] = 1.0 / volume
    sign = (
        "of the opposite sign (ASE's stress is positive where it is tensile; VASP and LAMMPS print pressures)"
    )
    return (
        f"{label} (key '{key}'): the labels are {factor.value:.3g} times what they should be (from "
        f"{factor.origin}): {_named(factor, table, sign)}? Expected eV/Å³, positive = tensile (virial: "
        f"−V·stress in eV): convert the file, or set {label}: null in data.keys"
    )


def _rough_stress(rough: Sequence[Implied]) -> float | None:
    """Factor of the stress: that of the best witness, unless another one says that all is well."""
    found = [slope for part in (_isotropic, _diagonal, _shear) if (slope := _agreed(_both(rough, part)))]
    if not found or any(1 / OFF_ROUGH < slope.value < OFF_ROUGH for slope in found):
        return None
    return max(found, key=lambda slope: abs(slope.correlation)).value


def _order(rough: Sequence[Implied], keys: Keys) -> str | None:
    """Shear components in another order, such as VASP's xy yz zx."""
    names = np.array(["yz", "xz", "xy"])
    found = {}
    for order in permutations(range(3)):
        slopes = _both(rough, _shear, order)
        found[order] = sorted(abs(s.correlation) for s in slopes) or [0.0]
    best = max(found, key=lambda order: found[order][0])
    if best == (0, 1, 2) or found[best][-1] < STRONG or found[best][0] < WEAK or found[(0, 1, 2)][-1] > WEAK:
        return None
    correlations = f"correlation {found[best][-1]:.2f}, not {found[(0, 1, 2)][-1]:.2f}"
    held = {int(slot): str(names[k]) for k, slot in enumerate(best)}
    label, key = _key(keys, rough[0].structures)
    return (
        f"{label} (key '{key}'): the shear components are not in the order xx yy zz yz xz xy: the virial "
        f"that the forces imply follows them ({correlations}) "
        f"as xx yy zz {' '.join(held[k] for k in range(3))}"
    )


def _large_stress(structures: Sequence[Structure], keys: Keys) -> str | None:
    sizes = [float(np.abs(s.stress).max()) for s in structures if s.stress is not None]
    if np.median(sizes) < ABSURD_STRESS:
        return None
    label, key = _key(keys, structures)
    return (
        f"{label} (key '{key}'): the largest component of the median frame is {np.median(sizes):.3g} eV/Å³ "
        f"({np.median(sizes) * units.GPA_PER_EV_A3:.3g} GPa): expected eV/Å³ (virial: eV), not GPa or bar"
    )


def _transposed(rough: Sequence[Implied]) -> str | None:
    """Cell vectors as columns, where rows are expected."""
    fit = rough[0] if rough else None
    if fit is None or all(
        np.allclose(s.cell, s.cell.T, atol=SKEW * np.abs(s.cell).max()) for s in fit.structures
    ):
        return None
    turned = pair_fit.implied([replace(s, cell=s.cell.T.copy()) for s in fit.structures], pair_fit.RIDGES[0])
    if turned is None or 1.0 - turned.r2 > LEFT * (1.0 - fit.r2):
        return None
    return (
        f"the cells are transposed: a pair potential leaves {100 * (1 - turned.r2):.2g} % of the forces "
        f"unexplained if the cell vectors are the columns of the lattice, {100 * (1 - fit.r2):.2g} % if they "
        "are its rows, as expected (ax ay az bx by bz cx cy cz): transpose them"
    )


def _key(keys: Keys, structures: Sequence[Structure]) -> tuple[str, str | None]:
    taken = {name for s in structures for name in s.taken}
    return ("virial", keys.virial) if keys.virial in taken else ("stress", keys.stress)


def _named(factor: Factor, table: dict[str, float], negative: str) -> str:
    """The entries nearest to a factor, and its sign, in words."""
    tolerance = {OFF_FINE: 1.12, OFF_GOOD: 1.3}.get(factor.limit, 2.5)
    entries = table | {"": 1.0} if factor.value < 0 else table
    off = {name: abs(np.log(abs(factor.value) / value)) for name, value in entries.items()}
    close = sorted((name for name in off if off[name] < np.log(tolerance)), key=lambda name: off[name])
    if factor.value < 0 and off[""] < np.log(OFF_FINE):
        return negative
    named = " or ".join(f"{name} (factor {entries[name]:.4g})" for name in close[:3] if name)
    sign = f", and {negative}" if factor.value < 0 else ""
    return (named or "no unit that we know") + sign


# --- labels against what the pair potential implies -----------------------------------------------


def _agreed(slopes: Sequence[Slope]) -> Slope | None:
    """The better of two slopes if they agree."""
    if len(slopes) < 2:
        return None
    worse, better = sorted(slopes, key=lambda s: abs(s.correlation))
    if abs(better.correlation) < STRONG or abs(worse.correlation) < WEAK or worse.value * better.value <= 0:
        return None
    return better if 0.4 < worse.value / better.value < 2.5 else None


def _both(rough: Sequence[Implied], part: object, order: tuple[int, ...] = (0, 1, 2)) -> list[Slope]:
    found = []
    for fit in rough:
        use = np.array([s.stress is not None for s in fit.structures])
        if use.sum() < 6 or not callable(part):
            return []
        n = np.array([len(s) for s in fit.structures], dtype=np.float64)[:, None, None]
        labels = np.array(
            [np.zeros((3, 3)) if s.stress is None else s.stress * s.volume for s in fit.structures]
        )
        half = np.arange(len(use)) % 2
        x, y = part((fit.virial / n)[use], half[use]), part((labels / n)[use], half[use])
        found.append(_slope(x, y[:, list(order)] if y.shape[1] == 3 else y))
    return found


def _isotropic(virial: NDArray[np.float64], half: NDArray[np.int64]) -> NDArray[np.float64]:
    mean = np.trace(virial, axis1=1, axis2=2)[:, None] / 3
    for k in (0, 1):  # the two halves come from two fits, each with a constant of its own
        mean[half == k] -= mean[half == k].mean() if (half == k).any() else 0.0
    return mean


def _diagonal(virial: NDArray[np.float64], half: NDArray[np.int64]) -> NDArray[np.float64]:
    diagonal = np.einsum("sii->si", virial)
    return np.asarray(diagonal - diagonal.mean(axis=1, keepdims=True))


def _shear(virial: NDArray[np.float64], half: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.stack([virial[:, 1, 2], virial[:, 0, 2], virial[:, 0, 1]], axis=1)


def _energies(fit: Implied) -> NDArray[np.float64]:
    return _per_atom(fit, np.array([s.energy or 0.0 for s in fit.structures]))


def _per_atom(fit: Implied, energy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Energies per atom without what composition and volume explain, within each half."""
    elements = np.unique(np.concatenate([s.numbers for s in fit.structures]))
    size = np.array([len(s) for s in fit.structures])
    share = np.array([[np.mean(s.numbers == z) for z in elements] for s in fit.structures])
    values = energy / size
    # forces do not know the energy of the volume, which a pair potential has wrong
    volume = np.array([s.volume if s.pbc.all() else 0.0 for s in fit.structures]) / size
    volume /= volume.mean() or 1.0
    if len(size) > 2 * VOLUME_ROWS and np.ptp(volume) > 1e-6:
        share = np.concatenate([share, np.stack([volume**k for k in (1, 2, 3)], axis=1)], axis=1)
    for half in (slice(0, None, 2), slice(1, None, 2)):
        values[half] -= share[half] @ np.linalg.lstsq(share[half], values[half], rcond=1e-6)[0]
    return np.asarray(values)


def _slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> Slope:
    xx, yy, xy = float((x * x).sum()), float((y * y).sum()), float((x * y).sum())
    if xx <= 0.0 or yy <= 0.0:
        return Slope(0.0, 0.0)
    return Slope(xy / xx, xy / float(np.sqrt(xx * yy)))
