"""The configuration of `mlplugins learn`, and the folder that it belongs to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mlplugins import files, models
from mlplugins.config import Count, Positive, Section, Seed, read, validated
from mlplugins.dynamics.start import read_structure
from mlplugins.errors import BadInput
from mlplugins.labels import settings_of
from mlplugins.labels._store import AGAIN, read_record
from mlplugins.models.capabilities import HasLastLayer, PredictsVariance
from mlplugins.simulation import config as simulation
from mlplugins.training import config as training

EXPECTED = "keys such as start, labels, model, explore and until"
RECORD = "learn.json"
FREE = ("control", "until.rounds", "until.labels", "labels.parallel", "labels.timeout", "labels.retries")
FREE_OF_LABELS = (
    "labels.jobs",
    "labels.cluster",
    "labels.command",
    "labels.max_force",
    "labels.energy_window",
)
"""What may change from one call to the next."""
OURS = ("structures", "segments", "grow", "stop_above")


class StartSection(Section):
    """What the first model learns from.

    Attributes:
        frames: files that ASE reads.
        labelled: take their labels as those of the code of `labels` instead of computing them.
    """

    frames: str | list[str]
    labelled: bool = False


class TestSection(StartSection):
    """Frames that nothing is learned from, as those of the start."""


class UncertaintySection(Section):
    """How the models say what they do not know.

    Attributes:
        method: `committee`: spread of the forces of several models, each of which leaves out another part of
            the frames; `gp`: the variance of soap-gap; `llpr`: the posterior of the readout of a network;
            `auxiliary`: difference in energy to a network that learned from energies alone.
        members: of the committee.
        threshold: which frames are candidates: `expected`: those of larger expected errors than
            `until.expected_error`; `mad`: those of larger deviations than the median and three times the
            median absolute deviation of the frames set aside in the first round.
    """

    method: Literal["committee", "gp", "llpr", "auxiliary"] = "committee"
    members: Annotated[int, Field(ge=2)] = 4
    threshold: Literal["expected", "mad"] = "expected"


class ExploreSection(BaseModel):
    """Where the models go: every structure at every temperature, once a round. Other keys are those of
    `mlplugins simulate`.

    Attributes:
        structures: `file` or `file@index`.
        temperatures: K.
        steps: of one run in the first round.
        segments: pieces of a run, after each of which it ends if it was unsure.
        grow: factor on `steps` after a round in which every run stayed inside.
        stop_above: expected error of a force at which a run is left, eV/Å.
    """

    model_config = ConfigDict(extra="allow", strict=False, frozen=True, allow_inf_nan=False)

    structures: Annotated[list[str], Field(min_length=1)]
    temperatures: Annotated[list[Positive], Field(min_length=1)]
    steps: Count
    engine: str = "ase"
    segments: Count = 4
    grow: Annotated[float, Field(ge=1)] = 2.0
    stop_above: Positive = 1.0


class SelectSection(Section):
    """Which of the explored frames are labelled.

    Attributes:
        n: at most, a round.
        per_trajectory: at most, of one run.
        diversity: `fps`: of the 4 n with the largest expected error the n that are farthest from each other
            and from what is there; `none`: those with the largest expected error; `random`: any, of all
            explored (no learning; for comparison).
        cutoff: of the SOAP vectors that are compared, Å.
        checks: fewer candidates are filled up to so many, by the most uncertain frames and some at random: a
            model is not believed to be sure without a label that says so.
    """

    n: Count = 20
    per_trajectory: Count = 5
    diversity: Literal["fps", "none", "random"] = "fps"
    cutoff: Positive = 5.0
    checks: Count = 4


class UntilSection(Section):
    """When it is enough; the first that is met.

    Attributes:
        expected_error: of the force on the worst atom of a frame, eV/Å: fewer than 1 % of the explored frames
            have more, and the chosen ones no larger root mean square, in two rounds one after the other.
        rounds: at most.
        labels: at most, start and test not counted.
    """

    expected_error: Positive
    rounds: Count = 10
    labels: Count = 300


class LearnConfig(Section):
    """A learning loop.

    Attributes:
        start: frames of the first model.
        test: frames that nothing is learned from, which calibrate the uncertainty; they are labelled, too,
            unless said to be `labelled`. None: a tenth of the labels of every round is set aside.
        labels: of `mlplugins label`.
        model, training: as in `train`.
        warm: share of the epochs for which the models of a round are trained, which then begin with those of
            the round before; None: all rounds begin anew, as the first and the last models always do.
        control: also train on as many labels of frames chosen at random.
    """

    start: StartSection
    test: str | list[str] | TestSection | None = None
    labels: dict[str, Any]
    model: dict[str, Any]
    training: dict[str, Any] = {}
    warm: Annotated[float, Field(gt=0, le=1)] | None = None
    uncertainty: UncertaintySection = UncertaintySection()
    explore: ExploreSection
    select: SelectSection = SelectSection()
    until: UntilSection
    control: Literal["random"] | None = None
    seed: Seed = 0

    @model_validator(mode="after")
    def _consistent(self) -> LearnConfig:
        if self.explore.stop_above <= self.until.expected_error:
            raise ValueError(
                f"'explore.stop_above' ({self.explore.stop_above:g}) must be larger than "
                f"'until.expected_error' ({self.until.expected_error:g} eV/Å): no frame would be a candidate"
            )
        if "retries" not in self.labels and "kind" not in self.labels:
            raise ValueError("'labels': missing key 'kind'")
        return self

    @property
    def test_section(self) -> TestSection | None:
        """The frames of the test, with what is said of their labels."""
        given = self.test
        return given if given is None or isinstance(given, TestSection) else TestSection(frames=given)

    @property
    def has_auxiliary(self) -> bool:
        """Whether the second model is there to differ from the first."""
        return self.uncertainty.method == "auxiliary"

    def dynamics(self, structure: str, temperature: float, seed: int, steps: int) -> dict[str, Any]:
        """Configuration of one run, without its model."""
        rest = {k: v for k, v in self.explore.model_dump().items() if k not in OURS}
        rest |= {"equilibration": {"steps": 0}, "velocities": "thermal", **(self.explore.model_extra or {})}
        rest |= {"structure": structure, "temperatures": [temperature], "seeds": [seed], "steps": steps}
        return rest


def load(source: Path | str | Mapping[str, Any]) -> LearnConfig:
    """Read and check a configuration; paths in a YAML file are relative to it.

    Raises:
        BadInput: unknown or ill-typed keys of any section, also of those of other commands.
    """
    content, where = read(source, EXPECTED)
    base = Path(source).absolute().parent if isinstance(source, str | Path) else Path.cwd()
    config = validated(LearnConfig, content, where)
    labels = settings_of(config.labels, f"{where}: labels").located(base)
    if labels.store is not None:
        raise BadInput(f"{where}: 'labels.store': the labels are in the folder of the loop; leave it out")
    labels.require()
    update = {
        "start": _located(config.start, base),
        "test": _located(config.test, base),
        "labels": {**config.labels, **{k: getattr(labels, k) for k in (*labels.FILES, *_paths(labels))}},
        "explore": config.explore.model_copy(
            update={"structures": [_structure(item, base) for item in config.explore.structures]}
        ),
    }
    config = config.model_copy(update=update)
    for structure in config.explore.structures:
        read_structure(structure)
    for key in ("structure", "model", "seeds"):
        if key in (config.explore.model_extra or {}):
            raise BadInput(f"{where}: 'explore.{key}': the loop sets it; leave it out")
    first = config.dynamics(
        config.explore.structures[0], config.explore.temperatures[0], 1, config.explore.steps
    )
    simulation.parse({**first, "model": "model.pt"}, f"{where}: explore")
    training.parse(train_content(config, Path("train.extxyz"), 0.2, 0), where)
    _require_method(config.uncertainty.method, str(config.model.get("family")), where)
    _require_warm(config, where)
    return config


def _located(given: Any, base: Path) -> Any:
    """Frames by paths that hold anywhere."""
    if isinstance(given, StartSection):
        return given.model_copy(update={"frames": training.located(given.frames, base)})
    return given and training.located(given, base)


def _require_warm(config: LearnConfig, where: str) -> None:
    """Refuse to begin with weights that have no beginning."""
    if config.warm is None:
        return
    family = str(config.model.get("family"))
    if training.solver_of(family) is not None:
        raise BadInput(f"{where}: 'warm': '{family}' is solved in closed form, with no weights to begin with")
    if config.training.get("stages"):
        raise BadInput(
            f"{where}: 'warm': the stages of 'training' are those of a training from the start; leave one out"
        )


def _require_method(method: str, family: str, where: str) -> None:
    """Refuse an uncertainty that models of the family do not have, before labels are paid for."""
    model = models.family(family).Model
    possible = {
        "committee": True,
        "gp": issubclass(model, PredictsVariance) and training.solver_of(family) is not None,
        "llpr": issubclass(model, HasLastLayer),
        "auxiliary": training.solver_of(family) is None,
    }
    if not possible[method]:
        having = " or ".join(f"'{name}'" for name, has in possible.items() if has)
        raise BadInput(f"{where}: 'uncertainty.method': '{family}' has no '{method}', expected {having}")


def _paths(labels: Any) -> list[str]:
    return ["pseudo_dir"] if hasattr(labels, "pseudo_dir") else []


def _structure(name: str, base: Path) -> str:
    file, at, index = name.rpartition("@")
    return str(base / file) + at + index if at else str(base / name)


def train_content(config: LearnConfig, train: Path, validation: Path | float, seed: int) -> dict[str, Any]:
    """Configuration of one training."""
    given = validation if isinstance(validation, float) else str(validation)
    content: dict[str, Any] = {"data": {"train": str(train), "validation": given}, "model": config.model}
    more = dict(config.training)
    solver = training.solver_of(str(config.model.get("family")))
    fields = training.solver_module(solver).Settings.model_fields if solver else {}
    if not isinstance(validation, float) and "refit" in fields:
        more.setdefault("refit", False)  # or all members of a committee would learn from the same frames
    return {**content, "training": more, "seed": config.seed + seed}


def auxiliary_content(content: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration of a training that learns from energies alone."""
    loss = {**content["training"].get("loss", {}), "forces": 0.0, "stress": 0.0}
    return {**content, "training": {**content["training"], "loss": loss}}


