"""Trajectories that look like something else are refused or said; those that are what they say pass."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from mlplugins.analysis.trajectory import ReadSettings, read_trajectory
from mlplugins.errors import BadInput
from mlplugins.testing.walks import LatticeWalk

CELL = np.array([10.0, 11.0, 12.0])


def walk(n=60, seed=3):
    """Positions (n, 8, 3) of a free walk, unwrapped."""
    rng = np.random.default_rng(seed)
    first = rng.uniform(0, CELL, (1, 8, 3))
    return np.cumsum(np.concatenate([first, rng.normal(0, 0.2, (n - 1, 8, 3))]), axis=0)


def frames(positions, cell=CELL, pbc=True):
    return [Atoms("Li5S3", positions=x, cell=cell, pbc=pbc) for x in positions]


def read(path, **more):
    return read_trajectory([path], ReadSettings("Li", timestep_fs=2.0, interval=10, **more))


def test_wrapped_atoms_in_directions_that_are_not_periodic_are_refused(tmp_path):
    path = tmp_path / "t.traj"
    write(path, frames(walk() % CELL, pbc=False))
    with pytest.raises(BadInput, match=r"jump by whole cell vectors .* \(pbc F F F\)"):
        read(path)
    write(path, frames(walk(), pbc=False))  # not wrapped: as it says
    moved = read(path, drift="none").displacements[-1]
    np.testing.assert_allclose(moved, (walk()[-1] - walk()[0])[:5], atol=1e-12)


def test_a_slab_keeps_its_motion(tmp_path):
    path, x = tmp_path / "t.traj", walk()
    wrapped = x.copy()
    wrapped[..., :2] %= CELL[:2]
    write(path, frames(wrapped, pbc=[True, True, False]))
    moved = read(path, drift="none").displacements[-1]
    np.testing.assert_allclose(moved, (x[-1] - x[0])[:5], atol=1e-12)


def test_fractional_coordinates_are_refused(tmp_path):
    path = tmp_path / "t.traj"
    write(path, frames((walk() % CELL) / CELL))
    with pytest.raises(BadInput, match="between 0 and 1 Å"):
        read(path)


@pytest.mark.parametrize(("sigma", "said"), [(1.0, False), (3.4, True)])
def test_lengths_in_units_of_sigma_are_said(tmp_path, sigma, said):
    """Liquid argon (35 Å³ per atom), also divided by σ as LAMMPS' `units lj` has it."""
    path = tmp_path / "t.traj"
    cell = np.full(3, (8 * 35.0) ** (1 / 3)) / sigma
    write(path, frames(walk() / CELL * cell, cell))
    assert any("Å³ per atom" in note for note in read(path).warnings) == said


def test_two_runs_in_one_file_are_said(tmp_path):
    path = tmp_path / "t.traj"
    write(path, frames(walk()))
    assert read(path).warnings == ()
    write(path, frames(np.concatenate([walk(), walk(seed=4)])))
    [note] = [note for note in read(path).warnings if "several runs" in note]
    assert note.startswith("between frames 60 and 61 half of the ions move")


def test_one_ion_that_hops_is_no_other_run(tmp_path):
    path, x = tmp_path / "t.traj", walk()
    x[30:, 0] += [3.0, 0.0, 0.0]
    write(path, frames(x))
    assert read(path).warnings == ()


def test_lost_frames_are_named(tmp_path):
    """Sixteen ions that vibrate and hop; 100 frames are cut out, whose hops are no single step."""
    walk = LatticeWalk(frames=500, ions=16, rate=0.3).displacements()
    kept = np.concatenate([walk[:200], walk[300:]])
    cell = np.full(3, 40.0)
    rng = np.random.default_rng(1)
    start = rng.uniform(0, 40.0, (16, 3))
    for x, said in ((walk, []), (kept, ["between frames 200 and 201 nearly all ions move"])):
        write(tmp_path / "t.traj", [Atoms("Li16", start + y, cell=cell, pbc=True) for y in x])
        notes = [note for note in read(tmp_path / "t.traj", drift="none").warnings if "frames" in note]
        assert [note[: len(text)] for note, text in zip(notes, said, strict=True)] == said


def gas(length):
    """Pairs of atoms in touch (1 to 1.1 σ), far from other pairs (σ³ρ = 0.01), nearly at rest."""
    rng = np.random.default_rng(2)
    grid = 6.0 * np.stack(np.meshgrid(*[np.arange(4)] * 3), axis=-1).reshape(64, 3)
    x = np.concatenate([grid, grid + rng.uniform(1.0, 1.1, (64, 1)) * [1.0, 0.0, 0.0]])
    moved = x + rng.normal(0, 0.005, (6, 128, 3))
    return [Atoms("Li64S64", positions=p * length, cell=[24.0 * length] * 3, pbc=True) for p in moved]


@pytest.mark.parametrize(("length", "said"), [(1.0, True), (2.5, False)])
def test_a_dilute_gas_in_units_of_sigma_is_said(tmp_path, length, said):
    path = tmp_path / "t.traj"
    write(path, gas(length))
    assert any("bonds of their" in note for note in read(path).warnings) == said


@pytest.mark.long
@pytest.mark.parametrize(("length", "said"), [(1.0, False), (1 / 0.529177, True), (0.1, True)])
def test_salt_in_bohr_or_nanometres_is_said(tmp_path, length, said):
    path = tmp_path / "t.traj"
    salt = bulk("LiS", "rocksalt", a=5.2, cubic=True).repeat(3)
    rng = np.random.default_rng(4)
    moved = [salt.positions + rng.normal(0, 0.1, (len(salt), 3)) for _ in range(6)]
    write(path, [Atoms(salt.symbols, x * length, cell=salt.cell * length, pbc=True) for x in moved])
    assert (
        any("bonds of these elements" in note or "lengths of bonds" in note for note in read(path).warnings)
        == said
    )
