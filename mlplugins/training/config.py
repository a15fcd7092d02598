"""The training configuration: YAML validated by pydantic; a wrong key is named with its nearest valid one."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, create_model, field_validator, model_validator

from mlplugins import config, files, heads, models, registry, synonyms
from mlplugins.checkpoints import added
from mlplugins.checkpoints.added import Term
from mlplugins.config import Knots, Section, Seed, Weight, validated
from mlplugins.errors import BadInput, nearest
from mlplugins.quantities import QUANTITIES
from mlplugins.structures.components import checked_order
from mlplugins.structures.dataset import Keys
from mlplugins.structures.labelled import file_unit
from mlplugins.training.gradient_config import TrainingSection

_keys: dict[str, Any] = {
    label.option: (str | None, label.key)
    for quantity in QUANTITIES.values()
    for label in quantity.labels
    if not quantity.file_units  # their names and units stand in `heads`
}
_Keys: Any = create_model("_Keys", __base__=Section, **_keys)


class KeySection(_Keys):
    """Names of the labels in the data files; see `mlplugins.structures.dataset.Keys`.

    `forces: null` learns from energies alone, `energy: null` what heads predict alone.
    """

    @property
    def names(self) -> Keys:
        """The keys, and which of them the user chose."""
        return Keys(**self.model_dump(), named=frozenset(self.model_fields_set))


class PriorSection(Section):
    """Names of the labels that are subtracted: energy, and forces if they are learned from."""

    energy: str
    forces: str | None = None


class TermsSection(Section):
    """Terms without parameters.

    Attributes:
        zbl: screened nuclear repulsion: true, or where its switching function begins and ends, Å.
        d3: dispersion: functional and damping (`pbe-bj`), or these and the cutoff of the pairs, Å.
    """

    zbl: Literal[True] | list[float] | None = None
    d3: str | list[str | float] | None = None

    @property
    def terms(self) -> list[Term]:
        """As terms of the family `sum`."""
        return added.terms(**{name: value for name, value in self if value is not None})


class DataSection(Section):
    """The data to learn from.

    Attributes:
        train: a file, a glob, `file@slice`, or a list of them.
        validation: fraction of the training frames in [0, 0.5], or a file.
        test: file of frames that nothing is decided with; its errors go to metrics.json.
        keys: names of the labels.
        prior: labels of a cheaper method in the same files: their difference to the labels is learned
            (Δ-learning), and whoever runs the model adds that method.
        subtract: terms whose energies, forces and stress are taken off the labels; the model is without them.
        elements: symbols in the order of the species index; those of the training data if absent.
        baseline: `fit` (least squares), `isolated` (the energies of the isolated atoms among the training
            frames), or the energy of every element, eV per atom.
        weights: factor in the loss of frames by their `config_type`, 1 if absent.
        mixed_pbc: allow periodic and non-periodic frames in one set.
    """

    train: str | list[str]
    validation: float | str | list[str] = 0.1
    test: str | list[str] | None = None
    keys: KeySection = KeySection()
    prior: PriorSection | None = None
    subtract: TermsSection | None = None
    elements: list[str] | None = None
    baseline: Literal["fit", "isolated"] | dict[str, float] = "fit"
    weights: dict[str, Weight] = {}
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


class HeadSection(BaseModel):
    """A head and the labels that it learns from; all other keys are hyper-parameters of the head.

    Attributes:
        unit: of the labels in the data files; never guessed.
        key: their name there; the quantity's own if absent.
        order: of six numbers of a symmetric tensor, e.g. `xx xy xz yy yz zz`; never guessed.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    unit: str | None = None
    key: str | None = None
    order: str | None = None


class SolverSection(Section):
    """Common keys of the `training` section for families solved in closed form; the solver adds the rest.

    Attributes:
        targets: labels that are learned from; None = what the family is defined with.
        dtype: kernel weights cancel over many digits, so there is no choice.
    """

    targets: Literal["energies", "forces", "energies+forces"] | None = None
    dtype: Literal["float64"] = "float64"


class ExportSection(Section):
    """The exported file, and what it says of itself.

    Attributes:
        dtype: precision; None = as trained.
        portable: free of our ops.
        radial_tables: their knots, or `off`; None = as many as are certified, in float32 only.
        authors: of the model.
        licence: under which it may be used, e.g. `CC-BY-4.0`.
        cite: papers to cite for it, e.g. DOIs.
    """

    dtype: Literal["float32", "float64"] | None = None
    portable: bool = False
    radial_tables: Knots = None
    authors: list[str] = []
    licence: str | None = None
    cite: list[str] = []


