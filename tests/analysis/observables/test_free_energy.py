"""Barriers of known potentials; lowest percolating paths against a search by brute force."""

import itertools

import numpy as np
import pytest

from mlplugins.analysis.blocks import Paths
from mlplugins.analysis.conductivity import analyse
from mlplugins.analysis.landscape import Positions, landscape
from mlplugins.analysis.observables.free_energy import OBSERVABLE
from mlplugins.analysis.percolation import Bottleneck, bottlenecks, path, windings
from mlplugins.analysis.sample import AnalysisSettings, Sample
from mlplugins.analysis.trajectory import Trajectory
from mlplugins.units import BOLTZMANN_EV_K

KELVIN = 600.0
KT = BOLTZMANN_EV_K * KELVIN
TILTED = 6.0 * np.array([[1.0, 0.0, 0.0], [0.2, 1.0, 0.0], [-0.1, 0.2, 1.0]])


def run_of(fractions, cell):
    """A run with these positions (frames, ions, 3)."""
    positions = fractions @ cell
    frames = len(positions)
    return Trajectory(
        "Li", positions - positions[0], 100.0, ((0, frames),), float(np.linalg.det(cell)), 60,
        {"S": np.zeros(frames)}, np.zeros((frames, 3)), start=positions[0], cell=cell,
    )  # fmt: skip


def cosine(heights_kt, frames=8000, ions=40, seed=0):
    """Boltzmann distribution of −Σ (E/2) cos(4πs), two sites along each cell vector: barriers E."""
    random = np.random.default_rng(seed)
    angles = [random.vonmises(0.0, height / 2, (frames, ions)) for height in heights_kt]
    fractions = np.stack(angles, axis=-1) / (4 * np.pi)
    return fractions + random.integers(0, 2, fractions.shape) / 2


def landscape_of(fractions, cell):
    run = run_of(fractions, cell)
    return landscape(
        Positions([run], Paths([run.displacements], [run.segments], 100.0), [slice(None)]), KELVIN
    )


@pytest.mark.long
@pytest.mark.parametrize("cell", [6.0 * np.eye(3), TILTED], ids=["cube", "tilted"])
def test_barriers_of_a_cosine_potential(cell):
    heights = (3.0, 4.0, 5.0)
    found = landscape_of(cosine(heights), cell)
    assert found.spacing_a.max() <= 0.2
    for axis, (height, barrier) in enumerate(zip(heights, found.barriers)):
        assert barrier.value.value == pytest.approx(height * KT, rel=0.05)
        assert barrier.value.low < height * KT * 1.01
        assert barrier.value.high > height * KT * 0.99  # of eight bottlenecks the lowest, by chance, is taken
        assert barrier.value.high - barrier.value.low < 0.3 * height * KT
        assert abs(barrier.winding[axis]) == 1
        moved = barrier.fractions[-1] - barrier.fractions[0]
        assert moved == pytest.approx(barrier.winding)
        assert barrier.energy_ev[0] == barrier.energy_ev[-1] == 0
        # smoothing rounds the way off, and it is not much longer than straight
        assert 0.8 * height * KT < barrier.energy_ev.max() <= 1.02 * height * KT
        assert 0.999 <= barrier.distance_a[-1] / np.linalg.norm(moved @ cell) < 1.5


def test_where_no_ion_goes_there_is_a_lower_limit():
    """Ions stay between planes: nothing percolates along c."""
    random = np.random.default_rng(1)
    fractions = random.random((500, 40, 3)) * [1, 1, 0.3]
    found = landscape_of(fractions, 6.0 * np.eye(3))
    a, b, c = found.barriers
    assert c is None
    assert 0 <= a.value.value < 1.5 * KT
    assert 3 * KT < found.unseen_ev < 8 * KT
    entry = OBSERVABLE.as_json(found)["free_energy"]["barriers"]
    assert entry["c"] is None
    assert entry["b"]["n_seen_at_bottleneck"] > 3


@pytest.mark.long
def test_intervals_hold_the_barrier():
    """16 short samples of 4 kT: seen n times, the better of two bottlenecks is 0.56 kT/√n too low."""
    inside, scores = 0, []
    for seed in range(16):
        fractions = cosine((4.0, 0.5, 0.5), frames=600, ions=10, seed=seed)
        barrier = landscape_of(fractions, np.diag([6.0, 1.6, 1.6])).barriers[0]
        inside += barrier.value.low < 4 * KT < barrier.value.high
        scores.append((barrier.value.value / KT - 4) * np.sqrt(barrier.seen))
    assert inside >= 15
    assert np.mean(scores) == pytest.approx(-0.56, abs=0.45)  # 0.2 is a standard error; 0 is no bias


