"""Displacement of each atom: steps in fractional coordinates of each frame's cell, times the mid-point cell.

    Δr(k) = [s(k) − s(k−1)] · [h(k−1) + h(k)]/2,      s = (r − corner of the cell) · h⁻¹,

which is motion relative to the homogeneous strain of the cell, the integral of the peculiar velocity in a
barostat's equations of motion (dr/dt = p/m + ḣh⁻¹r). An atom that keeps its fractions rests, wherever the
corner of the cell is and however the file is wrapped. Differences of *Cartesian* wrapped positions (TOR; J.
Chem. Theory Comput. 19, 3406 (2023)) hold for liquids only: in a solid an atom that vibrates across a face
gains the change of the cell's length at each crossing. docs/conductivity.md argues for the cell half-way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray

from mlplugins.analysis.readers._text import Floats, Frame
from mlplugins.errors import BadInput

AMBIGUOUS = 0.4
"""A step longer than this part of a cell vector may belong to another image."""
REFUSED_SHARE = 1e-3
"""Above this share of ambiguous steps the unwrapping is a guess."""
NEAR_WHOLE = 0.25
"""A step within this part of whole cell vectors is the jump of a wrapped atom rather than motion."""
OUTSIDE = 1.1
"""Positions that spread over more cell vectors than this are not wrapped."""
QUESTION_FRAMES = 32
"""Frames in which an unwrapped file with steps of half a cell has left its cell."""
ABSURD = 1e9
AXES = "abc"
UNCHANGED = np.eye(3).tolist()
READINGS = {
    "stated": "image flags or unwrapped coordinates of the file",
    "nearest": "nearest image of each step",
    "free": "unwrapped coordinates, as the positions outside the cell show",
}
REMEDY = "write frames more often or unwrapped (LAMMPS: xu yu zu), or use a larger cell"


@dataclass(frozen=True)
class Lattice:
    """The cell of one frame.

    Attributes:
        cell: the periodic cell vectors as rows, Å; in the other directions unit vectors across them.
        inverse: of `cell`.
        corner: (3,), Å; zero in directions that are not periodic.
        periodic: (3,).
        reduced: integer combinations of the vectors that are short; None if they are short already.
        volume: of `cell`, Å³.
    """

    cell: Floats
    inverse: Floats
    corner: Floats
    periodic: NDArray[np.bool_]
    reduced: Floats | None = None
    volume: float = 0.0

    @classmethod
    def of(cls, frame: Frame, where: str, before: Lattice | None = None) -> Lattice:
        """The lattice of a frame; `before` keeps the unit vectors from turning.

        Raises:
            BadInput: a cell that is not finite or has no volume.
        """
        periodic = np.array(frame.periodic)
        cell = _completed(frame.cell, periodic, None if before is None else before.cell)
        volume, longest = _volume(cell)
        finite = math.isfinite(volume) and (frame.origin is None or bool(np.isfinite(frame.origin).all()))
        if not finite or not math.isfinite(longest):
            raise BadInput(f"{where}: the cell is not finite (NaN or infinity); expected lengths in Å")
        if not volume > 1e-9 * longest > 0:
            raise BadInput(f"{where}: no cell, or one without volume, in the periodic directions")
        inverse: Floats = np.asarray(np.linalg.inv(cell), dtype=np.float64)
        corner = np.zeros(3) if frame.origin is None else frame.origin
        if not periodic.all():
            corner = ((corner @ inverse) * periodic) @ cell
        return cls(cell, inverse, corner, periodic, _reduction(cell, periodic, before), volume)

    def same(self, frame: Frame) -> bool:
        """Whether a frame has the same periodic cell and corner, so that the lattice serves again."""
        if not (self.periodic.all() and all(frame.periodic) and np.array_equal(self.cell, frame.cell)):
            return False
        return np.array_equal(self.corner, np.zeros(3) if frame.origin is None else frame.origin)

    @property
    def heights(self) -> Floats:
        """Distances between opposite faces, Å."""
        return 1.0 / np.linalg.norm(self.inverse, axis=0)


def _completed(given: Floats, periodic: NDArray[np.bool_], before: Floats | None) -> Floats:
    """The periodic vectors; in the other directions orthogonal unit vectors, turned as little as possible."""
    if periodic.all():
        return given
    cell = np.where(periodic[:, None], given, 0.0)
    basis = [vector / length for vector in cell[periodic] if (length := np.linalg.norm(vector)) > 0]
    basis = list(np.linalg.qr(np.array(basis).T)[0].T) if basis else []
    for k in np.flatnonzero(~periodic):
        guesses = np.eye(3) if before is None else before[[k]]
        across = guesses - sum((np.outer(guesses @ unit, unit) for unit in basis), np.zeros_like(guesses))
        widths = np.linalg.norm(across, axis=1)
        best = k if before is None and widths[k] > 0.5 else int(widths.argmax())
        cell[k] = across[best] / widths[best]
        basis.append(cell[k])
    return cell


def _reduction(cell: Floats, periodic: NDArray[np.bool_], before: Lattice | None) -> Floats | None:
    """Short lattice vectors, by which the nearest image is found in a skewed cell."""
    if _short(cell, periodic):
        return None
    if before is not None and before.reduced is not None and _short(before.reduced @ cell, periodic):
        return before.reduced
    return np.asarray(minkowski_reduce(cell, pbc=periodic)[1], dtype=np.float64)


def _short(cell: Floats, periodic: NDArray[np.bool_]) -> bool:
    """Whether no periodic vector becomes much shorter by another one's addition."""
    rows = [row for row, chosen in zip(cell.tolist(), periodic.tolist()) if chosen]
    return all(abs(_dot(a, b)) <= 0.51 * min(_dot(a, a), _dot(b, b)) for a, b in combinations(rows, 2))


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _volume(cell: Floats) -> tuple[float, float]:
    """The volume, and that of a rectangular cell of the same lengths (plain numbers: a third of the time)."""
    a, b, c = cell.tolist()
    across = (b[1] * c[2] - b[2] * c[1], b[2] * c[0] - b[0] * c[2], b[0] * c[1] - b[1] * c[0])
    return abs(_dot(a, across)), math.hypot(*a) * math.hypot(*b) * math.hypot(*c)


