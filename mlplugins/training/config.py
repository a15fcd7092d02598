"""The training configuration: YAML validated by pydantic; a wrong key is named with its nearest valid one."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from mlplugins import models, registry
from mlplugins.errors import BadInput, nearest
from mlplugins.structures.dataset import Keys

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of the configuration: no unknown keys, no silent conversions, never changed afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class KeySection(Section):
    """Names of the labels in the data files; see `mlplugins.structures.dataset.Keys`.

    `forces: null` learns from energies alone.
    """

    energy: str = "energy"
    forces: str | None = "forces"
    stress: str | None = "stress"
    virial: str | None = None

    @property
    def names(self) -> Keys:
        """The keys, and which of them the user chose."""
        return Keys(**self.model_dump(), named=frozenset(self.model_fields_set))


class PriorSection(Section):
    """Names of the labels that are subtracted: energy, and forces if they are learned from."""

    energy: str
    forces: str | None = None


class DataSection(Section):
    """What to learn from.

    Attributes:
        train: a file, a glob, `file@slice`, or a list of them.
        validation: fraction of the training frames in [0, 0.5], or a file.
        test: file of frames that nothing is decided with; its errors go to metrics.json.
        keys: names of the labels.
        prior: labels of a cheaper method in the same files: their difference to the labels is learned
            (Δ-learning), and whoever runs the model adds that method.
        elements: symbols in the order of the species index; those of the training data if absent.
        baseline: `fit` (least squares) or the energy of every element, eV per atom.
        mixed_pbc: allow periodic and non-periodic frames in one set.
    """

    train: str | list[str]
    validation: float | str | list[str] = 0.1
    test: str | list[str] | None = None
    keys: KeySection = KeySection()
    prior: PriorSection | None = None
    elements: list[str] | None = None
    baseline: Literal["fit"] | dict[str, float] = "fit"
    mixed_pbc: bool = False

    @field_validator("validation")
    @classmethod
    def _fraction(cls, value: float | str | list[str]) -> float | str | list[str]:
        if isinstance(value, float) and not 0.0 <= value <= 0.5:
            raise ValueError("expected a fraction between 0 and 0.5, or a file")
        return value


class ModelSection(BaseModel):
    """The family; all other keys are its hyper-parameters, validated against the family itself."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    family: str


class LossSection(Section):
    """Weights of the loss.

    Attributes:
        energy: of the mean square error of the energy per atom, (eV/atom)².
        forces: of the mean square error of the force components, (eV/Å)².
        stress: of the mean square error of the virial per atom V σ/N, (eV/atom)².
        huber: from this error on (same units) the loss grows linearly; None = squares throughout.
    """

    energy: Weight = 1.0
    forces: Weight = 100.0
    stress: Weight = 1.0
    huber: Positive | None = None


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


class TrainingSection(Section):
    """Gradient training.

    Attributes:
        epochs: passes over the training frames.
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
        accelerator, devices, num_nodes: as in Lightning.
    """

    epochs: Count = 200
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
    accelerator: str = "auto"
    devices: int | str | list[int] = "auto"
    num_nodes: Count = 1


class SolverSection(Section):
    """What the `training` section of every family solved in closed form has; its solver adds the rest.

    Attributes:
        targets: labels that are learned from; None = what the family is defined with.
        dtype: kernel weights cancel over many digits, so there is no choice.
    """

    targets: Literal["energies", "forces", "energies+forces"] | None = None
    dtype: Literal["float64"] = "float64"


class ExportSection(Section):
    """The exported file: `dtype` (None = as trained), `portable` (free of our ops)."""

    dtype: Literal["float32", "float64"] | None = None
    portable: bool = False


class RunConfiguration(Section):
    """What a training and a fine-tuning run have in common."""

    data: DataSection
    training: TrainingSection = TrainingSection()
    export: ExportSection = ExportSection()
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def needs_forces(self) -> bool:
        """Whether every frame must have forces."""
        return self.training.loss.forces > 0

    @model_validator(mode="before")
    @classmethod
    def _energies_alone(cls, content: Any) -> Any:
        """`data.keys.forces: null` takes the forces out of the loss as well."""
        data, training = (content.get(name) or {} for name in ("data", "training"))
        keys = data.get("keys") if isinstance(data, dict) else None
        if not (isinstance(keys, dict) and isinstance(training, dict) and "forces" in keys):
            return content
        if keys["forces"] is not None:
            return content
        return {**content, "training": cls._without_forces(training)}

    @classmethod
    def _without_forces(cls, training: dict[str, Any]) -> dict[str, Any]:
        loss = training.get("loss") or {}
        if not isinstance(loss, dict):
            return training
        if loss.get("forces"):
            return training  # contradicts itself: refused with the first frame
        return {**training, "loss": {**loss, "forces": 0.0}}


class Configuration(RunConfiguration):
    """All of a training run; defaults for everything but `data.train` and `model.family`.

    >>> text = {"data": {"train": "md.extxyz"}, "model": {"family": "nequip", "cutoff": 4.5}}
    >>> parse(text, "config.yaml").hyperparameters.cutoff
    4.5
    """

    model: ModelSection

    @property
    def hyperparameters(self) -> Any:
        """The family's own `Hyperparameters`."""
        return hyperparameters(self.model.family, self.model.model_extra or {}, "model")

    @property
    def solver(self) -> str | None:
        """The file of `mlplugins.training.solvers` that fits the family; None: gradient training."""
        return solver_of(self.model.family)


