"""The fine-tuning configuration: that of `train`, with the base model and a strategy in place of a family."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mlplugins import config
from mlplugins.config import Count, Positive, Section, Weight, validated
from mlplugins.errors import BadInput, nearest
from mlplugins.training.config import RunConfiguration, hyperparameters, located
from mlplugins.training.sections import KeySection, ModelSection

LEARNING_RATES = {
    "full": 1e-3,
    "heads": 5e-3,
    "freeze": 1e-3,
    "lora": 5e-3,
    "replay": 1e-3,
    "delta": 1e-2,
    "distill": 1e-2,
}
"""Learning rate of every strategy where the configuration names none."""

EPOCHS = 50
"""Epochs where the configuration names none."""

OWN_MODEL = ("delta", "distill")
"""Strategies that train a new model, described by the section `model`."""


class BaseSection(Section):
    """The model to start from.

    Attributes:
        checkpoint: `checkpoint.ckpt` or `model.pt` of this package, the folder of a run with one of them, or
            a foreign checkpoint.
        head: of a foreign model with several, the one to start from.
        elements: of a foreign model, what is kept: `data` (those of all data named here), `all`, or symbols.
        data: labelled frames on which forgetting is measured, at the base's level of theory; without it,
            rattled copies of the training frames, labelled by the base.
        keys: names of the labels in `data`.
    """

    checkpoint: str
    head: str | None = None
    elements: Literal["data", "all"] | list[str] = "data"
    data: str | list[str] | None = None
    keys: KeySection = KeySection()


class NoOptions(Section):
    """Strategies `full`, `heads`, `delta`."""


class Distill(Section):
    """Strategy `distill`; `dynamics`: keys of `mlplugins simulate` for MD with the base, whose frames are
    trained on."""

    dynamics: dict[str, Any] | None = None


class Freeze(Section):
    """Strategy `freeze:N`; `layers` = N."""

    layers: Annotated[int, Field(ge=0)]


class Lora(Section):
    """Strategy `lora`: rank r, and α of the factor α/r (default: the rank)."""

    rank: Count = 4
    alpha: Positive | None = None


class Replay(Section):
    """Strategy `replay`.

    Attributes:
        data: labelled frames of what the base was trained on, at its level of theory, or
        structures: frames that the base itself labels.
        keys: names of the labels in `data`.
        weight: factor of these frames in the loss.
    """

    data: str | list[str] | None = None
    structures: str | list[str] | None = None
    keys: KeySection = KeySection()
    weight: Weight = 1.0


OPTIONS: dict[str, type[Section]] = {
    "full": NoOptions,
    "heads": NoOptions,
    "freeze": Freeze,
    "lora": Lora,
    "replay": Replay,
    "delta": NoOptions,
    "distill": Distill,
}
"""The strategies with their options."""

SPELLINGS = [f"{name}:N" if name == "freeze" else name for name in OPTIONS]


class FinetuneSection(BaseModel):
    """The strategy; all other keys are its options."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    strategy: str


class FinetuneConfiguration(RunConfiguration):
    """The whole configuration of a fine-tuning run; `model` is the new model of `delta` and `distill`.

    >>> content = {"data": {"train": "md.extxyz"}, "base": {"checkpoint": "base.ckpt"}}
    >>> configuration = parse({**content, "finetune": {"strategy": "freeze:2"}}, "config.yaml")
    >>> configuration.strategy, configuration.options.layers, configuration.training.lr
    ('freeze', 2, 0.001)
    """

    base: BaseSection
    finetune: FinetuneSection
    model: ModelSection | None = None

    @property
    def strategy(self) -> str:
        """Name of the strategy."""
        return self.finetune.strategy.partition(":")[0]

    @property
    def options(self) -> Any:
        """Options of the strategy, one of `OPTIONS`."""
        return _options(self.finetune, "finetune")


