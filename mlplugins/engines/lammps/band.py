"""Paths in LAMMPS: `neb` with one partition for each image."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlplugins.dynamics.output import last_lines, last_table_step, tail
from mlplugins.dynamics.run import Command, Stage
from mlplugins.engines.band import ImageBand, Relaxed, drive
from mlplugins.engines.lammps import program
from mlplugins.engines.lammps.data import Box, restricted_box, type_order, write_data
from mlplugins.engines.lammps.deck import deck_head, ranges, words
from mlplugins.engines.lammps.host import BECOME_LAMMPS
from mlplugins.engines.lammps.output import last_frame, read_dump, whole_frames
from mlplugins.errors import RunFailed
from mlplugins.structures import state as states

DECK, LOG, SCREEN = "in.neb", "log.lammps", "screen.out"
EVERY = 10
"""Steps between rows of the log and saved images."""
TIMESTEP_PS = 0.002
OVERSUBSCRIBED = {"MPIR_CVAR_POLLS_BEFORE_YIELD": "1"}
"""Partitions that wait let others have the core (MPICH)."""


def relax(band: ImageBand) -> Relaxed:
    """Optimise by `min_style fire`; the images are saved every ten steps.

    Raises:
        MissingDependency: lammps or mpirun is not installed.
        RunFailed: LAMMPS ended with an error.
    """
    count = len(band.images)
    program.require(count)
    start = _begun(band)
    boxes = [
        write_data(band.directory / f"{k}.data", atoms, type_order(atoms)) for k, atoms in enumerate(start)
    ]
    for path in band.directory.glob("*.final"):
        path.unlink()
    (band.directory / DECK).write_text("\n".join(_deck(band, boxes[0])) + "\n", encoding="utf-8")
    arguments, environment = program.command(count)
    launcher = (*arguments[:-1], sys.executable, "-c", BECOME_LAMMPS)
    line = (*launcher, "-in", DECK, "-log", LOG, "-screen", "screen", "-partition", f"{count}x1")
    given = {name: os.environ.get(name, value) for name, value in OVERSUBSCRIBED.items()}
    stage = Stage("lammps neb", Command(line, SCREEN, {**environment, **given}))
    status = drive(stage, band, lambda: last_table_step(band.directory / LOG))
    finals = [band.directory / f"{k}.final" for k in range(count)]
    if status != 0 or not all(path.is_file() for path in finals):
        raise RunFailed(f"LAMMPS stopped in {band.directory / DECK} (exit code {status}): {_reason(band)}")
    images = band.with_positions(_positions(band, finals, boxes))
    steps, energies = _last_row(band.directory / LOG, count)
    criterion = re.findall(r"Stopping criterion = (.*)", tail(band.directory / f"{LOG}.0"))
    return Relaxed(images, energies, steps, bool(criterion) and criterion[-1].strip() == "force tolerance")


def _deck(band: ImageBand, box: Box) -> list[str]:
    """The deck of all partitions; the first and the last image stay as they are."""
    count, first = len(band.images), band.images[0]
    elements = type_order(first)
    keywords = f"device {band.device} {words(states.keywords(first.info, states.NAMES))}"
    head = deck_head(band.model, elements, box.boundary, keywords, "${image}.data")
    steps = -(-band.steps // EVERY) * EVERY
    frames = "id xu yu zu"
    lines = [
        f"# path of {count} images; mpirun -np {count} lmp -in {DECK} -partition {count}x1",
        f"variable image world {' '.join(map(str, range(count)))}",
        *head[:2],
        "atom_modify map yes",
        *head[2:],
        "neighbor 1.0 bin",
        "neigh_modify every 1 delay 0 check yes",
        f"timestep {TIMESTEP_PS:g}   # ps; of the damped dynamics, which lengthens it up to tenfold",
        "min_style fire",
        "min_modify norm max   # the criterion is the largest force on an atom",
        f"fix band all neb {band.spring:.10g}",
    ]
    if len(band.fixed):
        lines += [f"group fixed id {ranges(band.fixed + 1)}", "fix fixed fixed setforce 0.0 0.0 0.0"]
    lines += [f"partition yes {end} fix end all setforce 0.0 0.0 0.0" for end in (1, count)]
    return [
        *lines,
        f"thermo {EVERY}",
        f"dump images all custom {EVERY} ${{image}}.dump {frames}",
        "dump_modify images sort id format float %.12g flush yes",
        f"neb 0.0 {band.fmax:.10g} {steps} {steps if band.climb else 0} {EVERY} none",
        f"write_dump all custom ${{image}}.final {frames} modify sort id format float %.12g",
    ]


def _begun(band: ImageBand) -> tuple[Atoms, ...]:
    """The images of the last step that an interrupted call has saved of all of them, else the given ones."""
    dumps = [band.directory / f"{k}.dump" for k in range(len(band.images))]
    if not all(path.is_file() for path in dumps):
        return band.images
    frames = [dict(whole_frames(path)) for path in dumps]  # step → end of the frame
    common = set.intersection(*(set(each) for each in frames))
    if not common:
        return band.images
    texts = [path.read_bytes()[: each[max(common)]].decode() for path, each in zip(dumps, frames)]
    rotation = restricted_box(band.images[0]).rotation
    return band.with_positions(np.array([last_frame(text)[:, 1:4] @ rotation.T for text in texts]))


def _positions(band: ImageBand, dumps: list[Path], boxes: list[Box]) -> NDArray[np.float64]:
    """(M, N, 3) in the frame of the given images."""
    return np.array(
        [read_dump(path)[:, 1:4] @ box.rotation.T for path, box in zip(dumps, boxes, strict=True)]
    )


def _last_row(log: Path, count: int) -> tuple[int, NDArray[np.float64] | None]:
    """Steps, and the energies of the images, which end each row of the log: RD1 PE1 RD2 PE2 …"""
    rows = [line.split() for line in tail(log).splitlines() if line[:1].strip() or line.strip()]
    rows = [row for row in rows if row[0].isdigit() and len(row) >= 2 * count + 1]
    if not rows:
        return 0, None
    return int(rows[-1][0]), np.array([float(word) for word in rows[-1][-2 * count + 1 :: 2]])


def _reason(band: ImageBand) -> str:
    """What the partitions and mpirun said last."""
    screens = [band.directory / SCREEN, *sorted(band.directory.glob("screen.*"))]
    lines = [line for path in screens for line in last_lines(path, 40)]
    errors = [line.strip() for line in lines if line.startswith(("ERROR", "mlplugins:"))]
    return " ".join(dict.fromkeys(errors)) or " ".join(lines[-4:]) or "no output"
