"""Strings of jumps that were put there; independent ions, whose jumps meet by chance."""

import numpy as np
import pytest

from mlplugins.analysis.observables.collective import OBSERVABLE
from mlplugins.analysis.sample import AnalysisSettings, Sample
from mlplugins.analysis.trajectory import Trajectory

EDGE = 4.0


def run_of(sites, cell, seed=0):
    """Ions at these places of a lattice of 4 Å (frames, ions, 3), rattling; frames of 0.1 ps."""
    random = np.random.default_rng(seed)
    positions = EDGE * (sites + 0.5) + 0.2 * random.normal(size=sites.shape)
    frames = len(sites)
    return Trajectory(
        "Li", positions - positions[0], 100.0, ((0, frames),), float(np.prod(cell)), 60,
        {"S": np.zeros(frames)}, np.zeros((frames, 3)), start=positions[0], cell=np.diag(cell),
    )  # fmt: skip


def lattice(shape):
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1).reshape(-1, 3)
    return (index + 0.5) / shape


def compute(run, shape):
    settings = AnalysisSettings(sites=lattice(np.array(shape)))
    return OBSERVABLE.compute(Sample.of([run], 600.0, settings), [])


def test_strings_of_three_among_single_jumps():
    """Rows of six sites: in two of them three ions move up together, in six a lone ion jumps."""
    random = np.random.default_rng(3)
    frames, shape = 3000, (6, 4, 2)
    rows = [(y, z) for y in range(4) for z in range(2)]
    columns, strings, single = [], 0, 0
    for number, (y, z) in enumerate(rows):
        jumps = random.random(frames) < 0.01
        jumps[[0, -1]] = False
        jumps[1:] &= ~jumps[:-1]
        moved = np.cumsum(jumps)
        ions = 3 if number < 2 else 1
        strings += int(jumps.sum()) * (ions == 3)
        single += int(jumps.sum()) * (ions == 1)
        for ion in range(ions):
            place = np.empty((frames, 3))
            place[:, 0], place[:, 1], place[:, 2] = ion + moved, y, z
            columns.append(place)
    sites = np.stack(columns, axis=1)
    found = compute(run_of(sites, EDGE * np.array(shape)), shape).strings
    share = 3 * strings / (3 * strings + single)
    assert found.jumps == pytest.approx(3 * strings + single, abs=3)
    assert found.share.value == pytest.approx(share, abs=0.02)
    assert found.share.low < share < found.share.high
    assert found.sizes[2] == pytest.approx(strings, rel=0.08)
    assert found.by_chance < 0.2 * share


def test_independent_ions_are_collective_by_chance_alone():
    random = np.random.default_rng(4)
    frames, shape, ions = 3000, (4, 4, 4), 24
    hops = random.random((frames, ions)) < 0.02
    step = np.zeros((frames, ions, 3))
    axis = random.integers(0, 3, hops.shape)
    np.put_along_axis(step, axis[..., None], (hops * random.choice([-1, 1], hops.shape))[..., None], axis=2)
    sites = random.integers(0, 4, (ions, 3)) + np.cumsum(step, axis=0)
    found = compute(run_of(sites, EDGE * np.array(shape)), shape).strings
    assert found.by_chance > 0.01
    assert found.share.value == pytest.approx(found.by_chance, rel=0.3)
    assert found.share.low < found.by_chance < found.share.high


def test_too_few_jumps():
    frames, shape = 400, (4, 2, 2)
    sites = np.zeros((frames, 1, 3))
    sites[200:, 0, 0] = 1
    found = compute(run_of(sites, EDGE * np.array(shape)), shape)
    assert found.reason == "too few jumps: 1 (expected at least 20)"
    assert OBSERVABLE.as_json(found) == {"collective_jumps": {"reason": found.reason}}
