"""The section `training` of gradient training: optimiser, loss, schedule, and stages in which they differ."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, create_model, field_validator, model_validator

from mlplugins.config import Count, Positive, Section, Weight
from mlplugins.quantities import QUANTITIES
from mlplugins.training import loggers

Index = Annotated[int, Field(ge=0)]
_weights: dict[str, Any] = {name: (Weight, quantity.loss) for name, quantity in QUANTITIES.items()}
_changes: dict[str, Any] = {name: (Weight | None, None) for name in QUANTITIES}
_Weights: Any = create_model("_Weights", __base__=Section, **_weights)
_Changes: Any = create_model("_Changes", __base__=Section, **_changes)


class LossSection(_Weights):
    """Weights of the loss, of every quantity in the table; those of heads multiply the mean square error over
    the mean square of the labels.

    Attributes:
        energy: of the mean square error of the energy per atom, (eV/atom)².
        forces: of the mean square error of the force components, (eV/Å)².
        stress: of the mean square error of the virial per atom V σ/N, (eV/atom)².
        huber: from this error on (same units) the loss grows linearly; None = squares throughout.
    """

    huber: Positive | None = None

    def weight(self, name: str) -> float:
        """Weight of a quantity."""
        return float(getattr(self, name))

    @property
    def learned(self) -> list[str]:
        """Quantities whose weight is not zero."""
        return [name for name in QUANTITIES if self.weight(name) > 0]


class ScheduleSection(Section):
    """Learning rate over time, as a factor of `lr`.

    Attributes:
        name: `cosine` (to `final` at the last step), `exponential` (likewise), `plateau` (times `factor`
            after `patience` epochs without a better validation loss, not below `final`), `constant`.
        warmup_steps: linear rise over the first steps.
        final: factor at the end.
    """

    name: Literal["cosine", "exponential", "plateau", "constant"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    final: Annotated[float, Field(gt=0, le=1)] = 0.01
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    patience: Count = 20


class StageLoss(_Changes):
    """Weights of the loss in a stage: those that differ from `training.loss`, as there."""

    huber: Positive | None = None

    def over(self, common: LossSection, heads: list[str] | None) -> LossSection:
        """All weights: these, else `common`; zero for what only heads predict that are not among `heads`."""
        values = {k: v for k in self.model_fields_set if (v := getattr(self, k)) is not None or k == "huber"}
        for name, quantity in QUANTITIES.items():
            head = quantity.derivative.of if quantity.derivative else name
            if heads is not None and QUANTITIES[head].head is not None and head not in heads:
                values[name] = 0.0
        return common.model_copy(update=values)


class StageSection(Section):
    """A part of the training; what is left out is as in `training`.

    Attributes:
        name: in log.csv and messages.
        epochs: of this stage.
        lr, batch_size, schedule, early_stopping: as in `training`, for this stage: every stage runs through
            a schedule, and `early_stopping` ends the stage.
        loss: weights that differ.
        heads: those that learn; the others stay as they are. None: all whose weight is not zero.
    """

    name: Annotated[str, Field(min_length=1, max_length=40)]
    epochs: Count
    lr: Positive | None = None
    batch_size: Count | None = None
    loss: StageLoss = StageLoss()
    heads: list[str] | None = None
    schedule: ScheduleSection | None = None
    early_stopping: Count | None = None


class TrainingSection(Section):
    """Gradient training.

    Attributes:
        epochs: passes over the training frames; of all stages together, if there are any.
        stages: parts of the training with settings of their own. Each begins with the best averaged weights
            of the one before, and with a fresh optimiser, average and schedule.
        batch_size: structures per step and device.
        lr: learning rate.
        loss: weights of the loss.
        optimizer: `adam` (AMSGrad) or `adamw`.
        weight_decay: decoupled, adamw only.
        schedule: learning rate over time.
        ema: decay of the moving average of the weights, which is what is validated and exported; 0 = off.
        gradient_clip: largest norm of the gradient; None = no clipping.
        early_stopping: stop after this many epochs without a better validation loss; None = never.
        validate_every: epochs between validations.
        max_minutes: stop after this wall time, all sessions together; the schedule then ends with it.
        dtype: precision of the training.
        checkpoint_seconds: time between checkpoints.
        loggers: where the errors of every epoch go besides log.csv, by Lightning's loggers.
        accelerator, num_nodes: as in Lightning.
        devices: how many (-1: all), a list of their numbers, or `auto`.
    """

    epochs: Count = 200
    stages: Annotated[list[StageSection], Field(min_length=1)] | None = None
    batch_size: Count = 5
    lr: Positive = 0.01
    loss: LossSection = LossSection()
    optimizer: Literal["adam", "adamw"] = "adam"
    weight_decay: Weight = 0.0
    schedule: ScheduleSection = ScheduleSection()
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.99
    gradient_clip: Positive | None = 10.0
    early_stopping: Count | None = None
    validate_every: Count = 1
    max_minutes: Positive | None = None
    dtype: Literal["float32", "float64"] = "float32"
    checkpoint_seconds: Weight = 30.0
    loggers: list[Literal["csv", "tensorboard", "wandb"]] = []
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: (
        Literal["auto", -1]
        | Count
        | Annotated[list[Index], Field(min_length=1)]
        | Annotated[str, Field(pattern=r"^\d+(,\d+)*$")]
    ) = "auto"
    num_nodes: Count = 1

    @field_validator("loggers")
    @classmethod
    def _installed(cls, value: list[str]) -> list[str]:
        missing = loggers.missing(value)
        if missing is not None:
            raise ValueError(missing)
        return value

    @model_validator(mode="before")
    @classmethod
    def _total(cls, content: Any) -> Any:
        """Epochs of all stages together, where the user gives none."""
        stages = content.get("stages") if isinstance(content, dict) else None
        if not isinstance(stages, list) or "epochs" in content:
            return content
        counts = [s.get("epochs") if isinstance(s, dict) else getattr(s, "epochs", None) for s in stages]
        whole = [int(n) for n in counts if isinstance(n, int | float) and n >= 1]
        return {**content, "epochs": sum(whole)} if whole and len(whole) == len(counts) else content

    @model_validator(mode="after")
    def _consistent(self) -> TrainingSection:
        if self.stages is None:
            return self
        total = sum(stage.epochs for stage in self.stages)
        if self.epochs != total:
            raise ValueError(
                f"training.epochs: the stages have {total} together, got {self.epochs}: leave this key out"
            )
        names = self.names
        if len({*names}) < len(names):
            raise ValueError(f"training.stages: expected a name of its own for each, got {', '.join(names)}")
        if self.max_minutes is not None:
            raise ValueError(
                "training.max_minutes: expected none beside stages, among which it cannot be divided: give "
                "their epochs, or early_stopping"
            )
        return self

    @property
    def names(self) -> list[str]:
        """Names of the stages."""
        return [stage.name for stage in self.stages or ()]

    def each(self) -> list[TrainingSection]:
        """Settings of every stage, in order; of a training without stages, its own.

        >>> section = TrainingSection(lr=0.01, stages=[StageSection(name="a", epochs=3, lr=0.1)])
        >>> section.epochs, section.each()[0].lr, section.each()[0].batch_size
        (3, 0.1, 5)
        """
        if self.stages is None:
            return [self]
        found = []
        for stage in self.stages:
            own = {
                name: value
                for name in ("epochs", "lr", "batch_size", "schedule", "early_stopping")
                if (value := getattr(stage, name)) is not None
            }
            loss = stage.loss.over(self.loss, stage.heads)
            found.append(self.model_copy(update={**own, "loss": loss, "stages": None}))
        return found