def load(source: Path | str | Mapping[str, Any] | FinetuneConfiguration) -> FinetuneConfiguration:
    """Read and validate a configuration; files that a YAML file names are sought beside it, then where the
    command runs.

    Args:
        source: the YAML file, its content, or the object that `parse` makes of it.

    Raises:
        BadInput: not YAML, a key that is unknown, missing or ill-typed, an unknown strategy, or an option of
            another one.
    """
    if isinstance(source, FinetuneConfiguration):
        source = source.model_dump(exclude_unset=True)
    configuration = parse(*config.read(source, "'data', 'base' and 'finetune'"))
    if not isinstance(source, str | Path):
        return configuration
    folder = Path(source).parent
    sections = {
        "data": ("train", "validation", "test"),
        "base": ("checkpoint", "data"),
        "finetune": ("data", "structures"),
    }
    update = {}
    for name, keys in sections.items():
        section = getattr(configuration, name)
        found: dict[str, Any] = {
            key: located(value, folder)
            for key in keys
            if isinstance(value := getattr(section, key, None), str | list)
        }
        dynamics = getattr(section, "dynamics", None)
        if isinstance(dynamics, dict) and isinstance(dynamics.get("structure"), str):
            found["dynamics"] = {**dynamics, "structure": located(dynamics["structure"], folder)}
        update[name] = section.model_copy(update=found)
    return configuration.model_copy(update=update)


def parse(content: Any, source: str) -> FinetuneConfiguration:
    """Validate a configuration that was read from `source` (a name for the messages)."""
    if not isinstance(content, dict):
        raise BadInput(
            f"{source}: expected a mapping with 'data', 'base' and 'finetune', got {type(content).__name__}"
        )
    configuration = validated(FinetuneConfiguration, _with_defaults(content), source)
    _options(configuration.finetune, f"{source}: finetune")
    _check_model(configuration, source)
    if configuration.data.elements is not None:
        raise BadInput(f"{source}: data.elements: the base has the elements; say base.elements")
    if configuration.strategy == "distill" and configuration.subtracted:
        raise BadInput(
            f"{source}: add, data.subtract: 'distill' learns what the base predicts, no other labels: leave "
            "them out, or add the term to the finished model (`mlplugins convert`)"
        )
    if configuration.energies and configuration.strategy in (*OWN_MODEL, "lora"):
        raise BadInput(
            f"{source}: energies: '{configuration.strategy}' trains one energy: choose 'heads', 'freeze:N', "
            "'full' or 'replay'"
        )
    if configuration.data.prior is not None:
        raise BadInput(
            f"{source}: data.prior: a base gives whole energies, not differences: leave it out, or train anew"
        )
    return configuration


def _with_defaults(content: dict[str, Any]) -> dict[str, Any]:
    """Epochs and learning rate where none are given."""
    section, training = content.get("finetune"), content.get("training") or {}
    strategy = section.get("strategy") if isinstance(section, dict) else None
    if not isinstance(training, dict) or not isinstance(strategy, str):
        return content
    rate = LEARNING_RATES.get(strategy.partition(":")[0])
    defaults: dict[str, Any] = {} if rate is None else {"lr": rate}
    if not training.get("stages"):  # which have epochs of their own
        defaults["epochs"] = EPOCHS
    return {**content, "training": {**defaults, **training}}


def _options(section: FinetuneSection, where: str) -> Any:
    name, colon, number = section.strategy.partition(":")
    if name not in OPTIONS or bool(colon) != (name == "freeze"):
        raise BadInput(f"{where}: unknown strategy '{section.strategy}': {nearest(name, SPELLINGS)}")
    given = dict(section.model_extra or {})
    options = OPTIONS[name]
    for key in given:
        if key in options.model_fields and key != "layers":
            continue
        owners = [other for other, cls in OPTIONS.items() if key in cls.model_fields and key != "layers"]
        if owners:
            raise BadInput(f"{where}: '{key}' is an option of '{', '.join(owners)}', not of '{name}'")
        valid = ["strategy", *options.model_fields] if name != "freeze" else ["strategy"]
        raise BadInput(f"{where}: unknown key '{key}': {nearest(key, valid)}")
    if name == "freeze":
        if not (number.isascii() and number.isdigit() and len(number) < 10):
            raise BadInput(f"{where}: strategy 'freeze:N' needs a number of layers, got '{section.strategy}'")
        given["layers"] = int(number)
    found: Any = validated(options, given, where)
    if isinstance(found, Replay) and (found.data is None) == (found.structures is None):
        raise BadInput(
            f"{where}: replay needs either 'data' (labelled frames of the base's data) or 'structures' "
            "(frames that the base labels)"
        )
    return found


def _check_model(configuration: FinetuneConfiguration, source: str) -> None:
    model, strategy = configuration.model, configuration.strategy
    if strategy in OWN_MODEL:
        if model is None:
            raise BadInput(f"{source}: model: '{strategy}' trains a new model: give its family")
        hyperparameters(model.family, model.model_extra or {}, f"{source}: model")
    elif model is not None:
        raise BadInput(
            f"{source}: model: '{strategy}' trains the base's model; only {' and '.join(OWN_MODEL)} take one"
        )
