"""One round of the loop: train, calibrate, explore, choose, label; a step is done when its file is there."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mlplugins import files, training
from mlplugins.errors import BadInput, RunFailed
from mlplugins.labels import Labelled, fingerprint, label
from mlplugins.observer import SILENT, Observer, Silent
from mlplugins.structures import dataset, selection
from mlplugins.training.config import solver_of
from mlplugins.workflows import _learn_judge as judging
from mlplugins.workflows._learn_config import (
    LearnConfig,
    auxiliary_content,
    train_content,
    warm_content,
)
from mlplugins.workflows._learn_explore import Scene, all_frames, closest, explore
from mlplugins.workflows._learn_files import DONE, SELECTED, read_frames, read_json, write_frames
from mlplugins.workflows.finetune import finetune
from mlplugins.workflows.select import mean_soap
from mlplugins.workflows.uncertainty import uncertainty

SHARE = 10
"""Every tenth label of a round, and at least one, is set aside where there is no test set; of the start two:
what is met by exploring has to be among the frames that calibrate."""
ASIDE_OF_START = 2
LEFT_OUT = 5
"""A member of a committee leaves out every fifth frame, another fifth than the next one."""
VALIDATION = 0.2
FEWEST_ASIDE = 5
POOL = 4
"""Frames of the largest expected errors, per frame to choose, among which the diverse ones are chosen."""


@dataclass
class Loop:
    """What all rounds share.

    Attributes:
        config: of the loop.
        folder: of the loop.
        observer: told of the progress.
        told: what a training has said of the labels; not said again in the next round.
    """

    config: LearnConfig
    folder: Path
    observer: Observer = SILENT
    told: set[str] = field(default_factory=set)

    def round(self, number: int) -> Path:
        """The folder of a round."""
        return self.folder / f"round_{number:02d}"

    def chosen(self, number: int) -> list[Atoms]:
        """What a complete round has chosen."""
        folder = self.round(number)
        return read_frames(folder / SELECTED, read_json(folder / DONE[0])["n_chosen"])

    def label(self, frames: Sequence[Atoms]) -> Labelled:
        """Labels of frames; those that are there are not computed again."""
        return label(list(frames), self.config.labels, store=self.folder / "labels")


class Told(Silent):
    """Passes on what a training says, e.g. of the units of the labels, once."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def note(self, text: str) -> None:
        """Something that no other training of the loop has said."""
        if text not in self._loop.told:
            self._loop.told.add(text)
            self._loop.observer.note(f"training: {text}")


class Waiting(Exception):
    """Labels are computed elsewhere.

    Args:
        labelled: says how many, and by what.
    """

    def __init__(self, labelled: Labelled) -> None:
        super().__init__(f"waiting for {labelled.waiting} labels")
        self.labelled = labelled


def start_frames(loop: Loop) -> tuple[list[Atoms], list[Atoms]]:
    """Frames of the start and of the test.

    Raises:
        BadInput: too few to learn from.
    """
    start = [atoms for atoms, _ in dataset.frames(loop.config.start.frames)]
    section = loop.config.test_section
    test = [atoms for atoms, _ in dataset.frames(section.frames)] if section else []
    found = len({*map(fingerprint, start)} - {*map(fingerprint, test)}) - (0 if test else ASIDE_OF_START)
    if found < _fewest(loop.config):
        raise BadInput(
            f"'start.frames': {max(found, 0)} different frames to learn from"
            + ("" if test else f", once {ASIDE_OF_START} are set aside")
            + f"; expected at least {_fewest(loop.config)}: give more frames, or a 'test'"
        )
    return start, test


def _fewest(config: LearnConfig) -> int:
    """Frames to learn from: what every model holds out has to be there."""
    return max(2, config.uncertainty.members if config.uncertainty.method == "committee" else 2)


@dataclass(frozen=True)
class Sets:
    """Labelled frames of a round."""

    train: list[Atoms]
    held: list[Atoms]


