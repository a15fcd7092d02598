"""Trajectories of any engine → unwrapped, drift-free displacements of the mobile ions, read frame by frame.

Only the displacements of the mobile ions are kept: (frames, ions, 3) float64. `unwrapping` says what a
displacement is, `joining` makes one run of the frames of several files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from mlplugins import registry
from mlplugins.analysis.choices import DRIFTS
from mlplugins.analysis.joining import Joiner
from mlplugins.analysis.readers._text import Frame, ReadOptions, head
from mlplugins.analysis.run import ReadSettings, Trajectory
from mlplugins.errors import BadInput, nearest

__all__ = ["DRIFTS", "ReadSettings", "Trajectory", "find_reader", "read_frames", "read_trajectory"]

READERS = "mlplugins.analysis.readers"
PROGRESS_EVERY = 50


def find_reader(path: Path) -> ModuleType:
    """The reader that recognises a file by its content."""
    if not path.is_file():
        raise BadInput(f"no such trajectory: '{path}'")
    start = head(path)
    if not start.strip():
        raise BadInput(f"{path}: the file is empty; expected a trajectory")
    modules = [registry.load(READERS, name, "trajectory format") for name in registry.available(READERS)]
    for module in sorted(modules, key=lambda module: getattr(module, "LAST", False)):
        if module.matches(path, start):
            return module
    known = ", ".join(module.NAME for module in modules)
    raise BadInput(f"{path}: not a trajectory that can be read; expected one of: {known}")


def read_frames(path: Path, options: ReadOptions | None = None) -> Iterator[Frame]:
    """Yield the frames of one file, whatever its format."""
    yield from find_reader(path).read(path, options or ReadOptions())


def read_trajectory(files: Sequence[Path | str], settings: ReadSettings) -> Trajectory:
    """Read the files of ONE run, in order, into unwrapped displacements of the mobile ions.

    Args:
        files: LAMMPS dumps, i-PI or extended xyz, XDATCAR, ASE .traj; also compressed.
        settings: species, time step, what to hold fixed.

    Raises:
        BadInput: unreadable or inconsistent files, unknown time between frames, wrapping that cannot be
            undone.
    """
    if not files:
        raise BadInput("no trajectory given; expected one or more files of a run")
    if settings.drift not in DRIFTS:
        raise BadInput(f"unknown drift reference '{settings.drift}': {nearest(settings.drift, DRIFTS)}")
    paths = [Path(file) for file in files]
    readers = [find_reader(path) for path in paths]
    options = ReadOptions(type_map=settings.type_map, topology=settings.topology)
    joiner = Joiner(settings, options.warnings)
    sizes = [path.stat().st_size for path in paths]
    for number, (path, reader) in enumerate(zip(paths, readers)):
        joiner.start_file(path)
        for frame in reader.read(path, options):
            joiner.add(frame)
            if settings.progress and len(joiner.steps) % PROGRESS_EVERY == 0:
                here = os.lseek(options.raw.fileno(), 0, os.SEEK_CUR) if options.raw else 0
                settings.progress((sum(sizes[:number]) + here) / sum(sizes), len(joiner.steps))
        joiner.end_file()
    return joiner.finish()