@dataclass(frozen=True)
class Place:
    """Positions of one frame: fractional coordinates (N, 3) of its lattice, true images included.

    `wrapped` is what the format says: True, False (unwrapped, or image flags), None (it does not say).
    """

    fractions: Floats
    lattice: Lattice
    wrapped: bool | None

    @classmethod
    def of(cls, frame: Frame, lattice: Lattice) -> Place:
        """Fractional coordinates of a frame."""
        fractions = frame.positions @ lattice.inverse
        if frame.origin is not None:
            fractions -= lattice.corner @ lattice.inverse
        if frame.images is not None:
            fractions += frame.images if lattice.periodic.all() else frame.images * lattice.periodic
        return cls(fractions, lattice, frame.wrapped)

    def same(self, other: Place) -> bool:
        """Whether two frames are identical."""
        return np.array_equal(self.fractions, other.fractions) and np.array_equal(
            self.lattice.cell, other.lattice.cell
        )

    def since(self, before: Place, where: str) -> tuple[Floats, Floats, Floats | None]:
        """Difference of the fractions, the cell half-way, and what renames the lattice (None: nothing).

        A flip of a tilted box gives the lattice other vectors, h(k−1) ≈ M h(k) with integer M: the fractions
        before are s M in the new ones.
        """
        now, then = self.lattice, before.lattice
        if now is then:
            return self.fractions - before.fractions, now.cell, None
        renamed = np.rint(then.cell @ now.inverse)
        if renamed.tolist() == UNCHANGED:
            return self.fractions - before.fractions, 0.5 * (then.cell + now.cell), None
        if abs(abs(float(np.linalg.det(renamed))) - 1) > 1e-6:
            raise BadInput(
                f"{where}: the cell changes by more than half of itself from one frame to the next; expected "
                "frames of one run, in order"
            )
        middle = 0.5 * (np.linalg.solve(renamed, then.cell) + now.cell)
        return self.fractions - before.fractions @ renamed, middle, renamed


