"""The training configuration: YAML validated by pydantic; a wrong key is named with its nearest valid one."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import create_model, field_validator, model_validator

from mlplugins import config, files, heads, models, registry, synonyms
from mlplugins.checkpoints.added import Term
from mlplugins.config import Knots, Section, Seed, validated
from mlplugins.errors import BadInput, nearest
from mlplugins.quantities import ENERGY, QUANTITIES
from mlplugins.structures.components import checked_order
from mlplugins.structures.dataset import Keys
from mlplugins.structures.labelled import file_unit
from mlplugins.training.gradient_config import TrainingSection
from mlplugins.training.sections import (
    ByHead,
    DataSection,
    EnergySection,
    HeadSection,
    ModelSection,
    Sources,
    TermsSection,
)

PLAIN_NAME = re.compile(r"[A-Za-z0-9_+-]+")


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
        energies: names of several energies (levels of theory, electronic states), a list or a mapping; the
            first is the default.
        add: terms that the written model holds beside what is learned. Labels are of the whole, so that the
            rest is learned from labels without these terms.
    """

    data: DataSection
    energies: dict[str, EnergySection] = {}
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
        self._require_one_flow()
        for name, section in self.heads.items():
            values = section.model_extra or {}
            own = config.hyperparameters(heads.settings(name, values), values, f"heads.{name}")
            found[name] = asdict(own)
        self._require_own_energies()
        for name in [*self.energies][1:]:
            values = self.energies[name].model_extra or {}
            own = config.hyperparameters(heads.settings(ENERGY + name, values), values, f"energies.{name}")
            found[ENERGY + name] = asdict(own)
        return found

    @property
    def coupled(self) -> bool:
        """Whether the energies are eigenvalues of one matrix."""
        return any((section.model_extra or {}).get("coupled") for section in self.energies.values())

    def _require_own_energies(self) -> None:
        """Refuse the baseline of an energy that there is not, and sizes of the readout of the first."""
        baseline = self.data.baseline
        nested = isinstance(baseline, dict) and any(isinstance(value, dict) for value in baseline.values())
        unknown = [name for name in baseline if name not in self.energies] if nested else []
        if unknown and self.energies:
            raise BadInput(f"data.baseline: {unknown[0]}: expected one of {', '.join(self.energies)}")
        of_each = {str(value) for value in baseline.values()} if isinstance(baseline, dict) else set()
        if nested and self.coupled and len(of_each) > 1:
            raise BadInput(
                "data.baseline: coupled energies have one zero: expected the same energies of the elements "
                "for " + ", ".join(baseline)
            )
        for name in [*self.energies][:1]:
            for key in self.energies[name].model_extra or {}:
                raise BadInput(
                    f"energies: {name}: {key}: the first energy has the readout of the family, whose sizes "
                    "stand in `model`: leave it out, or give it to one of the others"
                )

    def _require_one_flow(self) -> None:
        """Refuse sizes of a flow for the dipole that are not those of the charges, whose flow it takes."""
        charges, dipole = (self.heads.get(name) for name in ("charges", "dipole"))
        if charges is None or dipole is None or (dipole.model_extra or {}).get("channels") == 0:
            return
        own = asdict(heads.settings("charges")()) | (charges.model_extra or {})
        for key in ("channels", "num_basis"):
            value = (dipole.model_extra or {}).get(key, own[key])
            if value != own[key]:
                raise BadInput(
                    f"heads: dipole: {key}: {value}, but the charges, whose flow it takes, have {own[key]}: "
                    "give it to `charges` alone"
                )

    @property
    def energy_name(self) -> str | None:
        """Name of the first of several energies."""
        return next(iter(self.energies), None)

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
        if len(self.energies) > 1 and "d3" in [term["family"] for term in [*alone, *self.added]]:
            raise BadInput(
                "add, data.subtract: d3 is the dispersion of one functional, and there are several energies "
                f"({', '.join(self.energies)}), which would all get it: leave it out"
            )
        return [*alone, *self.added]

    @property
    def needs_forces(self) -> bool:
        """Whether every frame must have forces."""
        return any("forces" in stage.loss.learned for stage in self.training.each())

    @model_validator(mode="before")
    @classmethod
    def _named_energies(cls, content: Any) -> Any:
        """`energies` may be a list, or be left out where `data.train` names them."""
        energies, data = content.get("energies"), content.get("data")
        if energies is None and isinstance(data, dict) and isinstance(data.get("train"), dict):
            energies = list(data["train"])
        if not isinstance(energies, list) or not all(isinstance(name, str) for name in energies):
            return content
        if len(set(energies)) < len(energies):
            raise ValueError(f"energies: expected different names, got {', '.join(energies)}")
        return {**content, "energies": {name: {} for name in energies}}

    @field_validator("energies")
    @classmethod
    def _plain_names(cls, value: dict[str, EnergySection]) -> dict[str, EnergySection]:
        for name in value:
            if not PLAIN_NAME.fullmatch(name):
                raise ValueError(f"expected names of letters, digits, _, + and -, got '{name}'")
        return value

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
        if "energy_name" in given:
            raise BadInput("model.energy_name: energies are a section of their own: energies: [pbe, scan]")
        own = models.family(family).Hyperparameters
        if "heads" in given:
            raise BadInput("model.heads: heads are a section of their own: heads: {NAME: {unit: …, key: …}}")
        if self.heads and "heads" not in {field.name for field in fields(own)}:
            raise BadInput(f"heads: '{family}' has no features for heads: choose nequip or mace")
        if self.energies and "energy_name" not in {field.name for field in fields(own)}:
            raise BadInput(f"energies: '{family}' has one energy: choose nequip or mace")
        if self.heads or self.energies:
            given["heads"] = self.settings_of_heads or None
        if self.energies:
            given["energy_name"] = self.energy_name
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
        if isinstance(value := getattr(data, name), str | list | dict)
    }
    return configuration.model_copy(update={"data": data.model_copy(update=found)})


def parse(content: Any, source: str) -> Configuration:
    """Validate a configuration that was read from `source` (a name for the messages)."""
    if not isinstance(content, dict):
        raise BadInput(f"{source}: expected a mapping with 'data' and 'model', got {type(content).__name__}")
    configuration = validated(_configuration_class(content.get("model")), content, source)
    hyperparameters(configuration.model.family, configuration.model.model_extra or {}, f"{source}: model")
    if configuration.heads or configuration.energies:
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


def located(value: Sources | ByHead, folder: Path) -> Sources | ByHead:
    """Data files that lie in `folder`, else as they are named."""
    if isinstance(value, dict):
        by_head: Any = {head: located(item, folder) for head, item in value.items()}
        return by_head
    if isinstance(value, list):
        return [str(located(item, folder)) for item in value]
    name = value.partition("@")[0]
    if files.exists(folder / name):
        return str(folder / value)
    # a folder may have brackets in its own name
    return str(Path(glob.escape(str(folder))) / value) if name and glob.glob(name, root_dir=folder) else value
