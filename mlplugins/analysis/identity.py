"""Whether atoms are what they are called: masses and charges in the file, and the balance of charges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from itertools import combinations

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from mlplugins.analysis.readers._text import Frame
from mlplugins.errors import BadInput

STATES: dict[tuple[float, float], tuple[str, ...]] = {
    (1, 1): ("Li", "Na", "K", "Rb", "Cs", "Ag"),
    (2, 2): ("Be", "Mg", "Ca", "Sr", "Ba", "Zn", "Cd"),
    (3, 3): ("B", "Al", "Ga", "In", "Sc", "Y", "La", "Gd", "Lu"),
    (4, 4): ("Si", "Ge", "Zr", "Hf"),
    (5, 5): ("P", "Ta"),
    (2, 4): ("Sn", "Mn", "Ni", "Co", "Ti"),
    (2, 3): ("Fe",),
    (3, 5): ("As", "Sb", "V", "Nb"),
    (-1, -1): ("F", "Cl", "Br", "I"),
    (-2, -2): ("O", "S", "Se"),
}
"""Least and largest charge of elements in inorganic salts."""
RANGE = {symbol: states for states, symbols in STATES.items() for symbol in symbols}
EITHER = {"S", "Se", "Cl", "Br", "I", "B", "Si", "Ge", "Sn", "P", "As", "Sb"}
"""Elements that are positive beside oxygen, and negative beside metals."""
CHAINS = {"O": (1.65, -0.5), "S": (2.6, -0.25), "Se": (2.9, -0.25)}
"""Length (Å) of a bond between two of them, and the charge nearest to 0 in peroxides or polysulfides."""
MOST_POSITIVE = {"S": 6.0, "Se": 6.0, "Cl": 7.0, "Br": 7.0, "I": 7.0}
OTHER_MASS, SAME_MASS, TRITIUM = 1.5, 0.05, 4.0
"""A factor that is no isotope, a relative difference that is, and the factor for those of hydrogen."""
CHARGED = 0.2
"""Least charge (e) whose sign says something."""
REMEDY = "correct --type-map (LAMMPS: dump_modify element), in the order of the types"


def doubts(frame: Frame, where: str) -> list[str]:
    """Warnings about elements that masses, charges or the formula contradict.

    Raises:
        BadInput: masses that are those of another of the elements.
    """
    found = [*_masses(frame, where), *_charges(frame, where)]
    return found or _formula(Counter(frame.symbols.tolist()), _chained(frame))


def masses(frame: Frame) -> NDArray[np.float64]:
    """Of each atom (N,), u: those of the file, isotopes among them; standard ones where it has none, or none
    that the element can have (reduced units)."""
    standard = np.array([atomic_masses[atomic_numbers[str(name)]] for name in frame.symbols])
    if frame.masses is None:
        return standard
    most = np.where(frame.symbols == "H", TRITIUM, OTHER_MASS)
    possible = (frame.masses > standard / OTHER_MASS) & (frame.masses < most * standard)
    return np.where(possible, frame.masses, standard)


def _masses(frame: Frame, where: str) -> list[str]:
    found = []
    for name in np.unique(frame.symbols) if frame.masses is not None else ():
        mass = float(np.median(frame.masses[frame.symbols == name]))  # type: ignore[index]
        own = float(atomic_masses[atomic_numbers[str(name)]])
        if name == "H" or 1 / OTHER_MASS < mass / own < OTHER_MASS:
            continue
        text = f"{where}: the atoms called {name} ({own:.4g} u) have a mass of {mass:.4g} u in the file"
        for other in np.unique(frame.symbols):
            if abs(mass / float(atomic_masses[atomic_numbers[str(other)]]) - 1) < SAME_MASS:
                raise BadInput(f"{text}, which is that of {other}; {REMEDY}")
        found.append(f"{text}: are they {name}?")
    return found


def _charges(frame: Frame, where: str) -> list[str]:
    found = []
    for name in np.unique(frame.symbols) if frame.charges is not None else ():
        charge = float(np.mean(frame.charges[frame.symbols == name]))  # type: ignore[index]
        known = RANGE.get(str(name), (0.0, 0.0))[0] if name not in EITHER else 0.0
        if abs(charge) > CHARGED and charge * known < 0:
            found.append(
                f"{where}: the atoms called {name} have a charge of {charge:+.3g} e in the file, a sign that "
                f"{name} does not have; if the elements are wrong, {REMEDY}"
            )
    return found


def _chained(frame: Frame) -> set[str]:
    """Anions that are bound to each other: peroxides, polysulfides."""
    anions = np.isin(frame.symbols, list(CHAINS))
    if not anions.any() or not np.linalg.det(frame.cell):
        return set()
    symbols = frame.symbols[anions]
    atoms = Atoms(symbols, frame.positions[anions], cell=frame.cell, pbc=frame.periodic)
    found = neighbor_list("i", atoms, {(name, name): length for name, (length, _) in CHAINS.items()})
    return set(symbols[found].tolist())


def _formula(counts: Counter[str], chained: Set[str] = frozenset()) -> list[str]:
    """A warning where the formula is no neutral salt, but is one if two elements are exchanged.

    >>> _formula(Counter({"Li": 24, "P": 20, "S": 4, "Cl": 4}))[0].partition(" (")[0]
    'Li24P20S4Cl4 is not neutral'
    >>> _formula(Counter({"Li": 24, "P": 4, "S": 20, "Cl": 4})), _formula(Counter({"Li": 23, "S": 12}))
    ([], [])
    >>> len(_formula(Counter({"Li": 2, "S": 4}))), _formula(Counter({"Li": 2, "S": 4}), {"S"})
    (1, [])
    """
    if len(counts) < 2 or not set(counts) <= set(RANGE):
        return []
    states = _states(counts, chained)
    if _is_neutral(counts, states):
        return []
    pairs = []
    for a, b in combinations(counts, 2):
        exchanged = counts | {a: counts[b], b: counts[a]}
        if counts[a] != counts[b] and _is_neutral(exchanged, states):
            pairs.append(f"{a} and {b}")
    if not pairs:
        return []
    formula = "".join(f"{name}{n}" for name, n in counts.items())
    taken = ", ".join(
        f"{name} {low:+g}" + (f" to {high:+g}" if high != low else "")
        for name, (low, high) in ((name, states[name]) for name in counts)
    )
    return [
        f"{formula} is not neutral (taking {taken}), but is if {' or '.join(pairs)} are exchanged: are the "
        f"elements in the right order? Else {REMEDY}"
    ]


def _states(names: Iterable[str], chained: Set[str]) -> dict[str, tuple[float, float]]:
    """Least and largest charges: anions in chains have less, and elements beside oxygen may be positive."""
    found = {name: RANGE[name] for name in names}
    for name in chained & found.keys():
        found[name] = found[name][0], CHAINS[name][1]
    if "O" in found:
        found |= {name: (found[name][0], MOST_POSITIVE[name]) for name in MOST_POSITIVE.keys() & found.keys()}
    return found


def _is_neutral(counts: Mapping[str, int], states: Mapping[str, tuple[float, float]]) -> bool:
    low, high = (sum(n * states[name][end] for name, n in counts.items()) for end in (0, 1))
    return low <= 0 <= high
