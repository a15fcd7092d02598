"""What a file computes its radial functions with: what is asked for, what its record says; without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ase import Atoms

OFF: Literal["off"] = "off"
AS_ASKED = "as asked for"


@dataclass(frozen=True)
class RadialTables:
    """Cubic tables in place of radial networks: faster, never exact; their error is measured and stored.

    Attributes:
        knots: of every table, e.g. 1025; `off`: the exact networks; None: in float32 as many as make the
            error smaller than round-off (else the exact networks), in float64 the exact networks.
        structures: a file, or structures, to measure the error on; without any, `samples` of the elements.
    """

    knots: int | Literal["off"] | None = None
    structures: Path | str | Sequence[Atoms] = ()


@dataclass(frozen=True)
class RadialFunctions:
    """How a file computes its radial functions, as its record says; errors are largest ones.

    Attributes:
        n_knots: of the largest table; None: the networks are exact.
        why: that they are.
        force_eV_A: difference of a force component from the exact model, both in float64, eV/Å.
        relative_force: the same over the largest force component.
        energy_meV_per_atom: difference of the energy of a structure, meV/atom.
        round_off_eV_A: difference of a force component of the exact model between float32 and float64, eV/Å.
        float32_eV_A: difference of a force component of the model with tables in float32 from the exact one
            in float64, eV/Å: both errors, and the rounding of the tables.
        certified: in no structure does the table err by more than round-off.
    """

    n_knots: int | None = None
    why: str | None = None
    force_eV_A: float | None = None
    relative_force: float | None = None
    energy_meV_per_atom: float | None = None
    round_off_eV_A: float | None = None
    float32_eV_A: float | None = None
    certified: bool = False

    @classmethod
    def of(cls, record: Any) -> RadialFunctions | None:
        """What the record of a file holds; None if it says nothing of radial functions."""
        return cls(**record) if isinstance(record, dict) else None

    @property
    def asked(self) -> RadialTables:
        """What writes another file of this kind."""
        if self.n_knots is None:
            return RadialTables(OFF if self.why == AS_ASKED else None)
        return RadialTables(None if self.certified else self.n_knots)

    def __str__(self) -> str:
        if self.n_knots is None:
            return f"radial functions: exact ({self.why})"
        text = f"radial tables of {self.n_knots} knots: force error {self.force_eV_A:.1e} eV/Å"
        if self.round_off_eV_A is None:
            return (
                f"{text} ({self.relative_force:.1e} of the largest force), "
                f"energy error {self.energy_meV_per_atom:.1e} meV/atom"
            )
        place = "below" if self.certified else "NOT below"
        return (
            f"{text}, {place} the float32 round-off of the exact model, {self.round_off_eV_A:.1e} eV/Å; "
            f"in float32 the tables err by {self.float32_eV_A:.1e} eV/Å"
        )


DEFAULT = RadialTables()
