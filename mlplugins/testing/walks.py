"""Trajectories whose diffusion coefficient is known exactly: lattice walks inside a rattling framework."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LatticeWalk:
    """Ions that hop by ±`hop` along x, y or z at total rate `rate`, independently, with rattling on top.

    D = rate · hop²/6. Units: Å, ps.

    >>> round(LatticeWalk(frames=100, ions=5, hop=3.0, rate=0.2).exact_cm2_s, 12)
    3e-05
    """

    frames: int
    ions: int
    hop: float = 2.5
    rate: float = 0.2
    frame_ps: float = 0.1
    vibration: float = 0.3
    seed: int = 0

    @property
    def exact_cm2_s(self) -> float:
        """The diffusion coefficient."""
        return self.rate * self.hop**2 / 6 * 1e-4

    def displacements(self) -> Floats:
        """Unwrapped displacements (frames, ions, 3)."""
        random = np.random.default_rng(self.seed)
        shape = (self.frames, self.ions)
        hops = random.poisson(self.rate * self.frame_ps, shape)
        steps = np.zeros((*shape, 3))
        for number in range(int(hops.max())):
            frame, ion = np.nonzero(hops > number)
            axis = random.integers(0, 3, len(frame))
            np.add.at(steps, (frame, ion, axis), self.hop * random.choice([-1.0, 1.0], len(frame)))
        return np.cumsum(steps, axis=0) + self.vibration * random.normal(size=steps.shape)


@dataclass(frozen=True)
class NetworkWalk:
    """Independent ions that hop over the bonds of a periodic cubic lattice of `size`³ sites.

    A bond has the same rate in both directions, so that the stationary state is uniform, but every bond its
    own: hops over easy bonds are undone and the MSD is curved until the ions have seen the whole cell. D is
    exact by homogenisation of the walk (the corrector of each axis solves a linear system).

    Attributes:
        rates: (3, size, size, size), of the bonds along x, y, z, 1/ps.
        frames, ions: of the trajectory; a step of the walk is a frame, or `substeps` of them.
        together: ions that move as one.
    """

    rates: Floats
    frames: int
    ions: int
    hop: float = 3.0
    frame_ps: float = 0.1
    substeps: int = 5
    vibration: float = 0.25
    together: int = 1
    seed: int = 0

    def network(self) -> tuple[Floats, NDArray[np.intp]]:
        """Probability and end of the six hops of each site in a step."""
        size = self.rates.shape[1]
        index = np.arange(size**3).reshape(size, size, size)
        chance, ends = np.zeros((size**3, 6)), np.zeros((size**3, 6), dtype=np.intp)
        for axis, rate in enumerate(self.rates):
            after = np.roll(index, -1, axis).ravel()
            # at most one hop per step
            hops = np.minimum(rate.ravel() * self.frame_ps / self.substeps, 0.12)
            chance[:, 2 * axis], ends[:, 2 * axis] = hops, after
            chance[after, 2 * axis + 1], ends[after, 2 * axis + 1] = hops, index.ravel()
        return chance, ends

    @property
    def exact_cm2_s(self) -> float:
        """Trace of the effective diffusion tensor over three."""
        chance, ends = self.network()
        sites = np.arange(len(chance))
        generator = np.zeros((len(chance), len(chance)))
        for hop in range(6):
            np.add.at(generator, (sites, ends[:, hop]), chance[:, hop])
        generator[sites, sites] -= chance.sum(axis=1)
        total = 0.0
        for axis in range(3):
            step = np.zeros(6)
            step[2 * axis], step[2 * axis + 1] = self.hop, -self.hop
            corrector = np.linalg.lstsq(generator, -(chance @ step), rcond=None)[0]
            total += float((chance * (step + corrector[ends] - corrector[:, None]) ** 2).sum())
        per_step = total / len(chance) / 6
        return per_step * self.substeps / self.frame_ps * 1e-4

    def displacements(self) -> Floats:
        """Unwrapped displacements (frames, ions, 3)."""
        random = np.random.default_rng(self.seed)
        chance, ends = self.network()
        upper = chance.cumsum(axis=1)
        walkers = self.ions // self.together
        site = random.integers(0, len(chance), walkers)
        step = np.zeros((7, 3))
        for axis in range(3):
            step[2 * axis, axis], step[2 * axis + 1, axis] = self.hop, -self.hop
        ends = np.column_stack([ends, np.arange(len(chance))])  # the seventh: stays
        moved = np.empty((self.frames * self.substeps, walkers), dtype=np.intp)
        for number, draws in enumerate(random.random(moved.shape)):
            moved[number] = (draws[:, None] > upper[site]).sum(axis=1)
            site = ends[site, moved[number]]
        paths = np.repeat(np.cumsum(step[moved], axis=0)[:: self.substeps], self.together, axis=1)
        return paths + self.vibration * random.normal(size=paths.shape)


def random_barriers(rate: float, width: float, seed: int, size: int = 4) -> Floats:
    """Rates for `NetworkWalk` with a normal distribution of barriers of `width` kT: broad, as disorder is."""
    return rate * np.exp(width * np.random.default_rng(seed).normal(size=(3, size, size, size)))


def cages(fast: float, slow: float) -> Floats:
    """Rates for `NetworkWalk`: cages of 2³ sites with fast hops inside and slow ones between them.

    D is that of a chain of alternating bonds, with rates in series.

    >>> walk = NetworkWalk(cages(0.2, 0.05), frames=2, ions=1)
    >>> round(walk.exact_cm2_s, 12) == round(2 / (1 / 0.2 + 1 / 0.05) * 3.0**2 * 1e-4, 12)
    True
    """
    along = np.array([fast, slow, fast, slow])
    blocks = [along[:, None, None], along[None, :, None], along[None, None, :]]
    return np.array([np.broadcast_to(block, (4, 4, 4)) for block in blocks])


def soft_cage(walk: LatticeWalk, relaxation_ps: float, amplitude: float) -> Floats:
    """Overdamped vibration of the ions of a walk in harmonic cages (frames, ions, 3), to be added to it."""
    random = np.random.default_rng(walk.seed + 10_000)
    noise = random.normal(size=(walk.frames, walk.ions, 3))
    memory = np.exp(-walk.frame_ps / relaxation_ps)
    for frame in range(1, walk.frames):
        noise[frame] = memory * noise[frame - 1] + np.sqrt(1 - memory**2) * noise[frame]
    return amplitude * noise


def ballistic(walk: LatticeWalk, relaxation_ps: float) -> Floats:
    """Langevin motion with the D of a walk (frames, ions, 3): the MSD starts with t² and bends upwards."""
    random = np.random.default_rng(walk.seed)
    steps = 4
    time = walk.frame_ps / steps
    memory = np.exp(-time / relaxation_ps)
    speed = np.sqrt(walk.exact_cm2_s * 1e4 / relaxation_ps)
    velocity = random.normal(size=(walk.frames * steps, walk.ions, 3))
    for number in range(1, len(velocity)):
        velocity[number] = memory * velocity[number - 1] + np.sqrt(1 - memory**2) * velocity[number]
    # the trapezoidal sum of such velocities has a D of its own, known exactly
    exact = time / relaxation_ps / 2 / np.tanh(time / relaxation_ps / 2)
    middle = (velocity[1:] + velocity[:-1]) / 2
    path = np.concatenate([np.zeros((1, walk.ions, 3)), np.cumsum(middle, axis=0)]) * speed * time
    return np.asarray(path[::steps] / np.sqrt(exact))


@dataclass(frozen=True)
class Crystal:
    """A framework with mobile ions: unwrapped positions (frames, atoms, 3) and cells (frames, 3, 3), Å."""

    symbols: Sequence[str]
    positions: Floats
    cells: Floats
    pbc: tuple[bool, bool, bool] = field(default=(True, True, True))

    def wrapped(self) -> Crystal:
        """The same, folded back into the cell of each frame."""
        fractional = self.positions @ np.linalg.inv(self.cells)
        folded = (fractional - np.floor(fractional)) @ self.cells
        return Crystal(self.symbols, folded, self.cells, self.pbc)

    def images(self) -> Floats:
        """How often each atom has left the cell (frames, atoms, 3)."""
        return np.floor(self.positions @ np.linalg.inv(self.cells))

    def breathing(self, amplitude: float, period: float) -> Crystal:
        """The same fractional *wrapped* motion in a cell that breathes, as under a barostat."""
        frames = len(self.positions)
        scale = 1 + amplitude * np.sin(2 * np.pi * np.arange(frames) / period)
        images = self.images()
        inside = self.positions - images @ self.cells
        cells = self.cells * scale[:, None, None]
        return Crystal(self.symbols, inside * scale[:, None, None] + images @ cells, cells, self.pbc)

    def atoms(self) -> Iterable[Atoms]:
        """ASE structures, one per frame."""
        for positions, cell in zip(self.positions, self.cells):
            yield Atoms(list(self.symbols), positions=positions, cell=cell, pbc=self.pbc)


def crystal(
    walk: LatticeWalk, box: float = 20.0, tilt: float = 0.0, host: str = "S", mobile: str = "Li"
) -> Crystal:
    """Put the ions of a walk among as many rattling framework atoms in a (tilted) box."""
    random = np.random.default_rng(walk.seed + 1)
    cell = box * np.array([[1.0, 0.0, 0.0], [tilt, 1.0, 0.0], [0.5 * tilt, -tilt, 1.0]])
    starts = random.random((2 * walk.ions, 3)) @ cell
    moved = walk.displacements()
    rattle = walk.vibration * random.normal(size=moved.shape)
    positions = np.concatenate([moved, rattle], axis=1) + starts
    order = random.permutation(2 * walk.ions)  # species mixed, as in a real file
    symbols = np.array([mobile] * walk.ions + [host] * walk.ions)[order]
    return Crystal(symbols.tolist(), positions[:, order], np.repeat(cell[None], walk.frames, axis=0))


def write_lammps_dump(
    system: Crystal, path: Path, every: int = 50, columns: str = "id element x y z ix iy iz"
) -> None:
    """Write an orthogonal system in the form of `dump custom`, rows shuffled as LAMMPS does in parallel."""
    random = np.random.default_rng(3)
    inside, images = system.wrapped().positions, system.images()
    names = columns.split()
    count = len(system.symbols)
    formats = {"id": "%d", "element": "%s", "ix": "%d", "iy": "%d", "iz": "%d"}
    frame_format = (" ".join(formats.get(name, "%.8f") for name in names) + "\n") * count
    elements = np.array(system.symbols, dtype=object)
    with open(path, "w", encoding="utf-8") as stream:
        for number, cell in enumerate(system.cells):
            bounds = "\n".join(f"0 {length:.8f}" for length in np.diag(cell))
            stream.write(f"ITEM: TIMESTEP\n{number * every}\nITEM: NUMBER OF ATOMS\n{count}\n")
            stream.write(f"ITEM: BOX BOUNDS pp pp pp\n{bounds}\nITEM: ATOMS {columns}\n")
            values: dict[str, Any] = {"id": np.arange(1, count + 1), "element": elements}
            for axis, name in enumerate("xyz"):
                values[name] = inside[number, :, axis]
                values[f"i{name}"] = images[number, :, axis]
                values[f"{name}u"] = system.positions[number, :, axis]
            order = random.permutation(count)
            rows = zip(*(values[name][order].tolist() for name in names))
            stream.write(frame_format % tuple(value for row in rows for value in row))
