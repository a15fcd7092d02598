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