class RunConfiguration(Section):
    """The common part of a training and a fine-tuning run.

    Attributes:
        heads: what the model predicts beside energy, forces and stress, by the name of the quantity.
        add: terms that the written model holds beside what is learned. Labels are of the whole, so that the
            rest is learned from labels without these terms.
    """

    data: DataSection
    heads: dict[str, HeadSection] = {}
    add: TermsSection | None = None
    training: TrainingSection = TrainingSection()
    export: ExportSection = ExportSection()
    seed: Seed = 0

    @property
    def keys(self) -> Keys:
        """Names of all labels, and which of them the user chose.

        Raises:
            BadInput: a quantity that no head predicts, or a unit that is missing or unknown.
        """
        keys = self.data.keys.names
        names, units, orders = {}, {}, {}
        for name, section in self.heads.items():
            heads.settings(name)  # is there one?
            if QUANTITIES[name].file_units:
                names[name] = section.key or name
                units[name] = file_unit(name, section.unit, f"heads: {name}: unit")
            if section.order is not None:
                if not QUANTITIES[name].symmetric:
                    raise BadInput(f"heads: {name}: order: for symmetric tensors only; leave it out")
                orders[name] = checked_order(section.order, f"heads: {name}: order")
        return replace(keys, named=keys.named | {*names}, units=units, orders=orders, **names)

    @property
    def settings_of_heads(self) -> dict[str, dict[str, Any]]:
        """Hyper-parameters of the heads, by the name of the quantity."""
        found = {}
        for name, section in self.heads.items():
            values = section.model_extra or {}
            own = config.hyperparameters(heads.settings(name, values), values, f"heads.{name}")
            found[name] = asdict(own)
        return found

    @property
    def added(self) -> list[Term]:
        """The terms of `add`."""
        return self.add.terms if self.add else []

    @property
    def subtracted(self) -> list[Term]:
        """Terms that the labels lose before anything is learned.

        Raises:
            BadInput: one that `data.subtract` and `add` both name, which would be taken off twice.
        """
        alone = self.data.subtract.terms if self.data.subtract else []
        twice = {term["family"] for term in alone} & {term["family"] for term in self.added}
        if twice:
            raise BadInput(
                f"data.subtract, add: both name {', '.join(sorted(twice))}; `add` takes it off the labels "
                "as well: leave it out of data.subtract, or out of `add` if the model is to be without it"
            )
        return [*alone, *self.added]

    @property
    def needs_forces(self) -> bool:
        """Whether every frame must have forces."""
        return any("forces" in stage.loss.learned for stage in self.training.each())

    @model_validator(mode="before")
    @classmethod
    def _energies_alone(cls, content: Any) -> Any:
        """`data.keys.forces: null` takes the forces out of the loss as well, `energy: null` all three."""
        data, training = (content.get(name) or {} for name in ("data", "training"))
        keys = data.get("keys") if isinstance(data, dict) else None
        if not (isinstance(keys, dict) and isinstance(training, dict)):
            return content
        if "energy" in keys and keys["energy"] is None:
            keys = {"forces": None, "stress": None, **keys}
            content = {**content, "data": {**data, "keys": keys}}
        if "forces" not in keys:
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
    """The whole configuration of a training run; only `data.train` and `model.family` have no defaults.

    >>> text = {"data": {"train": "md.extxyz"}, "model": {"family": "nequip", "cutoff": 4.5}}
    >>> parse(text, "config.yaml").hyperparameters.cutoff
    4.5
    """

    model: ModelSection

    @property
    def hyperparameters(self) -> Any:
        """The family's own `Hyperparameters`, heads included."""
        family, given = self.model.family, dict(self.model.model_extra or {})
        own = models.family(family).Hyperparameters
        if "heads" in given:
            raise BadInput("model.heads: heads are a section of their own: heads: {NAME: {unit: …, key: …}}")
        if self.heads:
            if "heads" not in {field.name for field in fields(own)}:
                raise BadInput(f"heads: '{family}' has no features for heads: choose nequip or mace")
            given["heads"] = self.settings_of_heads
        return hyperparameters(family, given, "model")

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
        return given or str(models.family(self.model.family).targets)

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
    return models.family(family).solver


def solver_module(name: str) -> ModuleType:
    """A file of `mlplugins.training.solvers`: `Settings` and `solve`."""
    return registry.load("mlplugins.training.solvers", name, "solver")


def load(source: Path | str | Mapping[str, Any] | Configuration) -> Configuration:
    """Read and validate a configuration; data files that a YAML file names are sought beside it, then where
    the command runs.

    Args:
        source: the YAML file, its content, or the object that `parse` makes of it.

    Raises:
        BadInput: not YAML, or a key that is unknown, missing or ill-typed.
    """
    if isinstance(source, Configuration):
        source = source.model_dump(exclude_unset=True)
    configuration = parse(*config.read(source, "'data' and 'model'"))
    if not isinstance(source, str | Path):
        return configuration
    data = configuration.data
    found = {
        name: located(value, Path(source).parent)
        for name in ("train", "validation", "test")
        if isinstance(value := getattr(data, name), str | list)
    }
    return configuration.model_copy(update={"data": data.model_copy(update=found)})


def parse(content: Any, source: str) -> Configuration:
    """Validate a configuration that was read from `source` (a name for the messages)."""
    if not isinstance(content, dict):
        raise BadInput(f"{source}: expected a mapping with 'data' and 'model', got {type(content).__name__}")
    configuration = validated(_configuration_class(content.get("model")), content, source)
    hyperparameters(configuration.model.family, configuration.model.model_extra or {}, f"{source}: model")
    if configuration.heads:
        _ = configuration.keys, configuration.hyperparameters
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
            known_as = synonyms.here(name, valid, ("data", "training"))
            raise BadInput(f"{where}: unknown key '{name}': {nearest(name, [*valid, 'family'], known_as)}")
    return config.hyperparameters(cls, values, where)


def located(value: str | list[str], folder: Path) -> str | list[str]:
    """Data files that lie in `folder`, else as they are named."""
    if isinstance(value, list):
        return [str(located(item, folder)) for item in value]
    name = value.partition("@")[0]
    if files.exists(folder / name):
        return str(folder / value)
    # a folder may have brackets in its own name
    return str(Path(glob.escape(str(folder))) / value) if name and glob.glob(name, root_dir=folder) else value
