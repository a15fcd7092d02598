"""Whether one cause explains how labels and predictions differ: a zero of energy, a unit, a sign.

A cause is said where, once it is taken out, at most a quarter of the differences is left, and enough values
are there for that not to be chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from ase.data import chemical_symbols
from ase.formula import Formula
from numpy.typing import NDArray

from mlplugins import units
from mlplugins.quantities import MILLI, QUANTITIES, Results
from mlplugins.structures import arrangement
from mlplugins.structures.consistency import STRESS_UNITS
from mlplugins.structures.dataset import Structure
from mlplugins.structures.metrics import pairs

Array = NDArray[np.float64]

LEFT = 0.25
"""Largest part of the differences that a cause may leave."""

FREEDOM = 2
"""Fewest values beyond those that a fit can follow whatever they are."""

SAME = 1e-7
"""Relative differences that need no explanation: rounding, constants of other years."""

CLOSE = 0.05
"""Relative distance of a factor from that of the unit whose name it gets."""

MARGIN = 1.01
"""By how much more the reading as another quantity (per atom, virial) may leave than a bare factor."""

NO_UNIT = "; no unit that we know"

ROUND_OFF = 1e-6
"""Differences of energies per atom (eV) that need no explanation."""

FEWEST, GROUP, GAP = 12, 3, 8.0
"""Frames that show whether energies follow, those of a group, and its distance over the scatter in it."""
UNLEARNED, FOLLOWED, LEAST_EV = 0.1, 0.9, 2e-3
"""Part of the squared forces, and of the RMS energy per atom, that a model which follows them leaves at most;
differences of energies per atom (eV) below which nothing is said."""

HOT = (20.0, 20_000.0)
"""Temperatures (K) of molecular dynamics."""

SHOWN = 8
"""Elements, or compositions, that a message lists."""

ENERGY_UNITS = {
    "hartree": 1 / units.EV_PER_HARTREE,
    "Ry": 2 / units.EV_PER_HARTREE,
    "kcal/mol": 1 / units.EV_PER_KCAL_MOL,
    "kJ/mol": 4.184 / units.EV_PER_KCAL_MOL,
    "meV": MILLI,
}
UNITS: dict[str, dict[str, float]] = {
    "energy": ENERGY_UNITS,
    "forces": {
        **{f"{name}/Å": factor for name, factor in ENERGY_UNITS.items()},
        "hartree/bohr": ENERGY_UNITS["hartree"] * units.A_PER_BOHR,
        "Ry/bohr": ENERGY_UNITS["Ry"] * units.A_PER_BOHR,
        "eV/bohr": units.A_PER_BOHR,
    },
    "stress": {**STRESS_UNITS, **{f"{name}/Å³": ENERGY_UNITS[name] for name in ("hartree", "Ry")}},
}
SIGNS = {
    "forces": "gradients dE/dr instead of forces",
    "stress": "compression counted positive; expected ASE's sign, tension positive",
}


def explain(
    structures: Sequence[Structure], predictions: Sequence[Results], least: float = ROUND_OFF
) -> list[str]:
    """Sentences on what explains the differences, none where nothing simple does.

    Args:
        structures: with their labels.
        predictions: for each.
        least: eV/atom, differences of the energy below which nothing is said of it.

    >>> from mlplugins.structures.dataset import read
    >>> frames = read("examples/data/li6ps5cl_pbe/test.extxyz")
    >>> off = [Results(s.energy - 0.5 * len(s), -s.forces) for s in frames]
    >>> for sentence in explain(frames, off):
    ...     print(sentence.partition(";")[0])
    energy: labels − model = +0.5 eV per atom in every frame
    forces: labels = −1 × model
    """
    together = list(zip(structures, predictions, strict=True))
    found = [_energy([t for t in together if t[0].energy is not None], least)]
    for name, quantity in QUANTITIES.items():
        if quantity.baseline:
            continue
        both = [(s, p) for s, p in together if s.get(name) is not None and p.get(name) is not None]
        if both:
            given, said = [s.get(name) for s, _ in both], [p.get(name) for _, p in both]
            found.append(
                _factor_of(name, [s for s, _ in both], [p for _, p in both])
                or arrangement.otherwise(name, given, said)
            )
    found += [unfollowed(structures, predictions), kinetic(structures, predictions)]
    return [text for text in found if text]


def unfollowed(structures: Sequence[Structure], predictions: Sequence[Results]) -> str | None:
    """Energies that the model does not follow although it follows the forces: in two groups, or all."""
    both = [(s, p) for s, p in zip(structures, predictions, strict=True) if not s.head]
    both = [
        (s, p) for s, p in both if None not in (s.energy, p.energy) and s.forces is not None and len(s) > 1
    ]
    both = [(s, p) for s, p in both if p.forces is not None]
    if len(both) < FEWEST:
        return None
    given = np.concatenate([np.asarray(s.forces).ravel() for s, _ in both])
    left = given - np.concatenate([np.asarray(p.forces).ravel() for _, p in both])
    size = np.array([len(s) for s, _ in both], dtype=np.float64)
    label = np.array([s.energy for s, _ in both]) / size
    parts = _shares([s for s, _ in both])[1]
    off = _without(parts, label - np.array([p.energy for _, p in both]) / size)
    if left @ left > UNLEARNED * (given @ given) or _rms(off) < LEAST_EV:
        return None
    order = np.sort(off)
    k = int(np.diff(order).argmax()) + 1
    low, high = order[:k], order[k:]
    apart, spread = float(high.mean() - low.mean()), max(float(low.std()), float(high.std()))
    if min(k, len(off) - k) >= GROUP and apart > GAP * spread and high[0] - low[-1] > GAP / 2 * spread:
        return (
            f"energies: labels − model are in two groups, of {k} and {len(off) - k} frames, "
            f"{MILLI * apart:.3g} meV/atom apart, though the forces agree: two levels of theory, settings or "
            "zeros of the energy?"
        )
    if len(off) - np.linalg.matrix_rank(parts) < FEWEST or _rms(off) < FOLLOWED * _rms(
        _without(parts, label)
    ):
        return None
    return (
        f"energies: the labels do not follow the model (differences of {MILLI * _rms(off):.3g} meV/atom, as "
        "much as the labels themselves) though the forces do: energies of other frames, or with something "
        "that the forces lack (kinetic energy, a bias)?"
    )


def kinetic(structures: Sequence[Structure], predictions: Sequence[Results]) -> str | None:
    """Of the stress: the momentum that atoms carry in molecular dynamics, −N kT/V of an ideal gas."""
    both = zip(structures, predictions, strict=True)
    together = [(s, p) for s, p in both if s.stress is not None and p.stress is not None]
    if len(together) <= FREEDOM:
        return None
    apart = np.array([np.asarray(s.stress) - np.asarray(p.stress) for s, p in together])
    gas = np.array([-len(s) / s.volume * np.eye(3) for s, _ in together])
    kelvin = float((apart * gas).sum() / (gas**2).sum()) / units.BOLTZMANN_EV_K
    left = apart - gas * kelvin * units.BOLTZMANN_EV_K
    if not HOT[0] < kelvin < HOT[1] or _rms(left) > LEFT * _rms(apart):
        return None
    pressure = -units.GPA_PER_EV_A3 * float(np.einsum("kaa->k", apart).mean()) / 3
    return (
        f"stress: labels − model = −N kT/V with T = {kelvin:.0f} K in every frame, a pressure of "
        f"{pressure:.2g} GPa; do the labels hold the kinetic part of molecular dynamics (expected: that of "
        "the potential energy alone), or does the model lack something, such as dispersion?"
    )


def _energy(together: Sequence[tuple[Structure, Results]], least: float) -> str | None:
    """Of energies per atom: a factor beside constants, or constants alone."""
    size = np.array([len(s) for s, _ in together], dtype=np.float64)
    label = np.array([s.energy for s, _ in together]) / size
    model = np.array([p.energy for _, p in together]) / size
    if len(together) <= FREEDOM or _rms(label - model) < least:
        return None
    if (scaled := scale_of_energies([s for s, _ in together], model * size, least)) is not None:
        return scaled
    numbers, parts = _shares([s for s, _ in together])
    return _constants(together, parts, label - model, numbers)


def _shares(structures: Sequence[Structure]) -> tuple[list[int], Array]:
    """The elements, and the share of each in every structure."""
    numbers = sorted({int(z) for s in structures for z in s.numbers})
    return numbers, np.array([[(s.numbers == z).mean() for z in numbers] for s in structures])


def scale_of_energies(
    structures: Sequence[Structure], energies: Sequence[float] | Array, least: float = np.inf
) -> str | None:
    """A sentence on a factor between labels and energies beside constants, None where there is none.

    A factor that is no known unit is said only where more than `least` (eV/atom) is to be explained. A known
    one counts even where the energies hardly vary, as those of thermal motion: the constant that is needed
    beside it is no other zero of the energy.
    """
    size = np.array([len(s) for s in structures], dtype=np.float64)
    label = np.array([s.energy for s in structures], dtype=np.float64) / size
    model, parts = np.asarray(energies) / size, _shares(structures)[1]
    off = _rms(_without(parts, label - model))
    if off < ROUND_OFF or len(size) - np.linalg.matrix_rank(parts) <= FREEDOM:
        return None
    known, given, read_so = (_without(parts, x) for x in (model, label, label * size))
    plain, atomic = _fit(known, given, given), _fit(known, given, read_so)
    several = size.max() > 1
    if several and _is_one(atomic) and (plain is None or atomic.left <= MARGIN * plain.left):
        return "energy: the labels are energies per atom, plus a constant per element; expected totals"
    unit = _unit("energy", plain.factor) if plain is not None else ""
    if plain is None or not (unit or off > least):
        return None
    return f"energy: labels = {_number(plain.factor)} × model + a constant per element{unit or NO_UNIT}"


def _constants(
    together: Sequence[tuple[Structure, Results]], parts: Array, off: Array, numbers: Sequence[int]
) -> str | None:
    rank, n = int(np.linalg.matrix_rank(parts)), len(off)
    alike = _rms(off - off.mean()) * np.sqrt(n / (n - 1))
    single = _rms(_without(parts, off)) * np.sqrt(n / (n - rank)) if n - rank >= FREEDOM else np.inf
    if min(alike, single) > LEFT * _rms(off):
        return None
    if alike < single / LEFT:
        where = f"{off.mean():+.6g} eV per atom in every frame"
    elif rank == len(numbers):
        values = np.linalg.lstsq(parts, off, rcond=None)[0]
        listed = [f"{value:+.6g} eV per {chemical_symbols[z]}" for z, value in zip(numbers, values)]
        where = ", ".join(listed[:SHOWN]) + ", …" * (len(listed) > SHOWN)
    else:  # only sums over the elements of a composition are determined
        names = [Formula.from_list([*s.to_atoms().symbols]).reduce()[0].format("hill") for s, _ in together]
        means = {name: off[[k for k in range(n) if names[k] == name]].mean() for name in sorted(set(names))}
        listed = [f"{value:+.6g} eV per atom of {name}" for name, value in means.items()]
        where = ", ".join(listed[:SHOWN]) + ", …" * (len(listed) > SHOWN)
    return (
        f"energy: labels − model = {where}; that leaves {MILLI * min(alike, single):.3g} of "
        f"{MILLI * _rms(off):.4g} meV/atom (RMS): another zero of the energy (composition baseline, level of "
        "theory, pseudopotentials), or a model that was trained too briefly"
    )


def _factor_of(name: str, structures: Sequence[Structure], predictions: Sequence[Results]) -> str | None:
    label, model = pairs(structures, predictions).get(name, (np.zeros(0), np.zeros(0)))
    plain = _fit(model, label, label)
    if QUANTITIES[name].per_volume and label.size:
        volumes = [s.volume for s in structures if s.volume > 0.0]
        virial = _fit(model, label, label / np.repeat(volumes, label.size // len(volumes)))
        if _is_one(virial) and (plain is None or virial.left <= MARGIN * plain.left):
            sign = "−" * (virial.factor < 0)
            return (
                f"{name}: labels = {sign}V × model: virials; name their key as virial (it holds −V × stress)"
            )
    unit = _unit(name, plain.factor) if plain and plain.factor else ""
    if plain and (unit or len(structures) > FREEDOM):
        return f"{name}: labels = {_number(plain.factor)} × model{unit or NO_UNIT}"
    return None


class FactorFit(NamedTuple):
    """A factor between labels and predictions, and the part of the differences that it leaves."""

    factor: float
    left: float


def _fit(model: Array, label: Array, read_so: Array) -> FactorFit | None:
    """The factor to labels read in some way, unless it explains little of how labels as they are differ.

    What it leaves is counted in units of the predictions, so that readings can be compared.
    """
    scale, before = float(model @ model), _rms(label - model)
    if len(label) <= FREEDOM or scale == 0.0 or before <= SAME * _rms(label):
        return None
    factor = float(model @ read_so) / scale
    left = _rms(read_so - factor * model) / (abs(factor) or 1.0)
    return FactorFit(factor, left) if left < LEFT * before / max(1.0, abs(factor)) else None


def _is_one(found: FactorFit | None) -> TypeGuard[FactorFit]:
    """Whether the numbers are those expected, but for their sign."""
    return found is not None and abs(abs(found.factor) - 1) < CLOSE


def _unit(name: str, factor: float) -> str:
    """What a factor means, in words; empty if that is not known."""
    off = {
        unit: abs(np.log(abs(factor) / value)) for unit, value in (UNITS.get(name, {}) | {"": 1.0}).items()
    }
    nearest = min(off, key=lambda unit: off[unit])
    if off[nearest] > CLOSE:
        return ""
    said = [f"they are in {nearest}, expected {_plain(name)}"] if nearest else []
    if factor < 0:
        said.append(f"the sign is the opposite ({SIGNS.get(name, 'of ours')})")
    return "; " + ", and ".join(said) if said else ""


def _plain(name: str) -> str:
    return QUANTITIES[name].compared_unit.removesuffix("/atom")


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _without(basis: Array, values: Array) -> Array:
    """What is left of values beyond all combinations of the columns of the basis."""
    return values - basis @ np.linalg.lstsq(basis, values, rcond=None)[0]


def _rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
