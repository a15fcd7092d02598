"""Runs of one temperature brought to one frame spacing, without their equilibration."""

from __future__ import annotations

from collections.abc import Sequence

from mlplugins.analysis.blocks import Paths
from mlplugins.analysis.trajectory import Trajectory
from mlplugins.errors import BadInput
from mlplugins.units import FS_PER_PS

SAME_SPACING = 1e-6


def pool(trajectories: Sequence[Trajectory], discard_ps: float) -> tuple[Paths, list[slice], list[str]]:
    """Bring runs to one frame spacing and leave out the equilibration.

    Returns:
        The paths, the frames taken of each run, and what was done.
    """
    if not trajectories:
        raise BadInput("no run to analyse")
    first = trajectories[0]
    for run in trajectories[1:]:
        if (run.species, run.n_ions, run.n_atoms) != (first.species, first.n_ions, first.n_atoms):
            raise BadInput(
                f"runs at one temperature differ: {first.n_ions} {first.species} of {first.n_atoms} atoms, "
                f"and {run.n_ions} {run.species} of {run.n_atoms}; only runs of the same system can be "
                "pooled"
            )
    spacing = max(run.interval_fs for run in trajectories)
    notes, slices, segments = [], [], []
    for run in trajectories:
        stride = max(1, round(spacing / run.interval_fs))
        if abs(stride * run.interval_fs / spacing - 1) > SAME_SPACING:
            raise BadInput(
                f"runs at one temperature have frames every {run.interval_fs:g} and {spacing:g} fs; "
                "expected the same spacing or a multiple of it"
            )
        if stride > 1:
            notes.append(f"a run with frames every {run.interval_fs:g} fs was thinned to {spacing:g} fs")
        skip = round(discard_ps * FS_PER_PS / run.interval_fs)
        segments.append(_cut(run.segments, skip, stride))
        slices.append(slice(None, None, stride))
        if not segments[-1]:
            raise BadInput(
                f"--discard-ps {discard_ps:g} leaves nothing of a run of "
                f"{run.n_frames * run.interval_fs / FS_PER_PS:.4g} ps; discard less"
            )
    slices = [slice(parts[0][0] * each.step, None, each.step) for each, parts in zip(slices, segments)]
    kept = [run.displacements[each] for run, each in zip(trajectories, slices)]
    shifted = [tuple((a - parts[0][0], b - parts[0][0]) for a, b in parts) for parts in segments]
    return Paths(kept, shifted, spacing), slices, notes


def _cut(segments: Sequence[tuple[int, int]], skip: int, stride: int) -> tuple[tuple[int, int], ...]:
    """Segments after the first `skip` frames, in units of `stride` frames; too short ones are left out.

    >>> _cut([(0, 10), (10, 31), (31, 32)], skip=4, stride=3)
    ((2, 4), (4, 11))
    """
    cut = [(-(-max(start, skip) // stride), -(-stop // stride)) for start, stop in segments]
    return tuple((start, stop) for start, stop in cut if stop - start >= 2)
