"""Composition baseline: E ≈ Σ_z n_z e_z by least squares, safe for rank-deficient data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlplugins.elements import require_known
from mlplugins.errors import BadInput

RANK_TOLERANCE = 1e-6
"""Singular values of the composition matrix below this fraction of the largest count as zero."""


@dataclass(frozen=True)
class Composition:
    """Energy per atom of each element.

    Attributes:
        elements: symbols, in the order of `energies`.
        energies: eV per atom.
        rank: number of independent compositions in the data, ≤ len(elements).
        others: energies per atom of further energies of the model, by name, in their order.
    """

    elements: list[str]
    energies: list[float]
    rank: int
    others: Mapping[str, list[float]] = field(default_factory=dict)

    @property
    def heads(self) -> list[str]:
        """Names of all energies, "" for the first."""
        return ["", *self.others]

    def of_head(self, head: str) -> Composition:
        """The baseline of one of the energies alone.

        >>> Composition(["Li"], [-0.7], 1, {"scan": [-0.9]}).of_head("scan").energies
        [-0.9]
        """
        return Composition(self.elements, self.others[head] if head else self.energies, self.rank)

    @classmethod
    def joined(cls, parts: Mapping[str, Composition]) -> Composition:
        """Baselines of all energies, by name, "" for the first, as one."""
        first = parts[""]
        others = {name: part.energies for name, part in parts.items() if name}
        return cls(first.elements, first.energies, min(part.rank for part in parts.values()), others)

    @property
    def note(self) -> str | None:
        """Note for the user about a rank-deficient fit, None if the energies are unique."""
        if self.rank == len(self.elements):
            return None
        return (
            f"composition baseline: {self.rank} independent composition(s) for {len(self.elements)} elements "
            f"({', '.join(self.elements)}), so the energies per element are not unique: the mean energy per "
            "atom is shared equally, the rest has minimum norm. Energies of other compositions "
            "are not meaningful; add frames of other compositions or isolated atoms if you need them."
        )

    def predict(self, symbols: Sequence[str], head: str = "") -> float:
        """Baseline energy (eV) of the atoms `symbols`, of the energy called `head`, or of the first.

        >>> round(Composition(["H", "O"], [-13.0, -430.0], 2).predict(["O", "H", "H"]), 6)
        -456.0

        Raises:
            BadInput: an element without a baseline.
        """
        known = f"; it holds {', '.join(self.elements)}"
        require_known(symbols, self.elements, "composition baseline: no energy for ", known)
        energies = self.others[head] if head else self.energies
        table = dict(zip(self.elements, energies, strict=True))
        return float(sum(table[symbol] for symbol in symbols))

    def gap(self, symbols: Sequence[str], head: str) -> float:
        """Baseline energy (eV) of the energy called `head` less that of the one before it.

        >>> round(Composition(["Li"], [-0.7], 1, {"s1": [-0.5]}).gap(["Li", "Li"], "s1"), 6)
        0.4
        """
        before = self.heads[self.heads.index(head) - 1]
        return self.predict(symbols, head) - self.predict(symbols, before)


def fit(counts: ArrayLike, energies: ArrayLike, elements: Sequence[str]) -> Composition:
    """Least-squares energies per element, each structure weighted by its energy per atom.

    With fewer independent compositions than elements infinitely many solutions fit equally well. The one
    returned is e = ē + δ: ē, the mean energy per atom, is the same for every element, and δ is the smallest
    deviation that fits. A single composition thus gives e_z = E/N for all elements.

    Args:
        counts: (S, Z) number of atoms of each element in each structure.
        energies: (S,) total energies, eV.
        elements: the Z symbols.

    >>> fit([[2, 1], [1, 0]], [-456.0, -13.0], ["H", "O"]).energies
    [-13.0, -430.0]
    >>> fit([[2, 1], [4, 2]], [-456.0, -912.0], ["H", "O"]).energies
    [-152.0, -152.0]

    Raises:
        BadInput: shapes that do not match, non-finite energies, a structure without atoms, or an element
            that no structure holds.
    """
    n = np.asarray(counts, dtype=np.float64)
    e = np.asarray(energies, dtype=np.float64)
    if n.ndim != 2 or n.shape != (len(e), len(elements)) or len(e) == 0:
        raise BadInput(
            f"composition baseline: expected counts of shape ({len(e)}, {len(elements)}), got {n.shape}"
        )
    if not np.isfinite(e).all():
        raise BadInput(
            f"composition baseline: energy of structure {int(np.argmin(np.isfinite(e)))} is not finite"
        )
    n_atoms = n.sum(axis=1)
    if (n_atoms <= 0).any():
        raise BadInput(f"composition baseline: structure {int(np.argmin(n_atoms))} has no atoms")
    absent = [symbol for symbol, total in zip(elements, n.sum(axis=0)) if total == 0]
    if absent:
        raise BadInput(
            f"composition baseline: no structure holds {', '.join(absent)}; leave it out of 'elements'"
        )
    fractions = n / n_atoms[:, None]  # (S, Z), rows sum to one
    per_atom = e / n_atoms
    mean = float(per_atom.mean())
    deviation, _, rank, _ = np.linalg.lstsq(fractions, per_atom - mean, rcond=RANK_TOLERANCE)
    solution: NDArray[np.float64] = mean + deviation
    return Composition(list(elements), [round(float(x), 10) for x in solution], int(rank))