def test_sites_close_together_are_smoothed_as_far_as_stated():
    """0.8 Å apart, 0.5 kT: 1 − (1 − e⁻ˣ)² of it is left, x = ½(0.15 Å·2π/d)²."""
    found = [landscape_of(cosine((4.0, 0.5, 0.5), 6000, 10, k), np.diag([6.0, 1.6, 1.6])) for k in range(3)]
    left = np.mean([each.barriers[1].value.value for each in found]) / (0.5 * KT)
    x = 0.5 * (0.15 * 2 * np.pi / 0.8) ** 2
    assert left == pytest.approx(1 - (1 - np.exp(-x)) ** 2, abs=0.12)


def test_what_percolates_only_smoothed_is_bounded_by_its_interval_alone():
    """8 kT from 300 positions: the wide Gaussian leaves too low a number, which is not called a bound."""
    run = run_of(cosine((8.0, 8.0, 8.0), frames=30, ions=10), 6.0 * np.eye(3))
    result = analyse([run], KELVIN, AnalysisSettings())
    found = landscape_of(cosine((8.0, 8.0, 8.0), frames=30, ions=10), 6.0 * np.eye(3))
    smoothed = [each for each in found.barriers if each and each.width_a > found.width_a]
    assert smoothed
    assert all(each.value.low < 8 * KT for each in smoothed)
    text = OBSERVABLE.lines(result, found)[0]
    assert text.count("smoothed") == len(smoothed)
    assert "≥" not in text


def test_an_observable_of_a_sample():
    run = run_of(cosine((3.0, 3.0, 3.0), frames=400), 6.0 * np.eye(3))
    found = OBSERVABLE.compute(Sample.of([run], KELVIN, AnalysisSettings()), [])
    assert all(barrier is not None for barrier in found.barriers)
    bare = Trajectory("Li", run.displacements, 100.0, run.segments, 216.0, 40, {}, run.drift)
    assert OBSERVABLE.compute(Sample.of([bare], KELVIN, AnalysisSettings()), []) is None


def brute_force(energy, axis):
    """Voxels joined one by one, each with its place in the unfolded crystal."""
    shape = energy.shape
    parent, place = {}, {}

    def root(voxel):
        total = np.zeros(3, dtype=int)
        while parent[voxel] != voxel:
            total += place[voxel]
            voxel = parent[voxel]
        return voxel, total

    for index in np.argsort(energy, axis=None, kind="stable"):
        voxel = tuple(int(k) for k in np.unravel_index(index, shape))
        parent[voxel], place[voxel] = voxel, np.zeros(3, dtype=int)
        for direction, sign in itertools.product(range(3), (1, -1)):
            step = np.zeros(3, dtype=int)
            step[direction] = sign
            cell, inside = np.divmod(np.add(voxel, step), shape)
            other = tuple(int(k) for k in inside)
            if other not in parent:
                continue
            (a, at_a), (b, at_b) = root(voxel), root(other)
            # place(other) + cell − place(voxel) closes a loop if both are of one part
            loop = at_b + cell - at_a
            if a != b:
                parent[b], place[b] = a, -loop
            elif loop[axis]:
                return float(energy[voxel])
    return None


@pytest.mark.parametrize("seed", range(4))
def test_lowest_percolating_paths_of_random_landscapes(seed):
    random = np.random.default_rng(seed)
    energy = random.normal(size=(5, 4, 6))
    energy[random.random(energy.shape) < 0.3 * (seed % 2)] = np.inf
    found = bottlenecks(energy)
    for axis, each in enumerate(found):
        finite = np.where(np.isfinite(energy), energy, 1e9)
        level = brute_force(finite, axis)
        assert (each.level if each else 1e9) == level
        if each is None:
            continue
        voxels = path(energy, each, axis, np.ones(3))
        assert np.abs(np.diff(voxels, axis=0)).sum(axis=1).tolist() == [1] * (len(voxels) - 1)
        assert max(energy[tuple((voxels % energy.shape).T)]) == each.level
        moved = (voxels[-1] - voxels[0]) / energy.shape
        assert moved[axis] == abs(each.winding[axis]) or moved[axis] == -abs(each.winding[axis])


def test_a_channel_that_closes_after_two_cells():
    """A staircase that climbs half of b in each cell along a: it percolates along both, by (2, 1, 0)."""
    inside = np.zeros((4, 8, 3), dtype=bool)
    for x in range(8):
        inside[x % 4, x, 1] = inside[(x + 1) % 4, x, 1] = True
    assert {tuple(np.abs(each)) for each in windings(inside)} == {(2, 1, 0)}
    landscape_ = np.where(inside, 0.0, np.inf)
    a, b, c = bottlenecks(landscape_)
    assert c is None
    assert tuple(np.abs(a.winding)) == tuple(np.abs(b.winding)) == (2, 1, 0)
    voxels = path(landscape_, Bottleneck(0.0, a.voxel, a.winding), 0, np.ones(3))
    assert np.abs(voxels[-1] - voxels[0]).tolist() == [8, 8, 0]
