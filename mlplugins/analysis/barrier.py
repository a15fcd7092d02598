"""The energy along a path of images: barriers, residual forces, minima in between, modes of the saddle.

The path is R(s), a cubic spline of the images' positions over their distances in 3N dimensions; the energy
between images is the cubic with the energies and the slopes −F·dR/ds of both ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.interpolate import CubicHermiteSpline, CubicSpline

from mlplugins.units import ASE_TIME_PER_FS, FS_PER_PS

Array = NDArray[np.float64]

DEEP, SHARE = 0.005, 0.05
"""A minimum between two maxima counts if both are higher by so many eV and by this share of the barrier."""
MOVED = 0.3
"""Atoms that move farther than this, Å, are named."""
FLAT = 0.1
"""Modes of the saddle softer than this, THz, are not called imaginary."""
LINEAR = 0.02
"""Å; a molecule that is thinner across is linear, and has no rotation about its axis."""
POINTS = 40
"""Of the spline between two images."""


class Stationary(NamedTuple):
    """A maximum or minimum of the energy between the end points.

    Attributes:
        coordinate: along the path, Å.
        energy: relative to the first image, eV.
        is_maximum: or a minimum.
    """

    coordinate: float
    energy: float
    is_maximum: bool


@dataclass(frozen=True)
class Profile:
    """Energies and forces of M images of N atoms.

    Attributes:
        positions: (M, N, 3), without jumps across periodic boundaries, Å.
        energies: (M,), eV.
        forces: (M, N, 3), without those of fixed atoms, eV/Å.
    """

    positions: Array
    energies: Array
    forces: Array

    @property
    def coordinate(self) -> Array:
        """(M,) length of the path up to each image, Å (of the vectors of all coordinates)."""
        steps = np.linalg.norm(np.diff(self.positions, axis=0), axis=(1, 2))
        return np.concatenate([[0.0], np.cumsum(steps)])

    @property
    def relative(self) -> Array:
        """(M,) energies relative to the first image, eV."""
        return np.asarray(self.energies - self.energies[0])

    @property
    def top(self) -> int:
        """The image of the highest energy."""
        return int(np.argmax(self.energies))

    def spline(self) -> CubicHermiteSpline:
        """The energy relative to the first image, eV, of the coordinate, Å."""
        along = CubicSpline(self.coordinate, self.positions, axis=0)(self.coordinate, 1)
        along /= np.linalg.norm(along, axis=(1, 2), keepdims=True)
        slopes = -np.einsum("mia,mia->m", self.forces, along)
        return CubicHermiteSpline(self.coordinate, self.relative, slopes)

    def curve(self) -> tuple[Array, Array]:
        """The spline as points: coordinate, Å, and energy, eV."""
        s = self.coordinate
        parts = [np.linspace(a, b, POINTS, endpoint=False) for a, b in zip(s[:-1], s[1:])]
        points = np.concatenate([*parts, s[-1:]])
        return points, self.spline()(points)

    def stationary(self) -> list[Stationary]:
        """Maxima and minima of the spline between the end points, in order.

        >>> x = np.linspace(-1, 1, 9)  # a double well: minima at ±1, the maximum of 1 eV at 0
        >>> profile = Profile(x[:, None, None], (1 - x**2) ** 2, (4 * x * (1 - x**2))[:, None, None])
        >>> [(round(p.coordinate, 3), round(p.energy, 3), p.is_maximum) for p in profile.stationary()]
        [(1.0, 1.0, True)]
        """
        spline = self.spline()
        roots = np.unique(spline.derivative().roots(extrapolate=False))
        inside = [s for s in roots if 1e-6 < s / self.coordinate[-1] < 1 - 1e-6]
        bends = spline.derivative(2)(inside)
        return [Stationary(float(s), float(spline(s)), bool(b < 0)) for s, b in zip(inside, bends) if b != 0]

    def between(self) -> list[Stationary]:
        """Minima between two maxima that are deep enough to be states of their own."""
        found = self.stationary()
        least = max(DEEP, SHARE * float(self.relative.max()))
        tops = [(p.coordinate, p.energy) for p in found if p.is_maximum]
        minima = []
        for p in found:
            before = max((e for s, e in tops if s < p.coordinate), default=-np.inf)
            after = max((e for s, e in tops if s > p.coordinate), default=-np.inf)
            if not p.is_maximum and min(before, after) - p.energy > least:
                minima.append(p)
        return minima

    def residuals(self) -> Array:
        """(M,) largest force on an atom that an optimisation of the path brings to zero, eV/Å: across the
        path, and all of it in the highest image and at the ends."""
        found = self.forces.copy()
        for m in range(1, len(self.energies) - 1):
            if m != self.top:
                t = tangent(self.positions, self.energies, m)
                found[m] -= np.vdot(found[m], t) * t
        return np.asarray(np.linalg.norm(found, axis=2).max(axis=1))


def tangent(positions: Array, energies: Array, m: int) -> Array:
    """Unit tangent of the path at image m, after Henkelman and Jónsson, J. Chem. Phys. 113, 9978 (2000)."""
    ahead, behind = positions[m + 1] - positions[m], positions[m] - positions[m - 1]
    up, down = energies[m + 1] - energies[m], energies[m - 1] - energies[m]
    if up > 0 > down:
        along = ahead
    elif up < 0 < down:
        along = behind
    else:
        more, less = max(abs(up), abs(down)), min(abs(up), abs(down))
        weights = (more, less) if up > down else (less, more)
        along = weights[0] * ahead + weights[1] * behind
    return np.asarray(along / np.linalg.norm(along))


class Modes(NamedTuple):
    """Harmonic vibrations of the first image and the saddle.

    Attributes:
        imaginary_thz: of the saddle, as positive numbers; one of a true saddle.
        attempt_thz: ν* = Π ν(minimum)/Π ν(saddle) of Vineyard, J. Phys. Chem. Solids 3, 121 (1957), so that
            the rate is ν* exp(−E/kT); NaN without exactly one imaginary mode, or between a linear molecule
            and a bent one.
    """

    imaginary_thz: tuple[float, ...]
    attempt_thz: float


def modes(minimum: Atoms, saddle: Atoms, hessians: tuple[Array, Array], free: NDArray[np.bool_]) -> Modes:
    """Imaginary modes of the saddle and the attempt frequency.

    Args:
        minimum, saddle: the structures.
        hessians: (3N, 3N) of each, eV/Å².
        free: (N,) atoms that are not fixed.
    """
    rigid = [_rigid(atoms, free) for atoms in (minimum, saddle)]
    low, high = (
        frequencies(atoms, h, free, n) for atoms, h, n in zip((minimum, saddle), hessians, rigid, strict=True)
    )
    imaginary = tuple(float(-nu) for nu in high if nu < -FLAT)
    if len(imaginary) != 1 or low.min() <= 0 or rigid[0] != rigid[1]:
        return Modes(imaginary, float("nan"))
    real = high[high != high.min()]
    return Modes(imaginary, float(np.exp(np.log(low).sum() - np.log(np.abs(real)).sum())))


def _rigid(atoms: Atoms, free: NDArray[np.bool_]) -> int:
    """Motions of the whole that no force opposes."""
    if not free.all():
        return 0
    if atoms.pbc.any():
        return 3
    extent = np.linalg.svd(atoms.positions - atoms.positions.mean(axis=0), compute_uv=False)
    return 6 if (extent > LINEAR).sum() > 1 else 5


def frequencies(atoms: Atoms, hessian: Array, free: NDArray[np.bool_], rigid: int) -> Array:
    """Sorted frequencies, THz, imaginary ones negative, without the `rigid` ones that are nearest to zero.

    >>> hessian = np.kron([[1.0, -1.0], [-1.0, 1.0]], np.diag([0.0, 0.0, 5.0]))
    >>> frequencies(Atoms("H2"), hessian, np.array([True, True]), 5).round(2)
    array([49.24])
    """
    masses = np.repeat(atoms.get_masses()[free], 3)
    kept = np.repeat(free, 3)
    matrix = hessian.reshape(len(kept), len(kept))[np.ix_(kept, kept)]
    weighted = 0.5 * (matrix + matrix.T) / np.sqrt(np.outer(masses, masses))
    values = np.linalg.eigvalsh(weighted)
    values = np.sort(values[np.argsort(np.abs(values))[rigid:]])
    per_ps = np.sign(values) * np.sqrt(np.abs(values)) * ASE_TIME_PER_FS * FS_PER_PS
    return np.asarray(per_ps / (2 * np.pi))


@dataclass(frozen=True)
class Barrier:
    """A path between two minima, and its barriers.

    Attributes:
        engine: that optimised it.
        formula: of all atoms.
        images: the path, with energies and forces.
        profile: of the images.
        fixed: (N,) atoms that are fixed.
        converged: whether the engine and the forces say so.
        steps: of the engine.
        fmax: what was asked for, eV/Å.
        climb: whether the highest image climbed.
        members: (K, M) energies of every model of a committee, eV; K = 0 for one model.
        uncertainties: (M,) standard deviation of each energy that the model itself predicts, eV; or None.
        host: (M,) energies as the engine gave them, eV; None if it gave none.
        modes: of the first image and the saddle, if asked for.
        assumptions: what went in, for the report.
        warnings: why it is not to be quoted.
    """

    engine: str
    formula: str
    images: tuple[Atoms, ...]
    profile: Profile
    fixed: NDArray[np.bool_]
    converged: bool
    steps: int
    fmax: float
    climb: bool
    members: Array
    uncertainties: Array | None = None
    host: Array | None = None
    modes: Modes | None = None
    assumptions: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = field(default=())

    @property
    def height(self) -> float:
        """Energy of the saddle above the first image, eV: of the image that climbed, else of the spline."""
        tops = [p.energy for p in self.profile.stationary() if p.is_maximum]
        return float(self.profile.relative.max()) if self.climb else max([*tops, *self.profile.relative])

    @property
    def forward(self) -> float:
        """Barrier from the first image, eV."""
        return self.height

    @property
    def reaction(self) -> float:
        """Energy of the last image above the first, eV."""
        return float(self.profile.relative[-1])

    @property
    def backward(self) -> float:
        """Barrier from the last image, eV."""
        return self.height - self.reaction

    @property
    def spread(self) -> tuple[float, float] | None:
        """Sample standard deviations of the forward and backward barrier over the models of a committee, eV.

        Of the differences between images, so that what the models say alike of both cancels.
        """
        if len(self.members) < 2:
            return None
        top = self.members[:, self.profile.top]
        ends = self.members[:, 0], self.members[:, -1]
        return float(np.std(top - ends[0], ddof=1)), float(np.std(top - ends[1], ddof=1))

    @property
    def moves(self) -> list[tuple[int, str, float]]:
        """Atoms that move from the first to the last image by more than 0.3 Å, the farthest first."""
        distance = np.linalg.norm(self.profile.positions[-1] - self.profile.positions[0], axis=1)
        order = [int(k) for k in np.argsort(-distance) if distance[k] > MOVED]
        return [(k, str(self.images[0].symbols[k]), float(distance[k])) for k in order]

    @property
    def quotable(self) -> bool:
        """Whether nothing speaks against the number."""
        return not self.warnings

    def as_json(self) -> dict[str, Any]:
        """The result of `--json`."""
        found: dict[str, Any] = {
            "barrier_eV": self.forward,
            "barrier_backward_eV": self.backward,
            "reaction_energy_eV": self.reaction,
            "spread_eV": None if self.spread is None else list(self.spread),
            "converged": self.converged,
            "quotable": self.quotable,
            "engine": self.engine,
            "steps": self.steps,
            "saddle": self.profile.top,
            "coordinate_A": self.profile.coordinate,
            "energy_eV": self.profile.relative,
            "residual_eV_A": self.profile.residuals(),
            "uncertainty_eV": self.uncertainties,
            "members_eV": [e - e[0] for e in self.members] or None,
            "host_energy_eV": None if self.host is None else self.host - self.host[0],
            "stationary": [p._asdict() for p in self.profile.stationary()],
            "moves": [{"atom": k, "element": s, "distance_A": d} for k, s, d in self.moves],
            "imaginary_THz": None if self.modes is None else list(self.modes.imaginary_thz),
            "attempt_frequency_THz": None if self.modes is None else self.modes.attempt_thz,
            "assumptions": dict(self.assumptions),
            "warnings": list(self.warnings),
        }
        return found
