"""Cells that are not those of their frames, in a run whose cell a barostat changes."""

from __future__ import annotations

import numpy as np
import pytest

from mlplugins.analysis.following import Following
from mlplugins.analysis.readers._text import Frame
from mlplugins.analysis.unwrapping import Lattice, Place

LATE, SCALED = "the cells are those of the frame before", "the positions do not belong to the cells"


def doubts(kind: str, seed: int) -> list[str]:
    """64 atoms, of which 16 wander, with strains of 0.4 % of the cell."""
    random, atoms, late = np.random.default_rng(seed), 64, kind.endswith("late")
    mean = np.array([[11.0, 0, 0], [1, 11, 0], [0, 2, 11]])
    sites, path, strain, lattice, cells = (
        random.random((atoms, 3)),
        np.zeros((atoms, 3)),
        np.zeros((3, 3)),
        None,
        [],
    )
    found = Following()
    for _ in range(150):
        strain = 0.7 * strain + 0.004 * random.normal(size=(3, 3)) * [[1, 0, 0], [0.3, 1, 0], [0.3, 0.3, 1]]
        cells.append(mean + mean @ strain)
        path[:16] += 0.1 * random.normal(size=(16, 3))
        fractions = sites + (path + 0.15 * random.normal(size=(atoms, 3))) @ np.linalg.inv(mean)
        if kind == "wrapped, late":
            fractions %= 1.0
        positions = fractions @ cells[-1]
        if kind == "scaled":
            positions = positions @ np.linalg.inv(cells[0]) @ cells[-1]
        if kind == "left behind":  # LAMMPS' `dilate` of nobody
            positions = fractions @ mean
        frame = Frame(
            symbols=np.array(["Li"] * atoms), positions=positions, cell=cells[-2 if late else -1 :][0]
        )
        lattice = Lattice.of(frame, "frame", lattice)
        found.see(Place.of(frame, lattice))
    return found.doubts()


@pytest.mark.parametrize(
    ("kind", "said"),
    [("right", ""), ("left behind", ""), ("late", LATE), ("wrapped, late", LATE), ("scaled", SCALED)],
)
def test_cells_of_other_frames(kind, said):
    for seed in range(2):
        assert [text.partition(":")[0] for text in doubts(kind, seed)] == [said] * bool(said)
