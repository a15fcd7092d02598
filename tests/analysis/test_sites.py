"""Sites, hops and residence times of a walk between known sites; van Hove functions."""

import tracemalloc

import numpy as np
import pytest
from scipy import stats

from mlplugins.analysis import visits as module
from mlplugins.analysis.blocks import Paths
from mlplugins.analysis.observables.van_hove import van_hove
from mlplugins.analysis.sites import Sites, find_sites, follow, hop_statistics, poisson_rate, pooled
from mlplugins.analysis.trajectory import Trajectory
from mlplugins.errors import BadInput

BOX, STEP = 12.0, 3.0
CELL = BOX * np.array([[1.0, 0.0, 0.0], [0.25, 1.0, 0.0], [0.0, 0.25, 1.0]])


@pytest.fixture(scope="module")
def walk():
    """12 ions hop between 64 sites of a tilted cell with a rate of 0.2 hops/ps, rattling by 0.25 Å."""
    random = np.random.default_rng(5)
    frames, ions = 6000, 12
    site = random.integers(0, 4, (ions, 3))
    hops = random.random((frames, ions)) < 0.02  # 0.1 ps per frame
    hops[0] = False
    axis = random.integers(0, 3, (frames, ions))
    sign = random.choice([-1, 1], (frames, ions))
    steps = np.zeros((frames, ions, 3))
    np.put_along_axis(steps, axis[..., None], np.where(hops, sign, 0)[..., None], axis=2)
    fractions = (site + np.cumsum(steps, axis=0) + 0.125) / 4
    positions = fractions @ CELL + 0.25 * random.normal(size=steps.shape)
    return positions, int(hops.sum()), frames * ions * 0.1


def assign(positions, sites):
    return follow(positions, sites).states


def grid():
    index = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return Sites((index + 0.125) / 4, CELL)


def test_given_sites_give_the_hops_that_were_made(walk):
    positions, hops, time = walk
    found = hop_statistics(assign(positions, grid()), grid(), 100.0)
    # a hop there and back within a frame or two can be missed in the rattling
    assert found.count == pytest.approx(hops, rel=0.02)
    assert found.rate_per_ps.low < hops / time < found.rate_per_ps.high
    assert found.residence_ps.value == pytest.approx(5.0, rel=0.1)
    assert found.length_a == pytest.approx(np.linalg.norm(CELL / 4, axis=1).mean(), rel=0.02)
    # an uncorrelated walk with six neighbours returns at once in a sixth of the cases
    low, high = stats.binom.interval(0.999, found.count, 1 / 6)
    assert low < found.reversed_ < high
    assert found.occupancy.sum() == pytest.approx(12)


def test_runs_are_pooled_as_counts_over_time(walk):
    """Two thirds and one third of a run give its rate and lengths, but for the hop at the cut."""
    positions, _, _ = walk
    states = assign(positions, grid())
    whole = hop_statistics(states, grid(), 100.0)
    parts = [hop_statistics(part, grid(), 100.0) for part in (states[:2000], states[2000:])]
    both = pooled(parts)
    assert whole.count - 12 <= both.count <= whole.count
    assert both.time_ps == pytest.approx(whole.time_ps)
    assert both.rate_per_ps.value == pytest.approx(both.count / both.time_ps)
    assert both.length_a == pytest.approx(whole.length_a, rel=1e-3)
    assert whole.reversed_ - 24 <= both.reversed_ <= whole.reversed_
    assert np.array_equal(both.occupancy, parts[1].occupancy)


def test_sites_are_found_where_they_are(walk):
    positions, hops, _ = walk
    sites = find_sites(positions, CELL)
    assert len(sites) == 64
    apart = sites.fractions[:, None] - grid().fractions[None]
    apart -= np.round(apart)
    assert np.linalg.norm(apart @ CELL, axis=2).min(axis=1).max() < 0.15
    found = hop_statistics(assign(positions, sites), sites, 100.0)
    assert found.count == pytest.approx(hops, rel=0.03)


def test_crossing_a_boundary_and_turning_back_is_no_hop():
    sites = Sites(np.array([[0.25, 0.5, 0.5], [0.75, 0.5, 0.5]]), 10 * np.eye(3))
    x = np.array([2.5, 4.9, 5.1, 4.9, 2.6, 5.2, 7.4, 7.5])
    positions = np.stack([x, np.full(8, 5.0), np.full(8, 5.0)], axis=1)[:, None]
    found = hop_statistics(assign(positions, sites), sites, 1000.0)
    assert (found.count, found.reversed_) == (1, 0)
    assert found.pairs == ((0, 1, 1),)
    assert found.length_a == pytest.approx(5.0)