def sets_of(loop: Loop, number: int, start: Sequence[Atoms], test: Sequence[Atoms]) -> Sets:
    """The labelled frames that a round learns from, and those that it is judged by.

    Raises:
        Waiting: some of them are labelled elsewhere, and are not there yet.
        RunFailed: so many labels failed that nothing can be learned, or judged.
    """
    groups = [list(start)]
    for before in range(number):
        groups.append(loop.chosen(before))
    found = loop.label([*test, *(atoms for group in groups for atoms in group)])
    if found.waiting:
        raise Waiting(found)
    by_name = {str(atoms.info["label_hash"]): atoms for atoms in found.frames}
    names = [fingerprint(atoms) for atoms in test]
    held = [by_name[name] for name in dict.fromkeys(names) if name in by_name]
    aside = set(names)
    train: list[Atoms] = []
    for k, group in enumerate(groups):
        names = [n for n in dict.fromkeys(map(fingerprint, group)) if n in by_name and n not in aside]
        count = 0 if test else max(len(names) // SHARE, 1 if k else ASIDE_OF_START)
        chosen = set(sorted(names)[:count])
        held += [by_name[name] for name in names if name in chosen]
        train += [by_name[name] for name in names if name not in chosen]
        aside |= set(names)
    if not held or len(train) < _fewest(loop.config):
        reason = f"; {len(found.failed)} failed, e.g. {found.failed[-1]['reason']}" if found.failed else ""
        raise RunFailed(
            f"{len(train)} labelled frames to learn from and {len(held)} set aside, expected at least "
            f"{_fewest(loop.config)} and 1{reason}: mend the settings of 'labels' or add 'retries'"
        )
    return Sets(train, held)


def train(
    loop: Loop, folder: Path, sets: Sets, final: bool = False, before: Path | None = None
) -> list[Path]:
    """The models of a round; with `final` one model where a committee does not fit into one file.

    Args:
        loop: its settings.
        folder: of the models.
        sets: what they learn from.
        final: they are what the loop gives.
        before: folder of the models that these begin with; None: begin anew.
    """
    method, config = loop.config.uncertainty.method, loop.config
    if final and method == "committee" and solver_of(str(config.model.get("family"))):
        method = "gp"
    if final and (folder / "train.extxyz").is_file():
        _require_same(folder, sets.train)
    if not (folder / "train.extxyz").is_file():
        write_frames(folder / "held_out.extxyz", sets.held)
        write_frames(folder / "train.extxyz", sets.train)
    if method in ("gp", "llpr"):
        content = train_content(config, folder / "train.extxyz", VALIDATION, 0)
        _fit(loop, content, folder / "model_0", before)
        if method == "gp":
            return [folder / "model_0" / "model.pt"]
        path = folder / "llpr.pt"
        if not path.is_file():
            held = [str(folder / "held_out.extxyz")]
            uncertainty(folder / "model_0", folder / "train.extxyz", path, held, observer=Told(loop))
        return [path]
    paths = []
    if config.has_auxiliary:
        content = train_content(config, folder / "train.extxyz", VALIDATION, 0)
        for number, each in enumerate((content, auxiliary_content(content))):
            paths.append(folder / f"model_{number}" / "model.pt")
            _fit(loop, each, paths[-1].parent, before)
        return paths
    for member in range(config.uncertainty.members):
        left, kept = (folder / f"{name}_{member}.extxyz" for name in ("left_out", "kept"))
        parts = max(LEFT_OUT, config.uncertainty.members)
        if not kept.is_file():
            write_frames(left, sets.train[member::parts])
            write_frames(kept, [a for k, a in enumerate(sets.train) if k % parts != member])
        content = train_content(config, kept, left, member)
        _fit(loop, content, folder / f"model_{member}", before)
        paths.append(folder / f"model_{member}" / "model.pt")
    return paths


def _require_same(folder: Path, frames: Sequence[Atoms]) -> None:
    """Remove models of a folder that have not learned from just these frames: the loop has gone on since."""
    before = [atoms.info["label_hash"] for atoms in read_frames(folder / "train.extxyz")]
    if before == [atoms.info["label_hash"] for atoms in frames]:
        return
    old = [path for path in folder.iterdir() if path.name != SELECTED]
    for path in sorted(old, key=lambda path: (path.name not in DONE, path.name == "train.extxyz")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _fit(loop: Loop, content: dict[str, Any], folder: Path, before: Path | None) -> None:
    """Train one model, from the start or from the model of the same name in the round before."""
    if before is None:
        training.train(content, folder, Told(loop))
    else:
        finetune(warm_content(loop.config, content, before / folder.name), folder, Told(loop))


def calibrate(loop: Loop, number: int, models: Sequence[Path], held: Sequence[Atoms]) -> dict[str, Any]:
    """Scale of the expected errors, from the frames set aside."""
    path = loop.round(number) / "calibration.json"
    if not path.is_file():
        of_held = judging.surprise(_judge(loop, models), held)
        scale = judging.scale_of(of_held)
        expected = scale * of_held.worst[:, 0]
        record = {"scale": scale, "held_out": of_held.record(scale), "unusual": judging.unusual(of_held)}
        record["expected_95"] = float(np.quantile(expected, 0.95))
        files.write_json(path, {**record, "values": judging.as_lists(of_held)})
    return dict(read_json(path))


def _judge(loop: Loop, models: Sequence[Path]) -> judging.Judge:
    return judging.Judge(models, loop.config.has_auxiliary)


def target_of(loop: Loop, scale: float) -> float:
    """Expected error above which a frame is a candidate, eV/Å.

    Raises:
        BadInput: too few frames are set aside to say what is unusual.
    """
    if loop.config.uncertainty.threshold == "expected":
        return loop.config.until.expected_error
    first = read_json(loop.round(0) / "calibration.json")
    n = first["held_out"]["n_frames"]
    if n < FEWEST_ASIDE:
        raise BadInput(
            f"'uncertainty.threshold': 'mad' is of the frames set aside in the first round, which are {n}: "
            f"name a 'test' of {FEWEST_ASIDE} frames or more, or choose 'expected'"
        )
    return scale * float(first["unusual"])


def select(loop: Loop, number: int, runs: Sequence[dict[str, Any]], sets: Sets, target: float) -> list[Atoms]:
    """Choose the frames to label, of expected errors above `target`, and say why."""
    folder = loop.round(number)
    path, settings = folder / SELECTED, loop.config.select
    if path.is_file():
        return read_frames(path)
    known = {fingerprint(atoms) for atoms in [*sets.train, *sets.held]} | _given_up(loop)
    left = loop.config.until.labels - len(_chosen_before(loop, number))
    n = min(settings.n, left)
    explored: dict[str, Atoms] = {}
    candidates: list[str] = []
    for record in runs:
        frames = {fingerprint(a): a for a in all_frames(folder / "explore", record)}
        frames = {name: a for name, a in frames.items() if name not in known and name not in explored}
        explored |= frames
        above = [name for name, a in frames.items() if _error(a) > target]
        above.sort(key=lambda name: _rank(loop, explored[name]))
        candidates += list(frames) if settings.diversity == "random" else above[: settings.per_trajectory]
    candidates.sort(key=lambda name: _rank(loop, explored[name]))
    chosen = _chosen(loop, number, [explored[name] for name in candidates], n, sets)
    taken = set(map(fingerprint, chosen))
    rest = [a for name, a in explored.items() if name not in taken]
    chosen += _checks(rest, min(settings.checks, n) - len(chosen), loop.config.seed + number)
    write_frames(path, chosen)
    return chosen


def _checks(rest: list[Atoms], n: int, seed: int) -> list[Atoms]:
    """Frames that show whether the models are as sure as they say: the least certain, and some at random."""
    if n < 1:
        return []
    rest = sorted(rest, key=_error, reverse=True)
    first, others = rest[: (n + 1) // 2], rest[(n + 1) // 2 :]
    order = np.random.default_rng(seed).permutation(len(others))[: n - len(first)]
    return _reasons(first, "check: least certain") + _reasons([others[k] for k in order], "check: at random")


def _chosen(loop: Loop, number: int, candidates: list[Atoms], n: int, sets: Sets) -> list[Atoms]:
    settings = loop.config.select
    if not candidates or n < 1:
        return []
    if settings.diversity == "random":
        order = np.random.default_rng([loop.config.seed, number]).permutation(len(candidates))[:n]
        return _reasons([candidates[k] for k in order], "at random")
    if settings.diversity == "none":
        return _reasons(candidates[:n], "largest expected error")
    pool = candidates[: POOL * n]
    rows = mean_soap([*sets.train, *pool], settings.cutoff)
    given, rows = rows[: len(sets.train)], rows[len(sets.train) :]
    farthest = selection.choose(rows, n, "fps", given=given)
    distances = np.linalg.norm(rows[:, None] - given[None], axis=2).min(axis=1)
    for k in farthest:
        pool[k].info["distance"] = float(distances[k])
    few = len(pool) <= n
    return _reasons([pool[k] for k in farthest], "above the target" if few else f"farthest of {len(pool)}")


def _reasons(frames: list[Atoms], reason: str) -> list[Atoms]:
    for atoms in frames:
        atoms.info["reason"] = reason
    return frames


def _rank(loop: Loop, atoms: Atoms) -> tuple[bool, float]:
    """Largest expected error first; frames at which a run was left, which may be wrecks, last."""
    return _error(atoms) > loop.config.explore.stop_above, -_error(atoms)


def _error(atoms: Atoms) -> float:
    return float(atoms.info["expected_error"])


def _chosen_before(loop: Loop, number: int) -> list[Atoms]:
    return [a for k in range(number) for a in loop.chosen(k)]


def _given_up(loop: Loop) -> set[str]:
    return {path.parent.name for path in (loop.folder / "labels").glob("*/failed.json")}


def run(loop: Loop, number: int, start: Sequence[Atoms], test: Sequence[Atoms], steps: int) -> dict[str, Any]:
    """One round, or what is left of it.

    Raises:
        Waiting: labels are computed elsewhere.
    """
    folder = loop.round(number)
    if (folder / "round.json").is_file():
        return dict(read_json(folder / "round.json"))
    say = loop.observer.note
    timer = _timer()
    sets = sets_of(loop, number, start, test)
    say(f"round {number}: {len(sets.train)} frames to learn from, {len(sets.held)} set aside")
    warm = number > 0 and loop.config.warm is not None
    models = train(loop, folder, sets, before=loop.round(number - 1) if warm else None)
    trained = timer()
    calibration = calibrate(loop, number, models, sets.held)
    nearest = closest([*sets.train, *sets.held])
    scale = calibration["scale"]
    target = target_of(loop, scale)
    scene = Scene(loop.config, folder / "explore", models, scale, target, nearest, number, steps)
    runs = explore(scene, loop.observer)
    explored = timer()
    chosen = select(loop, number, runs, sets, target)
    labelled = loop.label(chosen) if chosen else None
    if labelled is not None and labelled.waiting:
        raise Waiting(labelled)
    frames = labelled.frames if labelled else []
    failed = labelled.failed if labelled else []
    found = judging.surprise(_judge(loop, models), frames) if frames else None
    files.write_json(
        folder / "surprise.json",
        {"values": judging.as_lists(found) if found else None, "scale": scale},
    )
    record = {
        "round": number,
        "target": loop.config.until.expected_error,
        "n_train": len(sets.train),
        "n_held_out": len(sets.held),
        "n_chosen": len(chosen),
        "failed": failed,
        "scale": scale,
        "expected_95": calibration["expected_95"],
        "held_out": calibration["held_out"],
        "surprise": found.record(scale) if found else None,
        "runs": runs,
        "n_frames": sum(r["n_frames"] for r in runs),
        "n_above": sum(r["n_above"] for r in runs),
        "halted": sum(bool(r["halted"]) for r in runs),
        "steps": steps,
        "seconds": {"train": trained, "explore": explored, "label": timer()},
        "label_cpu_s": sum(float(a.info.get("label_cpu_s", 0.0)) for a in frames),
    }
    files.write_json(folder / "round.json", record)
    say(_said(record))
    return record


def _timer() -> Callable[[], float]:
    """Wall seconds since it was asked last; of this process' part of a round that was interrupted."""
    last = time.monotonic()

    def elapsed() -> float:
        nonlocal last
        now = time.monotonic()
        last, before = now, last
        return now - before

    return elapsed


def _said(record: dict[str, Any]) -> str:
    text = (
        f"round {record['round']}: {record['n_frames']} frames explored, {record['n_above']} above the target"
    )
    text += f", {record['halted']} of {len(record['runs'])} runs left early; {record['n_chosen']} labelled"
    if record["surprise"]:
        text += f", forces were {1000 * record['surprise']['forces_rmse_eV_A']:.0f} meV/Å wrong there"
    failed = f", {len(record['failed'])} failed" if record["failed"] else ""
    return f"{text}{failed}; held out {1000 * record['held_out']['forces_rmse_eV_A']:.0f} meV/Å"
