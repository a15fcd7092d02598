"""Exploration: every structure at every temperature, in segments that are campaigns of `simulate`.

A segment is done when its file SEGMENT.json is there; one that was interrupted is run anew from its start, so
that the frames do not depend on interruptions. Velocities are drawn anew for every segment.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.neighborlist import neighbor_list

from mlplugins import engines, files
from mlplugins.dynamics.settings import label as printed
from mlplugins.dynamics.start import read_structure
from mlplugins.errors import BadInput
from mlplugins.observer import Observer
from mlplugins.simulation import campaign as campaigns
from mlplugins.simulation import config as simulation
from mlplugins.simulation.plan import plan
from mlplugins.structures import dataset, state
from mlplugins.workflows._learn_config import LearnConfig
from mlplugins.workflows._learn_files import read_frames, read_json, write_frames
from mlplugins.workflows._learn_judge import Judge

CLOSER = 0.6
"""Of the smallest distance in the labelled frames: atoms closer than this are a wreck."""


@dataclass(frozen=True)
class Scene:
    """What a round explores with.

    Attributes:
        config: of the loop.
        folder: `explore` of the round.
        models: the first drives, all judge.
        scale: from deviations to expected errors.
        target: expected error above which a frame is a candidate, eV/Å.
        closest: smallest distance in the labelled frames, Å.
        number: of the round.
        steps: of one run.
    """

    config: LearnConfig
    folder: Path
    models: Sequence[Path]
    scale: float
    target: float
    closest: float
    number: int
    steps: int


def explore(scene: Scene, observer: Observer) -> list[dict[str, Any]]:
    """Run what is not done; one record for each run: `run`, `frames` (list of files), `halted`, `seconds`."""
    judge = Judge(scene.models, scene.config.has_auxiliary)
    explored = scene.config.explore
    jobs = [(k, s, t) for k, s in enumerate(explored.structures) for t in explored.temperatures]
    found = []
    observer.start(0, len(jobs))
    for done, (number, structure, temperature) in enumerate(jobs, 1):
        name = f"{number}_T{printed(temperature)}"
        found.append(_run(scene, judge, name, structure, temperature))
        observer.step(done, len(jobs))
    return found


def _run(scene: Scene, judge: Judge, name: str, structure: str, temperature: float) -> dict[str, Any]:
    """The segments of one run, until it is unsure."""
    segments = scene.config.explore.segments
    records, start = [], structure
    for k in range(segments):
        product = scene.folder / f"{name}_{k}.json"
        if not product.is_file():
            steps = max(scene.steps // segments, 1)
            seed = 1 + scene.config.seed + 1000 * scene.number + k
            record = _segment(
                scene, judge, f"{name}_{k}", scene.config.dynamics(start, temperature, seed, steps)
            )
            files.write_json(product, record)
        records.append(read_json(product))
        if records[-1]["halted"] or k == segments - 1:
            break
        start = f"{scene.folder / name}_{k}.extxyz@-1"
    return {
        "run": name,
        "structure": structure,
        "temperature_K": temperature,
        "files": [f"{name}_{k}.extxyz" for k in range(len(records))],
        "n_frames": sum(r["n_frames"] for r in records),
        "n_above": sum(r["n_above"] for r in records),
        "halted": records[-1]["halted"],
        "steps": sum(r["steps"] for r in records),
    }


def _segment(scene: Scene, judge: Judge, name: str, content: dict[str, Any]) -> dict[str, Any]:
    """Run one segment from its start and judge its frames."""
    work = scene.folder / f"{name}.work"
    if work.exists():
        shutil.rmtree(_aside(work))
    config = simulation.parse({**content, "model": str(scene.models[0])}, "explore")
    campaign = plan(config, work)
    [outcome] = campaigns.run(campaign)
    electrons = state.entries(read_structure(config.structure).info)
    trajectories = engines.load(config.engine).trajectories(campaign.runs[0])
    frames = [atoms for path in trajectories if path.is_file() for atoms in _frames(path)]
    frames = frames[1:] or frames  # the first is where the segment began, the same in every round
    kept, halted, above = [], "", 0
    for number, atoms in enumerate(frames):
        plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=electrons)
        nearest = closest([plain])
        if nearest < CLOSER * scene.closest:
            halted = f"two atoms {nearest:.2f} Å apart at frame {number}"
            break
        said = scene.scale * judge.of(plain).deviations
        plain.info |= {"expected_error": float(said.max()), "worst_atom": int(said.argmax())}
        plain.info |= {"run": name, "frame": number}
        beyond = plain.info["expected_error"] > scene.config.explore.stop_above
        kept.append(plain)
        above += plain.info["expected_error"] > scene.target
        if beyond:
            halted = f"expected error {plain.info['expected_error']:.3g} eV/Å at frame {number}"
            break
    if not halted and outcome.state != "finished":
        halted = outcome.message or f"the engine ended: {outcome.state}"
        if not kept:
            raise BadInput(f"explore: {name}: {halted}: {' / '.join(outcome.last_lines)}")
    write_frames(scene.folder / f"{name}.extxyz", kept)
    shutil.rmtree(_aside(work))
    return {"n_frames": len(kept), "n_above": int(above), "halted": halted, "steps": outcome.step}


def _aside(work: Path) -> Path:
    """The folder under a name that no process which was left behind writes to."""
    aside = work.with_name(f"{work.name}.old")
    if aside.exists():
        shutil.rmtree(aside)
    return work.rename(aside)


def _frames(path: Path) -> list[Atoms]:
    """Those that were written whole."""
    try:
        return [atoms for atoms, _ in dataset.frames(str(path))]
    except BadInput:
        return []


def closest(frames: Sequence[Atoms], within: float = 6.0) -> float:
    """The smallest distance of two atoms, Å; `within` if all are farther."""
    return min((float(neighbor_list("d", a, within).min(initial=within)) for a in frames), default=within)


def all_frames(folder: Path, record: dict[str, Any]) -> list[Atoms]:
    """The frames of one run."""
    paths = [folder / name for name in record["files"]]
    counts = [read_json(path.with_suffix(".json"))["n_frames"] for path in paths]
    return [atoms for path, count in zip(paths, counts) for atoms in read_frames(path, count)]
