"""i-PI: the files of a run, its stages linked by checkpoints, the driver's command line."""

from __future__ import annotations

import itertools
import shlex
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection
from pathlib import Path

import ase.io
import numpy as np

from mlplugins.dynamics import watch
from mlplugins.dynamics.output import cut_frames, cut_table, largest, last_lines, last_table_step, table
from mlplugins.dynamics.run import Command, Run, Stage, require_axes, threads
from mlplugins.dynamics.settings import DIRECT
from mlplugins.engines.ipi.input import (
    CENTROIDS,
    MEAN_CELL,
    NPT,
    PRODUCTION,
    START,
    address,
    stages_of,
    xml,
)
from mlplugins.engines.ipi.program import program, sockets_prefix
from mlplugins.engines.ipi.xyz import upright, whole_frames, write_xyz
from mlplugins.structures import state as states
from mlplugins.units import BOLTZMANN_EV_K

TEMPLATE, RESUME = "template.extxyz", "resume.xml"
SCREEN, DRIVER_SCREEN, INNER_SCREEN = "screen.out", "driver.out", "driver_inner.out"
INNER = "inner"
KEPT_CHECKPOINTS = 2
TEMPERATURE_COLUMN, KINETIC_COLUMN, VOLUME_COLUMN, CELL_COLUMNS = 3, 4, 7, slice(8, 14)
"""Of the properties in `input.py`. i-PI's own temperature adds the wanted one for every held component."""


def require(run: Run) -> None:
    """Refuse if i-PI is missing."""
    sockets_prefix()
    program()
    require_axes(run, upright(run.atoms).rotation, "i-PI")


def trajectories(run: Run) -> list[Path]:
    """The files that hold the production frames, in order; of a ring polymer its centroids."""
    name = "pos_0" if run.config.beads == 1 else CENTROIDS
    return [run.directory / f"{PRODUCTION}.{name}.xyz"]


def write(run: Run) -> None:
    """Write the start configuration, one XML per stage and the command lines (run.sh)."""
    atoms = upright(run.atoms).atoms
    write_xyz(run.directory / START, atoms)
    if not run.periodic:
        ase.io.write(run.directory / TEMPLATE, atoms, format="extxyz")
    stages = stages_of(run)
    for stage in stages:
        (run.directory / f"{stage}.xml").write_text(xml(run, stage), encoding="utf-8")
    lines = [
        "#!/bin/sh",
        f"# {run.title}",
        'cd "$(dirname "$0")"',
        f"export OMP_NUM_THREADS={run.config.threads}",
    ]
    for stage in stages:
        drivers = _drivers(run, before(run, stage))
        lines += [
            f"i-pi {stage}.xml &",
            *(f"mlplugins {shlex.join(arguments)} &" for arguments in drivers[1:]),
            f"mlplugins {shlex.join(drivers[0])}",
            "wait",
        ]
    if NPT in stages:
        lines.append(
            "# between npt and what follows `mlplugins simulate` scales mean_cell.xyz to the mean volume"
        )
        write_xyz(run.directory / MEAN_CELL, atoms)
    (run.directory / "run.sh").write_text("\n".join(lines) + "\n", encoding="utf-8")


def next_stage(run: Run) -> Stage | None:
    """The next stage; None if the run is complete. Cuts the output back to the checkpoint used."""
    for stage, steps in stages_of(run).items():
        if _checkpoint_step(run.directory / f"{stage}.end") == steps:
            if stage == NPT:
                _write_mean_cell(run)
            continue
        checkpoint = _newest_checkpoint(run.directory, stage)
        if checkpoint is None:
            _remove_output(run.directory, stage)
            return _stage(run, f"{stage}.xml", f"{stage} from the start", before(run, stage))
        step = _checkpoint_step(checkpoint)
        for frames in run.directory.glob(f"{stage}.*.xyz"):
            cut_frames(frames, whole_frames, before=step + 1)
        cut_table(run.directory / f"{stage}.out", before=step + 1)
        _write_resume(run, checkpoint, steps)
        return _stage(run, RESUME, f"{stage} from step {step}", before(run, stage) + step)
    return None


def before(run: Run, stage: str) -> int:
    """Steps of the stages before this one."""
    names = list(stages_of(run))
    return sum(stages_of(run)[name] for name in names[: names.index(stage)])


def steps_done(run: Run) -> int:
    """Steps of all stages."""
    stages = stages_of(run).items()
    return sum(min(steps, last_table_step(run.directory / f"{stage}.out")) for stage, steps in stages)


def prune(run: Run) -> None:
    """Remove checkpoints that are no longer needed."""
    for stage in stages_of(run):
        for old in _checkpoints(run.directory, stage)[KEPT_CHECKPOINTS:]:
            old.unlink(missing_ok=True)


def has_state(run: Run) -> bool:
    """Whether there is a production checkpoint to continue from."""
    return _newest_checkpoint(run.directory, PRODUCTION) is not None


def hottest(run: Run) -> float:
    """Highest temperature in the last part of the logs, K."""
    outputs = [run.directory / f"{stage}.out" for stage in stages_of(run)]
    if run.config.beads > 1:
        return max(largest(path, TEMPERATURE_COLUMN) for path in outputs)
    kinetic = max(largest(path, KINETIC_COLUMN) for path in outputs)
    return 2 * kinetic / (BOLTZMANN_EV_K * run.degrees_of_freedom)


