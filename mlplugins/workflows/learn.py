"""Learning where it matters: explore with a model, label where it is unsure, train again until it is sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mlplugins import files
from mlplugins.errors import RunFailed
from mlplugins.labels import fingerprint
from mlplugins.observer import SILENT, Observer
from mlplugins.workflows import _learn_judge as judging
from mlplugins.workflows import _learn_report as report
from mlplugins.workflows import _learn_round as rounds
from mlplugins.workflows._learn_config import LearnConfig, keep, load
from mlplugins.workflows._learn_explore import all_frames
from mlplugins.workflows._learn_files import SELECTED, read_frames, read_json, write_frames
from mlplugins.workflows._learn_given import given_labels
from mlplugins.workflows._learn_round import Loop, Sets, Waiting
from mlplugins.workflows.committee import committee

INSIDE, QUIET = 0.01, 2
"""Largest share of explored frames above the target, in so many rounds one after the other."""
MOST_FAILED, FEWEST_FAILED = 0.5, 5
"""Share and number of failed labels of a round that end the loop."""
LOCK_WAIT_S = 15.0
DATASET = "dataset.extxyz"


@dataclass(frozen=True)
class Learned:
    """How far a loop has come.

    Attributes:
        folder: of the loop.
        rounds: record of every complete round.
        stopped: why it is over; empty while it waits for labels.
        model: what all labels together gave; None while it waits.
        final: its errors on the frames set aside, `control` likewise.
        waiting: labels that are computed elsewhere.
        script: job script to submit for them.
    """

    folder: Path
    rounds: list[dict[str, Any]] = field(default_factory=list)
    stopped: str = ""
    model: Path | None = None
    final: dict[str, Any] = field(default_factory=dict)
    waiting: int = 0
    script: Path | None = None

    def record(self) -> dict[str, Any]:
        """What `mlplugins learn --json` writes."""
        return files.plain({**vars(self), "folder": str(self.folder)}) | {
            "model": self.model and str(self.model)
        }


def learn(
    config: LearnConfig | Path | str | Mapping[str, Any],
    directory: Path | str = "learning",
    observer: Observer = SILENT,
) -> Learned:
    """Learn a potential where it is needed: train, explore, label what is uncertain, until it is enough.

    The folder is the state: the same call continues a loop that was killed at any moment.

    Args:
        config: of `mlplugins learn`: a YAML file or its content.
        directory: of the loop.
        observer: told of the progress.

    Raises:
        BadInput: a wrong configuration, another one than the folder was begun with, or too few frames at the
            start.
        RunFailed: most labels of a round failed.

    The page docs/learn.md has an example that is run by the tests.
    """
    settings = config if isinstance(config, LearnConfig) else load(config)
    folder = Path(directory).absolute()
    files.require_writable(folder, "directory", folder=True)
    folder.mkdir(parents=True, exist_ok=True)
    with files.locked(folder / "lock", LOCK_WAIT_S):
        loop = Loop(settings, folder, observer)
        start, test = rounds.start_frames(loop)
        keep(settings, folder)
        done: list[dict[str, Any]] = []
        try:
            given_labels(loop, start, test)
            return _until_enough(loop, start, test, done)
        except Waiting as waiting:
            found = waiting.labelled
            return Learned(folder, done, waiting=found.waiting, script=found.script)


def _until_enough(loop: Loop, start: Sequence[Atoms], test: Sequence[Atoms], done: list[Any]) -> Learned:
    steps = loop.config.explore.steps
    stopped = ""
    while not stopped:
        done.append(rounds.run(loop, len(done), start, test, steps))
        _require_labels(loop, done[-1])
        stopped = _enough(loop.config, done)
        if _inside(done[-1]):
            steps = round(done[-1]["steps"] * loop.config.explore.grow)
        else:
            steps = done[-1]["steps"]
        report.write(loop, done, stopped, {})
    final, model = _final(loop, len(done), start, test)
    if loop.config.control == "random":
        final["control"] = _control(loop, len(done), start, test)
    report.write(loop, done, stopped, final)
    return Learned(loop.folder, done, stopped, model, final)


def _enough(config: LearnConfig, done: Sequence[dict[str, Any]]) -> str:
    """Why the loop is over; empty if it is not."""
    target = f"{config.until.expected_error:g} eV/Å"
    if len(done) >= QUIET and all(_inside(each) for each in done[-QUIET:]):
        return f"fewer than {100 * INSIDE:g} % of the explored frames above {target}, {QUIET} rounds in a row"
    n = sum(each["n_chosen"] for each in done)
    if n >= config.until.labels:
        return f"{n} labels ('until.labels'); the target of {target} was not reached"
    if len(done) >= config.until.rounds:
        return f"{len(done)} rounds ('until.rounds'); the target of {target} was not reached"
    return ""


def _inside(record: dict[str, Any]) -> bool:
    """Whether the exploration met nothing unknown, by what the models and the labels say."""
    if record["halted"] or record["n_above"] > INSIDE * record["n_frames"]:
        return False
    if record["surprise"] is None:
        return not record["n_chosen"]  # labels that all failed say nothing
    return bool(record["surprise"]["worst_rms_eV_A"] <= record["target"])


def _require_labels(loop: Loop, record: dict[str, Any]) -> None:
    """Refuse to go on where the code of reference fails more often than not."""
    failed = len(record["failed"])
    if failed >= FEWEST_FAILED and failed > MOST_FAILED * record["n_chosen"]:
        last = record["failed"][-1]
        raise RunFailed(
            f"round {record['round']}: {failed} of {record['n_chosen']} labels failed, e.g. {last['reason']} "
            f"({last['folder']}): mend the settings of 'labels' or add 'retries', and remove "
            f"{loop.round(record['round']) / 'round.json'}"
        )


def _final(
    loop: Loop, number: int, start: Sequence[Atoms], test: Sequence[Atoms]
) -> tuple[dict[str, Any], Path]:
    """The model of all labels, and its errors on the frames set aside."""
    folder, model = loop.folder / "final", loop.folder / "model.pt"
    sets = rounds.sets_of(loop, number, start, test)
    paths = rounds.train(loop, folder, sets, final=True)
    if not all(path.is_file() for path in (model, loop.folder / DATASET, folder / "final.json")):
        if len(paths) > 1 and not loop.config.has_auxiliary:
            committee(paths, model)
        else:
            files.write_bytes(model, paths[0].read_bytes())
        write_frames(loop.folder / DATASET, [*sets.train, *sets.held])
        files.write_json(folder / "final.json", _errors(loop, paths, sets))
    return dict(read_json(folder / "final.json")), model


def _errors(loop: Loop, paths: Sequence[Path], sets: Sets) -> dict[str, Any]:
    found = judging.surprise(judging.Judge(paths, loop.config.has_auxiliary), sets.held)
    return {"n_train": len(sets.train), "held_out": found.record(judging.scale_of(found))}


def _control(loop: Loop, number: int, start: Sequence[Atoms], test: Sequence[Atoms]) -> dict[str, Any]:
    """As many labels of explored frames chosen at random, and what a training gives with them."""
    folder = loop.folder / "control"
    path = folder / SELECTED
    ours = rounds.sets_of(loop, number, start, test)
    begun = rounds.sets_of(loop, 0, start, test)
    held = {fingerprint(atoms) for atoms in ours.held}
    count = len(ours.train) - len(begun.train)
    if not path.is_file() or len(read_frames(path)) != count:
        pool: dict[str, Atoms] = {}
        for k in range(number):
            for record in read_json(loop.round(k) / "round.json")["runs"]:
                for atoms in all_frames(loop.round(k) / "explore", record):
                    pool[fingerprint(atoms)] = atoms
        names = sorted(set(pool) - held)
        order = np.random.default_rng([loop.config.seed, 1]).permutation(len(names))[:count]
        write_frames(path, [pool[names[k]] for k in order])
    frames = read_frames(path)
    found = loop.label(frames) if frames else None
    if found is not None and found.waiting:
        raise Waiting(found)
    sets = Sets([*begun.train, *(found.frames if found else [])], ours.held)
    paths = rounds.train(loop, folder, sets, final=True)
    if not (folder / "control.json").is_file():
        files.write_json(folder / "control.json", _errors(loop, paths, sets))
    return dict(read_json(folder / "control.json"))
