"""Uniform time grids from the frames that were found."""

import pytest

from mlplugins.analysis.timegrid import uniform_grid
from mlplugins.errors import BadInput


def test_a_dump_interval_that_changes_is_thinned_to_the_longer_one():
    steps = [*range(0, 1000, 100), *range(1000, 9001, 200)]
    grid = uniform_grid(steps, [None] * len(steps), 1.0)
    assert grid.interval_fs == 200
    assert [steps[frame] for frame in grid.frames] == list(range(0, 9001, 200))
    assert grid.segments == ((0, 46),)
    assert "5 of 51 that are not on the grid of 200 MD steps were dropped" in grid.warnings[0]


def test_missing_frames_are_gaps_and_are_counted():
    steps = [0, 10, 20, 30, 40, 50, 80, 90]
    grid = uniform_grid(steps, [None] * 8, 2.0)
    assert grid.segments == ((0, 6), (6, 8))
    assert grid.interval_fs == 20
    assert "2 frame(s) missing in 1 gap(s), the first after step 50" in grid.warnings[0]


def test_times_in_the_file_give_the_time_step():
    assert uniform_grid([0, 5, 10], [0.0, 2.5, 5.0], None).interval_fs == 2.5


def test_no_times_at_all_demands_a_time_step():
    with pytest.raises(BadInput, match="give --timestep, the MD time step in fs"):
        uniform_grid([0, 5, 10], [None] * 3, None)


def test_a_contradicting_time_step_is_refused():
    with pytest.raises(BadInput, match=r"--timestep 2 fs, but the times in the file give 0\.5 fs"):
        uniform_grid([0, 5, 10], [0.0, 2.5, 5.0], 2.0)


def test_a_time_step_that_changes_is_refused():
    with pytest.raises(BadInput, match="time step changes"):
        uniform_grid([0, 5, 10], [0.0, 2.5, 9.0], None)