class Unwrapper:
    """Adds up the steps of all atoms.

    Where the file says what is unwrapped, that is taken. Where it does not (extended xyz, i-PI, XDATCAR, ASE
    and others), the nearest image of each step is right for wrapped and unwrapped files alike as long as no
    step comes near half a cell. At the first one that does, both readings are kept for some frames: positions
    that spread beyond one cell, and steps of all lengths rather than of whole cells, show an unwrapped file.

    Attributes:
        candidates: displacements (N, 3) in Å by the reading taken, or by both while that is open.
        renaming: (3, 3) integers that express the lattice of the first frame in the vectors of the last.
        ambiguous: number of steps of each atom whose image is in doubt (N,); 0 if there are none.
        longest: the longest step that was taken as the nearest image, in cell vectors.
    """

    def __init__(self, warnings: list[str]) -> None:
        self._warnings = warnings
        self.readings: dict[str, None] = {}
        self.renaming = np.eye(3)
        self.ambiguous: NDArray[np.int64] | int = 0
        self.longest = 0.0
        self.start_file(Path())

    def start_file(self, path: Path) -> None:
        """Forget how the last file was written: each file may differ."""
        self._path, self._joining = path, True
        self._free = False
        self._near = self._far = self._long = self._returned = 0

    def begin(self, place: Place) -> None:
        """The first frame."""
        self.candidates = [np.zeros_like(place.fractions)]
        self._before, self._joining = place, False
        self._question: _Question | None = None

    def jump(self, place: Place, where: str) -> float:
        """Largest distance (Å) to the nearest images of the last frame, which `place` then replaces."""
        raw, middle, renamed = place.since(self._before, where)
        if renamed is not None:
            self.renaming = self.renaming @ renamed
        nearest, _ = _nearest(raw, place.lattice)
        self._before = place
        return float(np.sqrt(((nearest @ middle) ** 2).sum(axis=1).max()))

    def same(self, place: Place) -> bool:
        """Whether nothing has changed since the last frame."""
        return place.same(self._before)

    def move(self, place: Place, where: str) -> None:
        """Add the steps since the last frame."""
        raw, middle, renamed = place.since(self._before, where)
        if renamed is not None:
            self.renaming = self.renaming @ renamed
        longest = _largest(raw)
        if not longest < ABSURD:
            raise BadInput(f"{where}: an atom moves by {longest:.3g} cells (or Å) at once; a damaged file?")
        if self._question is None and longest <= AMBIGUOUS and place.lattice.reduced is None:
            self._add(raw, middle, "stated" if place.wrapped is False else "nearest")
            self.longest = max(self.longest, longest)
        else:
            self._judge(place, raw, middle, where)
        self._before, self._joining = place, False

    def _judge(self, place: Place, raw: Floats, middle: Floats, where: str) -> None:
        nearest, short = _nearest(raw, place.lattice)
        longest = _largest(short)
        far = np.abs(short) > AMBIGUOUS if longest > AMBIGUOUS else None
        steps = 0 if far is None else far.sum(axis=1)  # of each atom
        doubtful = 0 if far is None else int(far.sum())
        self._long += doubtful
        if place.wrapped is False or self._free:
            jumped = int((np.abs(raw - nearest) > 0.5).any(axis=1).sum())
            self._stated(raw, nearest, middle, (jumped, doubtful, where))
            return
        self.longest = max(self.longest, longest)
        if place.wrapped is None:
            moved, near = np.abs(raw - nearest) > 0.5, np.abs(short) <= NEAR_WHOLE
            self._near += int(np.count_nonzero(moved & near))
            self._far += int(np.count_nonzero(moved & ~near))
            if doubtful and self._question is None:
                self._question = _Question(self._before)
                self.candidates.append(self.candidates[0].copy())
        if self._question is None:
            self.ambiguous = self.ambiguous + steps
            self._add(nearest, middle, "nearest")
            return
        self._question.see(place, steps)
        self.candidates[0] += nearest @ middle
        self.candidates[1] += raw @ middle

    def _stated(self, raw: Floats, nearest: Floats, middle: Floats, found: tuple[int, int, str]) -> None:
        """True images, unless they jump by whole cells although no step comes near half of one."""
        jumped, doubtful, where = found
        if jumped and not doubtful and (self._joining or not self._long):
            if not self._joining and not self._returned:
                self._warnings.append(
                    f"{where}: {jumped} atom(s) jump by whole cells, though no step comes near half of one: "
                    "the images were set back, or the file is wrapped; taken as nearest images from here on"
                )
            self._returned += jumped * (not self._joining)
            raw = nearest
        self._add(raw, middle, "free" if self._free else "stated")

    def _add(self, step: Floats, middle: Floats, reading: str) -> None:
        self.candidates[0] += step @ middle
        self.readings[reading] = None

    def settle(self, end: bool = False) -> int | None:
        """The reading that is used; None while it is undecided."""
        question = self._question
        if question is None:
            return 0
        free = question.spread > OUTSIDE and 3 * self._far >= self._near
        if not free and not end and question.frames < QUESTION_FRAMES:
            return None
        self._question = None
        self.candidates = [self.candidates[int(free)]]
        self._free = free
        self.readings["free" if free else "nearest"] = None
        if not free:
            self.ambiguous = self.ambiguous + question.doubtful
            return 0
        self._warnings.append(
            f"{self._path}: positions spread over {question.spread:.2g} cells and steps between frames reach "
            "half of one: taken as unwrapped, as the positions stand in the file"
        )
        return 1

    def report(self, n_frames: int, ions: NDArray[np.intp]) -> None:
        """Report what is in doubt, of all atoms and of the mobile ones, which may be few among many.

        Raises:
            BadInput: too many steps whose image is a guess.
        """
        if not np.any(self.ambiguous):
            return
        counts = np.asarray(self.ambiguous)
        found = {"": counts, "the mobile ions' ": counts[ions]}
        shares = {name: (int(part.sum()), 3 * len(part) * (n_frames - 1)) for name, part in found.items()}
        worst = max(shares, key=lambda name: shares[name][0] / shares[name][1])
        doubtful, steps = shares[worst]
        text = (
            f"{doubtful} of {worst}{steps} steps between frames are longer than {AMBIGUOUS} of the cell "
            f"(longest {self.longest:.2f}): the file is wrapped, without image flags, and an ion may have "
            f"taken the other way; {REMEDY}"
        )
        if doubtful > max(REFUSED_SHARE * steps, 3):
            raise BadInput(text)
        self._warnings.append(text)

    @property
    def reading(self) -> str:
        """What was used as the motion of the atoms."""
        texts = [text for name, text in READINGS.items() if name in self.readings]
        if list(self.readings) == ["nearest"]:
            texts[0] += f" (the longest: {self.longest:.2g} of a cell vector)"
        return "; ".join(texts)


