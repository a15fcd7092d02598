"""Sections of configurations that say what is learned, and from which files."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, create_model, field_validator

from mlplugins.checkpoints import added
from mlplugins.checkpoints.added import Term
from mlplugins.config import Section, Weight
from mlplugins.quantities import QUANTITIES
from mlplugins.structures.dataset import Keys

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


Sources = str | list[str]
ByHead = dict[str, Sources]
"""Sources of every energy, by its name."""


class DataSection(Section):
    """The data to learn from.

    Attributes:
        train: a file, a glob, `file@slice`, or a list of them; of several `energies` also a mapping of their
            names to these.
        validation: fraction of the training frames in [0, 0.5], or files as of `train`.
        test: file of frames that nothing is decided with; its errors go to metrics.json.
        keys: names of the labels.
        prior: labels of a cheaper method in the same files: their difference to the labels is learned
            (Δ-learning), and whoever runs the model adds that method.
        subtract: terms whose energies, forces and stress are taken off the labels; the model is without them.
        elements: symbols in the order of the species index; those of the training data if absent.
        baseline: `fit` (least squares), `isolated` (the energies of the isolated atoms among the training
            frames), or the energy of every element, eV per atom; of several `energies` one such mapping each.
        weights: factor in the loss of frames by their `config_type`, 1 if absent.
        mixed_pbc: allow periodic and non-periodic frames in one set.
    """

    train: Sources | ByHead
    validation: float | Sources | ByHead = 0.1
    test: Sources | ByHead | None = None
    keys: KeySection = KeySection()
    prior: PriorSection | None = None
    subtract: TermsSection | None = None
    elements: list[str] | None = None
    baseline: Literal["fit", "isolated"] | dict[str, float] | dict[str, dict[str, float]] = "fit"
    weights: dict[str, Weight] = {}
    mixed_pbc: bool = False

    @field_validator("validation")
    @classmethod
    def _fraction(cls, value: float | Sources | ByHead) -> float | Sources | ByHead:
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


class EnergySection(BaseModel):
    """One of several energies; all other keys are hyper-parameters of its readout (`mlplugins.heads.energy`).

    Attributes:
        keys: names of its labels, where frames hold those of several energies.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    keys: KeySection | None = None