def test_a_liquid_has_no_sites():
    positions = 20 * np.random.default_rng(0).random((2, 1, 3))
    with pytest.raises(BadInput, match="no separate maxima"):
        find_sites(np.repeat(positions[:1], 10, axis=0), 20 * np.eye(3))


def test_a_gas_has_no_sites():
    """Random positions have density maxima, but the ions are hardly ever there."""
    positions = 20 * np.random.default_rng(1).random((300, 60, 3))
    with pytest.raises(BadInput, match=r"within the cores of density maxima only 2\d % of the time"):
        find_sites(positions, 20 * np.eye(3))


def test_sites_that_coincide_or_are_never_visited_are_refused():
    positions = np.full((10, 2, 3), 5.0)
    double = Sites(np.array([[0.5, 0.5, 0.5], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0]]) % 1.0, 10 * np.eye(3))
    with pytest.raises(BadInput, match="site 2 and another are 0 Å apart"):
        assign(positions, double)
    away = Sites(np.array([[0.0, 0.0, 0.0], [0.2, 0.0, 0.0]]), 10 * np.eye(3))
    with pytest.raises(BadInput, match="no ion ever comes near one of the 2 sites"):
        hop_statistics(assign(positions, away), away, 100.0)


def test_ions_are_followed_in_chunks_as_at_once(walk, monkeypatch):
    moved = walk[0][:500] - walk[0][0]
    still = np.zeros((500, 3))
    run = Trajectory(
        "Li", moved, 100.0, ((0, 500),), 1728.0, 24, {"S": np.zeros(500)}, still, start=walk[0][0], cell=CELL
    )

    def found():
        paths = Paths([moved], [run.segments], 100.0)
        return module.visits([run], [slice(None)], paths, grid().fractions).stretches[0]

    whole = found()
    monkeypatch.setattr(module, "FOLLOWED_AT_ONCE", 2600)  # five ions at a time
    parts = found()
    assert len(whole.jumps) == whole.hops.count == parts.hops.count > 50
    assert np.array_equal(whole.seen, parts.seen)
    assert parts.spread == pytest.approx(whole.spread)
    for column in ("origin", "target", "left", "arrived"):
        key = [np.lexsort((each.jumps.ion, each.jumps.arrived)) for each in (whole, parts)]
        assert np.array_equal(*(getattr(each.jumps, column)[k] for each, k in zip((whole, parts), key)))


def test_poisson_intervals_are_exact():
    """Coverage of the interval of a count of 4 ± 2 over many draws."""
    counts = np.random.default_rng(1).poisson(4.0, 4000)
    inside = np.mean(
        [
            poisson_rate(int(count), 1.0).low <= 4 <= poisson_rate(int(count), 1.0).high
            for count in counts[:600]
        ]
    )
    assert inside > 0.94


def test_self_van_hove_of_brownian_motion_is_maxwellian():
    steps = np.random.default_rng(2).normal(size=(3000, 20, 3)) * 0.1
    found = van_hove(np.cumsum(steps, axis=0), [50, 200], 100.0)
    for row, lag in enumerate((50, 200)):
        expected = stats.maxwell.pdf(found.radius_a, scale=0.1 * lag**0.5)
        assert np.abs(found.self_part[row] - expected).max() < 0.12 * expected.max()
        assert found.self_part[row].sum() * (found.radius_a[1] - found.radius_a[0]) == pytest.approx(
            1, abs=0.02
        )
    assert found.distinct_part.shape == (0, 80)


def test_distinct_van_hove_is_one_for_an_ideal_gas_and_sees_replacement():
    random = np.random.default_rng(4)
    cell = 12.0 * np.eye(3)
    gas = 12 * random.random((150, 40, 3))
    start = gas[0]
    found = van_hove(gas - start, [30], 100.0, start, cell)
    assert found.distinct_part[0][30:].mean() == pytest.approx(1, abs=0.03)
    # a ring of four ions that turns: after the lag every ion is where its neighbour was
    corners = np.array([[2, 2, 6], [6, 2, 6], [6, 6, 6], [2, 6, 6.0]])
    turning = np.stack([np.roll(corners, -(frame // 10), axis=0) for frame in range(100)])
    found = van_hove(turning - corners, [10], 100.0, corners, cell)
    assert found.distinct_part[0].argmax() == 0


def test_distinct_van_hove_of_many_ions_needs_little_memory():
    random = np.random.default_rng(4)
    gas = 30 * random.random((3, 2500, 3))
    tracemalloc.start()
    found = van_hove(gas - gas[0], [1], 100.0, gas[0], 30.0 * np.eye(3))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
    assert found.distinct_part[0][30:].mean() == pytest.approx(1, abs=0.03)