def failure(run: Run) -> list[str]:
    """Last output of the driver and the host."""
    screens = (run.directory / name for name in (DRIVER_SCREEN, INNER_SCREEN))
    driver = [line for screen in screens for line in last_lines(screen, 20) if "error" in line.lower()]
    return driver[-1:] + last_lines(run.directory / SCREEN, 3)


def _stage(run: Run, source: str, how: str, first_step: int) -> Stage:
    if run.watch is not None:
        watch.cut(run.directory, first_step)
    for name in ("", INNER):
        Path(sockets_prefix() + address(run, name)).unlink(missing_ok=True)  # left behind by a killed i-PI
    return Stage(
        f"i-PI {how}",
        Command((sys.executable, program(), source), SCREEN),
        tuple(
            Command(
                (sys.executable, "-m", "mlplugins.cli.main", *arguments), screen, threads(run.config.threads)
            )
            for arguments, screen in zip(_drivers(run, first_step), (DRIVER_SCREEN, INNER_SCREEN))
        ),
    )


def _drivers(run: Run, first_step: int) -> list[list[str]]:
    """Arguments of the driver of the model, and of that of the inner steps."""
    config, mts = run.config, run.config.mts
    own = _driver(run, str(config.model), address(run), states.NAMES)
    arguments = [[*own, *_watching(run, first_step)]]
    if mts is not None:
        model = str(config.model) if mts.inner == DIRECT else mts.inner
        inner = _driver(run, model, address(run, INNER), run.inner_inputs)
        arguments.append([*inner, *(["--non-conservative=on"] if mts.inner == DIRECT else [])])
    return arguments


def _driver(run: Run, model: str, place: str, taken: Collection[str]) -> list[str]:
    template = START if run.periodic else TEMPLATE
    return [
        "ipi-driver",
        model,
        template,
        "--unix",
        place,
        "--device",
        run.config.device,
        *(f"--{name}={value:g}" for name, value in states.keywords(run.atoms.info, taken).items()),
    ]


def _watching(run: Run, first_step: int) -> list[str]:
    """Arguments of a driver that watches the uncertainty; none of others."""
    given = run.watch
    if given is None:
        return []
    limits = {"--stop-above": given.stop_above, "--keep-above": given.keep_above}
    return [
        *(f"{name}={limit!r}" for name, limit in limits.items() if limit is not None),
        f"--watch-interval={given.every}",
        f"--probes={given.probes}",
        f"--first-step={first_step}",
        f"--beads={run.config.beads}",
    ]


def _write_mean_cell(run: Run) -> None:
    rows = table(run.directory / f"{NPT}.out")
    half = rows[len(rows) // 2 :]
    atoms = upright(run.atoms).atoms
    if run.config.barostat.coupling == "iso":
        volume = float(np.mean(half[:, VOLUME_COLUMN]))
        cell = atoms.cell.array * (volume / atoms.get_volume()) ** (1 / 3)
    else:
        xx, yy, zz, xy, xz, yz = half[:, CELL_COLUMNS].mean(axis=0)
        cell = np.array([[xx, 0, 0], [xy, yy, 0], [xz, yz, zz]])
    atoms.set_cell(cell, scale_atoms=True)
    write_xyz(run.directory / MEAN_CELL, atoms)


def _checkpoint_step(path: Path) -> int:
    """Step of a checkpoint; −1 if it is missing or incomplete after a kill."""
    try:
        text = ElementTree.parse(path).getroot().findtext("step")
    except (OSError, ElementTree.ParseError):
        return -1
    return int(text) if text else 0


def _checkpoints(directory: Path, stage: str) -> list[Path]:
    """Checkpoints of a stage, newest first."""
    found = [path for path in directory.glob(f"{stage}.chk_*") if path.name.rpartition("_")[2].isdigit()]
    return sorted(found, key=lambda path: int(path.name.rpartition("_")[2]), reverse=True)


def _newest_checkpoint(directory: Path, stage: str) -> Path | None:
    """The newest whole checkpoint; the state at the end of a run that was lengthened is one."""
    whole = (path for path in _checkpoints(directory, stage) if _checkpoint_step(path) > 0)
    found = [*itertools.islice(whole, 1), directory / f"{stage}.end"]
    newest = max(found, key=_checkpoint_step)
    return newest if _checkpoint_step(newest) > 0 else None


def _write_resume(run: Run, checkpoint: Path, steps: int) -> None:
    """Write the checkpoint with what may have changed: the number of steps, and the socket of the folder."""
    tree = ElementTree.parse(checkpoint)
    for total in tree.iter("total_steps"):
        total.text = f" {steps} "
    for output in tree.iter("checkpoint"):
        if output.get("filename") == "end":
            output.set("stride", str(steps))
    for socket in tree.iter("ffsocket"):
        inner = INNER if socket.get("name", "").strip() == INNER else ""
        for place in socket.iter("address"):
            place.text = f" {address(run, inner)} "
    tree.write(run.directory / RESUME, encoding="unicode")


def _remove_output(directory: Path, stage: str) -> None:
    for path in directory.glob(f"{stage}.*"):
        if path.suffix != ".xml":
            path.unlink()
