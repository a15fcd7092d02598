"""How close atoms of each pair of elements come: tells exchanged elements, which no bond length does.

P and S of Li6PS5Cl exchanged leave every bond as long as before, but P atoms stand as close as S did. Swaps
of two elements there give 0.37 to 0.68 of the training frames' shortest distance; new frames of the same kind
0.91 or more with 38 training frames, 0.74 with five of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from mlplugins.structures.neighbors import neighbor_list

REACH = 6.0
"""Farthest distance that is recorded, Å: all that is known of pairs that never come as close."""
TOO_CLOSE = 0.72
"""Share of the training frames' shortest distance that frames of the same kind keep."""
FEWEST = 5
"""Training frames below which nothing is recorded."""

Pairs = dict[str, float]


class Framed(Protocol):
    """A structure: what a neighbour list needs, and elements."""

    @property
    def numbers(self) -> Any: ...
    @property
    def positions(self) -> Any: ...
    @property
    def cell(self) -> Any: ...
    @property
    def pbc(self) -> Any: ...


def shortest(structures: Sequence[Framed]) -> Pairs:
    """The shortest distance (Å) of each pair of elements in all frames, `REACH` for pairs that never come so
    close; nothing of fewer than `FEWEST` frames.

    >>> from ase import Atoms
    >>> frames = [Atoms("OH2", [[0, 0, 0], [0, 0, x], [0, 1.0, 0]]) for x in (0.9, 1.0, 1.1, 1.2, 1.3)]
    >>> {pair: round(r, 3) for pair, r in shortest(frames).items()}
    {'H-H': 1.345, 'H-O': 0.9, 'O-O': 6.0}
    """
    if len(structures) < FEWEST:
        return {}
    present = sorted({int(z) for s in structures for z in s.numbers})
    found = {(a, b): REACH for k, a in enumerate(present) for b in present[k:]}
    for s in structures:
        for pair, r in _closest(s, REACH).items():
            found[pair] = min(found[pair], r)
    return {f"{chemical_symbols[a]}-{chemical_symbols[b]}": r for (a, b), r in found.items()}


def merged(records: Sequence[Mapping[str, float]]) -> Pairs:
    """Of several models that have learned from different frames: the least of what all of them know.

    >>> merged([{"H-H": 1.3, "H-O": 0.9}, {"H-H": 1.4}])
    {'H-H': 1.3}
    """
    common = [pair for pair in records[0] if all(pair in record for record in records)] if records else []
    return {pair: min(float(record[pair]) for record in records) for pair in common}


def joined(records: Sequence[Mapping[str, float]]) -> Pairs:
    """Of one model that has learned from all of these frames: the least of what any of them knows.

    >>> joined([{"H-H": 1.3, "H-O": 0.9}, {"H-H": 1.4}])
    {'H-H': 1.3, 'H-O': 0.9}
    """
    pairs = {pair: None for record in records for pair in record}
    return {pair: min(float(record[pair]) for record in records if pair in record) for pair in pairs}


def too_close(known: Mapping[str, float], structure: Framed) -> str:
    """What is odd about a structure that has a pair of elements closer than the frames that its model learned
    from; "" if nothing is.

    >>> from ase import Atoms
    >>> known = {"H-H": 1.4, "H-O": 0.9, "O-O": 6.0}
    >>> too_close(known, Atoms("OH2", [[0, 0, 0], [0, 0, 0.96], [0, 0.93, -0.24]]))
    ''
    >>> too_close(known, Atoms("HO2", [[0, 0, 0], [0, 0, 0.96], [0, 0.93, -0.24]])).partition(":")[0]
    'O and O are 1.52 Å apart, in no training frame closer than 6.00 Å'
    """
    limits = {_numbers(pair): float(r) for pair, r in known.items()}
    if not limits:
        return ""
    found = _closest(structure, TOO_CLOSE * max(limits.values()))
    shares = {pair: r / limits[pair] for pair, r in found.items() if pair in limits}
    worst = min(shares, key=lambda pair: shares[pair], default=None)
    if worst is None or shares[worst] >= TOO_CLOSE:
        return ""
    first, second = (chemical_symbols[z] for z in worst)
    return (
        f"{first} and {second} are {found[worst]:.2f} Å apart, in no training frame closer than "
        f"{limits[worst]:.2f} Å: elements exchanged, lengths in another unit, or a structure unlike all that "
        "the model has learned from"
    )


def _numbers(pair: str) -> tuple[int, int]:
    first, _, second = pair.partition("-")
    a, b = sorted((atomic_numbers[first], atomic_numbers[second]))
    return a, b


def _closest(s: Framed, reach: float) -> dict[tuple[int, int], float]:
    """The shortest distance of each pair of elements within `reach`, by atomic numbers in ascending order."""
    numbers: NDArray[np.int64] = np.asarray(s.numbers, dtype=np.int64)
    edges = neighbor_list(s.positions, np.asarray(s.cell), s.pbc, reach)
    distances = np.linalg.norm(edges.vectors, axis=1)
    ends = np.sort(np.stack([numbers[edges.centers], numbers[edges.neighbors]]), axis=0)
    keys = ends[0] * len(chemical_symbols) + ends[1]
    order = np.lexsort((distances, keys))
    kinds, first = np.unique(keys[order], return_index=True)
    return {
        (int(kind) // len(chemical_symbols), int(kind) % len(chemical_symbols)): float(r)
        for kind, r in zip(kinds, distances[order][first])
    }
