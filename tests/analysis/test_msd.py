"""MSD by FFT against the definition."""

import numpy as np
import pytest

from mlplugins.analysis.msd import block_msd, collective_displacement, mean_squared_displacement
from mlplugins.testing.walks import LatticeWalk


def direct(displacements, segments):
    """The definition: all pairs of frames inside each segment."""
    longest = max(stop - start for start, stop in segments)
    result = np.zeros((longest, 3))
    for lag in range(1, longest):
        pairs = [displacements[a + lag : b] - displacements[a : b - lag] for a, b in segments if b - a > lag]
        result[lag] = (np.concatenate(pairs) ** 2).mean(axis=(0, 1))
    return result


@pytest.mark.parametrize("segments", [[(0, 157)], [(0, 60), (63, 157)]])
def test_fft_equals_the_definition(segments):
    walk = LatticeWalk(frames=157, ions=7).displacements() + 1e3  # an offset must not cost digits
    fast = mean_squared_displacement(walk, segments)
    np.testing.assert_allclose(fast[1:], direct(walk, segments)[1:], rtol=1e-10, atol=0)
    assert (fast[0] == 0).all()


def test_many_ions_are_read_in_chunks(monkeypatch):
    walk = LatticeWalk(frames=50, ions=11).displacements()
    whole = mean_squared_displacement(walk)
    monkeypatch.setattr("mlplugins.analysis.msd.CHUNK_BYTES", 64 * 50 * 3)
    np.testing.assert_allclose(mean_squared_displacement(walk), whole, rtol=1e-12)


def test_blocks_average_to_the_whole():
    walk = LatticeWalk(frames=201, ions=5).displacements()
    lags = np.array([1, 21, 101])  # 200, 180 and 100 origins: equal blocks of ten
    blocks = block_msd(walk, (0, 201), lags, 10)
    whole = mean_squared_displacement(walk)[lags]
    np.testing.assert_allclose(blocks.mean(axis=(1, 2)), whole, rtol=1e-10)


def test_a_block_sees_only_its_time():
    still_then_steady = np.concatenate([np.zeros(50), np.arange(51.0)])[:, None, None] * np.ones(3)
    blocks = block_msd(still_then_steady, (0, 101), np.array([1]), 2)
    assert blocks[0, 0, 0, 0] == 0
    assert blocks[0, 1, 0, 0] == 1


def test_collective_displacement_of_independent_and_of_rigid_motion():
    walk = LatticeWalk(frames=20, ions=4).displacements()
    np.testing.assert_allclose(collective_displacement(walk)[:, 0], walk.sum(axis=1) / 2, rtol=1e-14)
    rigid = np.repeat(walk[:, :1], 9, axis=1)
    ratio = (
        mean_squared_displacement(collective_displacement(rigid))[1:] / mean_squared_displacement(rigid)[1:]
    )
    np.testing.assert_allclose(ratio, 9, rtol=1e-9)