class ClosedFormConfiguration(Configuration):
    """A configuration whose `training` section is the `Settings` of the family's solver."""

    @property
    def targets(self) -> str:
        """Labels that are learned from: `energies`, `forces` or `energies+forces`."""
        given = getattr(self.training, "targets", None)
        return given or str(models.family(self.model.family).TARGETS)

    @property
    def needs_forces(self) -> bool:
        return self.targets != "energies"

    @classmethod
    def _without_forces(cls, training: dict[str, Any]) -> dict[str, Any]:
        if training.get("targets") is not None:
            return training
        return {**training, "targets": "energies"}


def solver_of(family: str) -> str | None:
    """Name of the solver of a family solved in closed form, else None.

    >>> solver_of("kreg"), solver_of("nequip")
    ('molecular_kernel', None)
    """
    return getattr(models.family(family), "SOLVER", None)


def solver_module(name: str) -> ModuleType:
    """A file of `mlplugins.training.solvers`: `Settings` and `solve`."""
    return registry.load("mlplugins.training.solvers", name, "solver")


def load(path: Path) -> Configuration:
    """Read and validate a configuration file; data files are sought beside it, then where the command runs.

    Raises:
        BadInput: not YAML, or a key that is unknown, missing or ill-typed.
    """
    configuration = parse(read_yaml(path), str(path))
    data = configuration.data
    found = {
        name: located(value, path.parent)
        for name in ("train", "validation", "test")
        if isinstance(value := getattr(data, name), str | list)
    }
    return configuration.model_copy(update={"data": data.model_copy(update=found)})


def parse(content: Any, source: str) -> Configuration:
    """Validate a configuration that was read from `source` (a name for the messages)."""
    if not isinstance(content, dict):
        raise BadInput(f"{source}: expected a mapping with 'data' and 'model', got {type(content).__name__}")
    cls = _configuration_class(content.get("model"))
    try:
        configuration = cls.model_validate(content)
    except ValidationError as error:
        raise BadInput(f"{source}: " + "; ".join(sentences(error, cls))) from error
    hyperparameters(configuration.model.family, configuration.model.model_extra or {}, f"{source}: model")
    return configuration


def _configuration_class(model: Any) -> type[Configuration]:
    """`Configuration`, its `training` section replaced for families solved in closed form."""
    family = model.get("family") if isinstance(model, dict) else None
    if not isinstance(family, str) or family.replace("_", "-") not in models.families():
        return Configuration  # whose validation says what is wrong
    solver = solver_of(family)
    if solver is None:
        return Configuration
    settings = solver_module(solver).Settings
    return create_model(
        "ClosedFormConfiguration", __base__=ClosedFormConfiguration, training=(settings, settings())
    )


def hyperparameters(family: str, values: dict[str, Any], where: str) -> Any:
    """The family's `Hyperparameters` from plain values.

    >>> hyperparameters("nequip", {"cutoff": 4.5}, "c.yaml: model").cutoff
    4.5

    Raises:
        BadInput: an unknown family, an unknown or ill-typed key.
    """
    try:
        cls = models.family(family).Hyperparameters
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from error
    valid = [f.name for f in fields(cls)]
    for name in values:
        if name not in valid:
            raise BadInput(f"{where}: unknown key '{name}': {nearest(name, [*valid, 'family'])}")
    try:
        # JSON mode: strict types, but whole numbers pass as floats and lists as any sequence
        return TypeAdapter(cls).validate_json(json.dumps(values), strict=True)
    except (ValidationError, TypeError) as error:
        reasons = sentences(error, None) if isinstance(error, ValidationError) else [str(error)]
        raise BadInput(f"{where}: " + "; ".join(reasons)) from error


def read_yaml(path: Path) -> Any:
    """Content of a YAML file; numbers such as 1e-3 are numbers, repeated keys are refused."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: not valid YAML: {error}") from error


class _Loader(yaml.SafeLoader):
    """YAML 1.2 floats (1e-3 is a string in YAML 1.1), no repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key.value}' twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_FLOAT = re.compile(r"^[-+]?(\d+\.?\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|\.(inf|nan))$", re.IGNORECASE)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def located(value: str | list[str], folder: Path) -> str | list[str]:
    """Data files that lie in `folder`, else as they are named."""
    if isinstance(value, list):
        return [str(located(item, folder)) for item in value]
    name = value.partition("@")[0]
    beside = folder / name
    return str(folder / value) if beside.exists() or any(folder.glob(name)) else value


def sentences(error: ValidationError, root: type[BaseModel] | None) -> list[str]:
    """One sentence per wrong key."""
    found: dict[str, list[str]] = {}
    for item in error.errors():
        section, path = root, []
        for part in item["loc"]:
            if section is None and root is not None:
                break  # what follows names the members of a union, not keys
            path.append(str(part))
            section = _section(section, str(part))
        name = ".".join(path) or "model"
        found.setdefault(name, []).append(_reason(item, root, path))
    return [f"{name}: {' or '.join(dict.fromkeys(reasons))}" for name, reasons in found.items()]


def _reason(item: Any, root: type[BaseModel] | None, path: list[str]) -> str:
    if item["type"] == "missing":
        return "this key is required"
    if item["type"] == "extra_forbidden":
        section = root
        for part in path[:-1]:
            section = _section(section, part)
        return f"unknown key; {nearest(path[-1], section.model_fields if section else [])}"
    message = item["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return f"{message}, got {item['input']!r}"


def _section(section: type[BaseModel] | None, key: str) -> type[BaseModel] | None:
    """The section that `key` of `section` holds, if it holds one."""
    if section is None or key not in section.model_fields:
        return None
    annotation = section.model_fields[key].annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