def warm_content(config: LearnConfig, content: Mapping[str, Any], before: Path) -> dict[str, Any]:
    """Configuration of one training, as a fine-tuning of what the same training gave in the round before."""
    rest = {key: value for key, value in content.items() if key != "model"}
    given = training.TrainingSection(**content["training"])
    epochs = max(round((config.warm or 1.0) * given.epochs), 1)
    more = {**content["training"], "epochs": epochs, "lr": given.lr}  # else the one of fine-tuning
    begun = {"base": {"checkpoint": str(before)}, "finetune": {"strategy": "full"}}
    return {**rest, **begun, "training": more}


def keep(config: LearnConfig, folder: Path) -> None:
    """Record the configuration in a new folder; refuse another one in a folder that has one.

    Raises:
        BadInput: naming what differs.
    """
    path = folder / RECORD
    now = files.plain(config.model_dump(mode="json"))
    if path.is_file():
        before = read_record(path) or now
        with contextlib.suppress(ValueError):  # keys that were not there yet have their defaults
            before = files.plain(LearnConfig.model_validate(before).model_dump(mode="json"))
        free = (*FREE, *FREE_OF_LABELS)
        differences = [text for key, text in _differences(before, now) if not key.startswith(free)]
        if differences:
            raise BadInput(
                f"'{folder}' was begun with another configuration: {'; '.join(differences)}. Put the old "
                f"values back, or choose another folder (-o); {', '.join(FREE[:3])} and how labels are "
                "computed may change"
            )
    elif (folder / "round_00").is_dir():
        raise BadInput(f"'{path}' is missing: {AGAIN}")
    elif folder.is_dir() and any(path.name != "lock" for path in folder.iterdir()):
        raise BadInput(f"'{folder}' is not empty and holds no learning loop; choose another folder (-o)")
    files.write_json(path, now)


def _differences(before: Any, now: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key in {**before, **now}:
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key}", f"'{prefix}{key}' was {old!r}, is {new!r}"
