"""Radial distribution functions of an ideal gas and of crystals, from frames in files."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mlplugins.analysis.observables.radial import OBSERVABLE, radial
from mlplugins.analysis.sample import AnalysisSettings, Sample
from mlplugins.analysis.trajectory import ReadSettings, read_trajectory

CELL = 12.0 * np.array([[1.0, 0.0, 0.0], [0.4, 1.0, 0.0], [-0.3, 0.4, 1.0]])


def test_an_ideal_gas_in_a_tilted_cell_has_one_everywhere():
    random = np.random.default_rng(0)
    names = np.array(["Li"] * 60 + ["S"] * 40)
    found = radial([(names, random.random((100, 3)), CELL) for _ in range(150)], "Li")
    assert list(found.pairs) == [("Li", "Li"), ("Li", "S"), ("S", "S")]
    heights = 1 / np.linalg.norm(np.linalg.inv(CELL), axis=0)
    assert found.radius_a[-1] == pytest.approx(heights.min() / 2, abs=0.1)
    for (a, b), g in found.pairs.items():
        pairs = 150 * {"Li": 60, "S": 40}[a] * {"Li": 60, "S": 40}[b] * (0.5 if a == b else 1)
        shell = 4 * np.pi * found.radius_a**2 * 0.05 / np.linalg.det(CELL)
        error = 1 / np.sqrt(pairs * shell)
        far = found.radius_a > 1
        assert (((g - 1) / error)[far] ** 2).mean() == pytest.approx(1.0, abs=0.4)
        assert g[far] @ shell[far] / shell[far].sum() == pytest.approx(1.0, abs=0.02)
        assert found.shells[a, b] is None


def test_neighbours_in_rock_salt():
    salt = bulk("LiF", "rocksalt", a=4.0, cubic=True) * (3, 3, 3)
    random = np.random.default_rng(1)
    frames = [salt.positions + 0.05 * random.normal(size=salt.positions.shape) for _ in range(20)]
    inverse = np.linalg.inv(salt.cell.array)
    found = radial(
        [(np.array(salt.get_chemical_symbols()), x @ inverse, salt.cell.array) for x in frames], "Li"
    )
    shell = found.shells["Li", "F"]
    assert shell.peak_a == pytest.approx(2.0, abs=0.06)
    assert shell.neighbours.value == pytest.approx(6.0, abs=1e-9)
    assert found.shells["Li", "Li"].neighbours.value == pytest.approx(12.0, abs=1e-9)
    # the coordination number is the integral of 4πr²ρg
    inside = found.radius_a < shell.minimum_a
    density = 108 / salt.cell.volume
    edges = 0.05 * np.arange(len(found.radius_a) + 1)
    volumes = 4 / 3 * np.pi * np.diff(edges**3)
    assert density * (found.pairs["Li", "F"] * volumes)[inside].sum() == pytest.approx(6.0, abs=0.05)


def test_frames_come_from_the_files_after_the_equilibration(tmp_path):
    """Li sits 2 Å from S for 5 ps, then 3 Å: only what is not discarded counts; few frames of a long file."""
    frames = []
    for number in range(100):
        apart = 2.0 if number < 50 else 3.0
        x = [[0, 0, 0.1 * (number % 2)], [5, 5, 5], [5, 5, 5 + apart], [1, 5, 5]]
        frames.append(Atoms(["Li", "S", "Li", "S"], x, cell=[10.0] * 3, pbc=True))
    ase.io.write(tmp_path / "a.extxyz", frames)
    settings = ReadSettings("Li", timestep_fs=2.0, interval=50)
    run = read_trajectory([tmp_path / "a.extxyz"], settings)
    assert run.snapshots.times_ps.tolist() == pytest.approx([0.1 * k for k in range(100)])
    found = OBSERVABLE.compute(Sample.of([run], 600.0, AnalysisSettings(discard_ps=5.0)), [])
    assert found.frames == 50
    peak = found.radius_a[found.pairs["Li", "S"].argmax()]
    assert peak == pytest.approx(3.0, abs=0.06)
    few = ReadSettings("Li", timestep_fs=2.0, interval=50, memory_bytes=40_000)
    thin = read_trajectory([tmp_path / "a.extxyz"], few).snapshots
    assert 8 <= len(thin.times_ps) < 30
    assert np.diff(thin.times_ps) == pytest.approx(np.diff(thin.times_ps)[0])
