"""A lattice walk with two kinds of jumps of known rates and energies; counts that are not Poisson."""

import csv
import io

import numpy as np
import pytest
from ase import units
from ase.data import atomic_masses, atomic_numbers

from mlplugins.analysis.conductivity import AnalysisSettings, analyse
from mlplugins.analysis.jump_kinds import Jumped, JumpKind, activation, kinds, rate
from mlplugins.analysis.observables.base import found_in, registered, summaries
from mlplugins.analysis.observables.jumps import OBSERVABLE
from mlplugins.analysis.sample import Sample
from mlplugins.analysis.trajectory import Trajectory
from mlplugins.units import BOLTZMANN_EV_K

EDGES = np.array([2.5, 3.5, 3.5])
ENERGIES = (0.25, 0.35)
"""Along x, two ways from each site, and along y and z, four ways."""
THZ, FRAMES, IONS = 6.0, 3000, 20
GRID = np.stack(np.meshgrid(*[(np.arange(4) + 0.5) / 4] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
MASS = atomic_masses[atomic_numbers["Li"]]


def rates(kelvin):
    return [z * THZ * np.exp(-e / (BOLTZMANN_EV_K * kelvin)) for z, e in zip((2, 4), ENERGIES)]


def walk(kelvin, seed, frames=FRAMES):
    """Rattling with the amplitude of harmonic ions of 6 THz; frames of 0.1 ps."""
    random = np.random.default_rng(seed)
    chance = np.array(rates(kelvin)) * 0.1
    draws = random.random((frames, IONS))
    axis = np.where(draws < chance[0], 0, random.integers(1, 3, draws.shape))
    steps = np.where(draws < chance.sum(), random.choice([-1.0, 1.0], draws.shape), 0.0)
    moved = np.zeros((frames, IONS, 3))
    np.put_along_axis(moved, axis[..., None], (steps * EDGES[axis])[..., None], axis=2)
    sites = GRID[random.integers(0, 64, IONS)] * 4 * EDGES
    amplitude = np.sqrt(units.kB * kelvin / MASS) * units.fs * 1000 / (2 * np.pi * THZ)
    positions = sites + np.cumsum(moved, axis=0) + amplitude * random.normal(size=moved.shape)
    return Trajectory(
        "Li", positions - positions[0], 100.0, ((0, frames),), float(np.prod(4 * EDGES)), 40,
        {"S": np.zeros(frames)}, np.zeros((frames, 3)), start=positions[0], cell=np.diag(4 * EDGES),
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs():
    """Results at three temperatures."""
    chosen = {"jumps": registered()["jumps"]}
    settings = AnalysisSettings(sites=GRID)
    return [
        analyse([walk(kelvin, seed)], kelvin, settings, chosen)
        for seed, kelvin in enumerate((500.0, 600.0, 800.0))
    ]


def test_rates_and_barriers_of_each_kind_at_each_temperature(runs):
    for run, each in found_in("jumps", runs):
        assert [one.length_a for one in each.rates] == pytest.approx([2.5, 3.5])
        assert [one.ways for one in each.rates] == [2, 4]
        for one, true, energy, barrier in zip(each.rates, rates(run.temperature_k), ENERGIES, each.barriers):
            assert one.dispersion == 1
            assert one.rate_ps.low < true < one.rate_ps.high
            assert one.rate_ps.high / one.rate_ps.low < np.exp(4.5 / np.sqrt(one.count))
            assert barrier.low < energy < barrier.high
            assert barrier.value == pytest.approx(energy, abs=0.02)


def test_activation_energies_from_all_temperatures(runs):
    for entry, energy in zip(summaries(runs)["jump_activation"], ENERGIES):
        assert entry["T_K"] == [500.0, 600.0, 800.0]
        assert entry["Ea_eV"]["value"] == pytest.approx(energy, abs=0.03)
        assert entry["Ea_eV"]["low"] < energy < entry["Ea_eV"]["high"]
    prefactor = summaries(runs)["jump_activation"][0]["prefactor_ps"]
    assert prefactor["low"] < 2 * THZ < prefactor["high"]


def test_the_tables_say_the_same(runs):
    found = found_in("jumps", runs)
    rows = list(csv.DictReader(io.StringIO(OBSERVABLE.tables(found)["jumps.csv"])))
    assert [(row["T_K"], row["length_A"]) for row in rows] == [
        (kelvin, length) for length in ("2.5", "3.5") for kelvin in ("500", "600", "800")
    ]
    entry = runs[1].entries["jump_kinds"]["kinds"][0]
    assert int(rows[1]["n_jumps"]) == entry["n_jumps"]
    assert float(rows[1]["rate_ps"]) == pytest.approx(entry["rate_ps"]["value"], rel=1e-5)
    page = "".join(OBSERVABLE.section(found))
    assert page.count("<tr>") == 1 + 6 + 1 + 2
    assert (
        f"{runs[0].entries['jump_kinds']['kinds'][0]['n_jumps']} jumps of 2.50 Å"
        in OBSERVABLE.lines(*found[0])[0]
    )


def test_sites_with_names_tell_kinds_apart():
    """Sites of the lower half along y and z are of another sort: jumps within and between sorts."""
    names = tuple("down" if y < 0.5 else "up" for _, y, _ in GRID)
    sample = Sample.of([walk(600.0, 5)], 600.0, AnalysisSettings(sites=GRID, site_names=names))
    found = OBSERVABLE.compute(sample, [])
    named = {
        (each["from"], each["to"], each["length_A"]): each
        for each in OBSERVABLE.as_json(found)["jump_kinds"]["kinds"]
    }
    assert set(named) == {
        ("down", "down", 2.5), ("down", "down", 3.5), ("down", "up", 3.5),
        ("up", "down", 3.5), ("up", "up", 2.5), ("up", "up", 3.5),
    }  # fmt: skip
    # of the four ways along y and z one leads to the other sort
    assert named["down", "up", 3.5]["ways_per_site"] == 1
    assert named["up", "up", 3.5]["ways_per_site"] == 3
    true = rates(600.0)[1] / 4
    assert named["down", "up", 3.5]["rate_ps"]["low"] < true < named["down", "up", 3.5]["rate_ps"]["high"]


def test_two_jumps_seen_as_one_are_no_way():
    """Of 400 jumps to the 6 neighbours, three go on to the next before the next frame."""
    length = np.full(403, 3.0)
    length[:3] = 3.0 * 2**0.5
    zeros = np.zeros(len(length), dtype=np.intp)
    near = [[0, 0, d] for d in [3.0] * 6 + [3.0 * 2**0.5] * 12]
    data = Jumped(
        ("",), zeros, zeros, length, zeros, zeros, np.ones((10, 1)), 1, np.array([1.0]), np.array(near)
    )
    [kind] = kinds([data])
    found = rate(kind, data)
    assert (found.count, found.ways) == (403, 6)


def test_sites_that_are_one_are_named():
    """Two in place of each, closer than ions vibrate; and half as far apart as neighbours."""
    run = walk(600.0, 3, frames=500)
    amplitude = np.sqrt(units.kB * 600.0 / MASS) * units.fs * 1000 / (2 * np.pi * THZ)
    for apart, named in ((1.5 * amplitude, True), (1.2, False)):
        twins = np.concatenate([GRID, GRID + [apart / 10.0, 0, 0]])
        sample = Sample.of([run], 600.0, AnalysisSettings(sites=twins))
        doubts = OBSERVABLE.doubts(OBSERVABLE.compute(sample, []), sample)
        assert [each.startswith(f"sites {apart:.2g} Å apart") for each in doubts] == [True] * named


def test_what_cannot_be_said_is_named():
    still = walk(100.0, 0, frames=300)
    sample = Sample.of([still], 600.0, AnalysisSettings(sites=GRID))
    found = OBSERVABLE.compute(sample, [])
    assert found.reason.startswith("no jump between 64 sites: fewer than 0.005 per ion and ps")
    blind = Sample.of([walk(5000.0, 0, frames=300)], 600.0, AnalysisSettings(sites=GRID))
    found = OBSERVABLE.compute(blind, [])
    assert "jumps per ion and frame of 100 fs, so that many go unseen" in found.reason
    [line] = OBSERVABLE.lines(analyse([still], 600.0, AnalysisSettings()), found)
    assert line.startswith("600 K: no jump rates: frames too far apart: 0.")
    assert OBSERVABLE.as_json(found)["jump_kinds"]["kinds"] == []


def bunches(size, seed):
    """Events of `size` jumps each at random times of ten blocks of 10 ps, 8 ions, 0.5 events per ps."""
    random = np.random.default_rng(seed)
    block = np.repeat(np.sort(random.integers(0, 10, random.poisson(50))), size)
    zeros = np.zeros(len(block), dtype=np.intp)
    return Jumped(
        ("",), zeros, zeros, np.full(len(block), 3.0), block, random.integers(0, 8, len(block)),
        np.full((10, 1), 10.0 * 8), 8, np.array([8.0]), np.array([[0, 0, 3.0]] * 8),
    )  # fmt: skip


def test_jumps_in_bunches_have_wider_intervals():
    """Poisson intervals of bunches of six hold the rate in 60 %; those that are given in nine of ten."""
    kind = JumpKind(0, 0, 2.9, 3.1)
    found = [rate(kind, bunches(6, seed)) for seed in range(100)]
    true = 6 * 50 / 800
    assert sum(each.rate_ps.low < true < each.rate_ps.high for each in found) >= 88
    assert np.median([each.dispersion for each in found]) == pytest.approx(6, rel=0.3)
    single = [rate(kind, bunches(1, seed)) for seed in range(100)]
    assert sum(each.rate_ps.low < 50 / 800 < each.rate_ps.high for each in single) >= 92
    assert sum(each.dispersion > 1 for each in single) <= 8


def test_activation_energies_of_few_counts():
    """Temperatures without a jump count as well: without them the energies would be too low."""
    kelvin, time = np.array([400.0, 500.0, 600.0, 700.0]), 1000.0
    true = 20.0 * np.exp(-0.3 / (BOLTZMANN_EV_K * kelvin))
    random = np.random.default_rng(0)
    one = rate(JumpKind(0, 0, 0.0, 1.0), bunches(1, 0))
    kind, values, inside = JumpKind(0, 0, 0.0, 1.0), [], 0
    for _ in range(60):
        counts = random.poisson(true * time / 4)
        found = []
        for count in counts:
            found.append(type(one)(kind, int(count), time / 4, 1.0, 1.0, 1.0, one.rate_ps))
        energy, _ = activation(kelvin, found)
        values.append(energy.value)
        inside += energy.low < 0.3 < energy.high
    assert inside >= 54
    assert np.mean(values) == pytest.approx(0.3, abs=0.015)
    cold = [type(one)(kind, 0, 10.0, 1.0, 1.0, 1.0, one.rate_ps) for one in found[:3]]
    assert activation(kelvin, [*cold, found[3]]) is None
    bent = [type(one)(kind, count, 10.0, 1.0, 1.0, 1.0, one.rate_ps) for count in (100, 1, 100)]
    assert activation(np.array([800.0, 1000.0, 1200.0]), bent) is None  # the scatter allows over 10 eV
