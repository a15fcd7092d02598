"""Checkpoints of `mlplugins train` and `finetune`: the best averaged weights, and how they were trained."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor

from mlplugins import models
from mlplugins.checkpoints import _record, added, unpickle
from mlplugins.config import hyperparameters
from mlplugins.errors import BadInput
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.doubts import CLOSEST
from mlplugins.model_file.precision import DTYPES
from mlplugins.models._bounded import like_its_file
from mlplugins.models.base import Potential
from mlplugins.models.composition import Composition
from mlplugins.nn import lora

FORMAT = 1
"""Format that this version writes, the newest that it reads."""

ENTRIES = {
    "family": str,
    "elements": list,
    "baseline": list,
    "hyperparameters": dict,
    "configuration": dict,
    "sha256": dict,
    "versions": dict,
    "state": dict,
}
STATE = {"counters": dict, "best": dict | None, "average": dict | None}


@dataclass(frozen=True, kw_only=True)
class Checkpoint(ModelCard):
    """A model card with its model, as readers of checkpoints give it.

    Attributes:
        potential: the model, in the precision it was trained in.
    """

    potential: Potential

    @property
    def composition(self) -> Composition:
        """The energy references of the model."""
        return Composition(self.elements, self.baseline, len(self.baseline), self.baselines)


def read(path: Path | str) -> Checkpoint:
    """Read `checkpoint.ckpt`; no code in the file is run.

    Raises:
        BadInput: no such file, not a checkpoint of mlplugins, damaged, an entry that is missing or of another
            kind, or of a newer version.
    """
    path = Path(path)
    content = load(path)
    state, counters = content["state"], content["state"]["counters"]
    weights = state["best"] or state["average"]
    with _record.intact(path, "checkpoint of mlplugins"), torch.random.fork_rng(devices=[]):
        family = models.family(content["family"])
        parameters = hyperparameters(family.Hyperparameters, content["hyperparameters"], f"{path}: model")
        with like_its_file(path):
            potential: Potential = family.Model(content["elements"], parameters)
        potential = potential.to(DTYPES[content["configuration"]["training"]["dtype"]])
        try:
            _load(potential, weights, content.get("adapter"))
        except RuntimeError as error:
            raise BadInput(
                f"{path}: the weights do not fit this version's '{content['family']}' "
                f"(written by mlplugins {content['versions'].get('mlplugins')}): "
                f"{' '.join(str(error).split())}"
            ) from error
        card = ModelCard(
            family=content["family"],
            elements=list(content["elements"]),
            baseline=[float(energy) for energy in content["baseline"]],
            details={
                "hyperparameters": content["hyperparameters"],
                "n_parameters": sum(p.numel() for p in potential.parameters()),
                "best_epoch": int(counters["best_epoch"]),
                "data": {name: content[name] for name in ("sha256", CLOSEST) if name in content},
                "configuration": content["configuration"],
                "versions": content["versions"],
                **({"finetune": content["finetune"]} if "finetune" in content else {}),
            },
            references=family.references,
            baselines=_baselines(path, content),
        )
        potential, card = added.add(potential.eval(), card, content.get("added", []))
        return Checkpoint(potential=potential, **vars(card))


def _baselines(path: Path, content: dict[str, Any]) -> dict[str, list[float]]:
    """Those of further energies."""
    found, n = content.get("baselines", {}), len(content["elements"])
    whole = isinstance(found, dict) and all(
        isinstance(name, str) and isinstance(row, list) and len(row) == n and all(map(_is_finite, row))
        for name, row in found.items()
    )
    if not whole:
        raise BadInput(f"{path}: 'baselines': expected {n} energies in eV by name, got {found}")
    return {name: [float(energy) for energy in row] for name, row in found.items()}


def _load(potential: Potential, weights: dict[str, Tensor], adapter: dict[str, Any] | None) -> None:
    """Weights of a model, or of what fine-tuning added to its base."""
    if adapter is None:
        potential.load_state_dict(weights)
    elif adapter["kind"] == "lora":
        lora.attach(potential, adapter["rank"], adapter["alpha"])
        potential.load_state_dict(weights)
        lora.merge(potential)
    else:
        terms = {
            f"terms.{k}.{name}": value
            for k, part in enumerate((adapter["base"], weights))
            for name, value in part.items()
        }
        potential.load_state_dict(terms)


def load(path: Path) -> dict[str, Any]:
    """All entries of a checkpoint, each of its kind.

    Raises:
        BadInput: as `read`.
    """
    content = unpickle.load(path, lambda name: False)
    if not isinstance(content, dict) or not {"format", "family"} <= content.keys():
        raise BadInput(
            f"{path}: not a checkpoint of `mlplugins train`; foreign checkpoints go to `mlplugins convert`"
        )
    _require(path, content, {"format": int})
    if content["format"] > FORMAT:
        raise BadInput(
            f"{path}: checkpoint format {content['format']}, this mlplugins reads up to {FORMAT}; upgrade it"
        )
    _require(path, content, ENTRIES)
    for name in ("configuration", "sha256", "versions", "finetune"):  # goes into the exported file
        try:
            json.dumps(content.get(name))
        except (TypeError, ValueError) as error:
            raise BadInput(f"{path}: '{name}': {error}: not an intact checkpoint of mlplugins") from error
    _require(path, content["configuration"], {"training": dict}, "configuration.")
    _require(path, content["state"], STATE, "state.")
    elements, baseline = content["elements"], content["baseline"]
    if not all(isinstance(e, str) and e in chemical_symbols[1:] and elements.count(e) == 1 for e in elements):
        raise BadInput(f"{path}: 'elements': expected different chemical symbols, got {elements}")
    if len(baseline) != len(elements) or not all(_is_finite(energy) for energy in baseline):
        raise BadInput(f"{path}: 'baseline': expected {len(elements)} energies in eV, got {baseline}")
    near = content.get(CLOSEST, {})
    if not isinstance(near, dict) or not all(isinstance(k, str) and _is_finite(near[k]) for k in near):
        raise BadInput(f"{path}: '{CLOSEST}': expected distances in Å by pair, got {near}")
    for name in ("best", "average"):
        _require_weights(path, f"state.{name}", content["state"][name])
    if not (content["state"]["best"] or content["state"]["average"]):
        raise BadInput(f"{path}: no weights: both 'state.best' and 'state.average' are empty")
    return content


def _require(path: Path, content: dict[str, Any], entries: dict[str, Any], prefix: str = "") -> None:
    for name, kind in entries.items():
        if name not in content:
            raise BadInput(f"{path}: '{prefix}{name}' is missing: not an intact checkpoint of mlplugins")
        if not isinstance(content[name], kind) or isinstance(content[name], bool):
            raise BadInput(
                f"{path}: '{prefix}{name}': expected {getattr(kind, '__name__', 'weights or None')}, got "
                f"{type(content[name]).__name__}: not an intact checkpoint of mlplugins"
            )


def _require_weights(path: Path, where: str, weights: dict[str, Tensor] | None) -> None:
    for name, value in (weights or {}).items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise BadInput(f"{path}: '{where}': expected tensors by name, got {type(value).__name__}")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise BadInput(
                f"{path}: '{where}': '{name}' is not finite; train anew, or take another checkpoint"
            )


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