class _Question:
    """Wrapped or not: the evidence for either, while both readings are kept."""

    def __init__(self, place: Place) -> None:
        self.frames = 0
        self.doubtful: NDArray[np.int64] | int = 0
        self._lattice = place.lattice
        self._low = place.fractions.min(axis=0)
        self._high = place.fractions.max(axis=0)

    def see(self, place: Place, doubtful: NDArray[np.int64] | int) -> None:
        self.frames += 1
        self.doubtful = self.doubtful + doubtful
        self._lattice = place.lattice
        self._low = np.minimum(self._low, place.fractions.min(axis=0))
        self._high = np.maximum(self._high, place.fractions.max(axis=0))

    @property
    def spread(self) -> float:
        return float((self._high - self._low)[self._lattice.periodic].max(initial=0.0))


def _nearest(raw: Floats, lattice: Lattice) -> tuple[Floats, Floats]:
    """The differences to the nearest images, and the same in short periodic cell vectors."""
    periodic = lattice.periodic
    if lattice.reduced is None:
        if periodic.all():
            nearest = raw - np.rint(raw)
            return nearest, nearest
        nearest = raw - np.rint(raw) * periodic
        return nearest, nearest * periodic
    short = raw @ np.linalg.inv(lattice.reduced)
    short -= np.rint(short) * periodic
    return short @ lattice.reduced, short * periodic


def _largest(values: Floats) -> float:
    """Largest absolute value."""
    return max(float(values.max()), -float(values.min())) if values.size else 0.0
