"""Checkpoints of `mlplugins train` and `finetune`: the best averaged weights, and what they learned from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlplugins import models
from mlplugins.errors import BadInput
from mlplugins.models.base import Potential
from mlplugins.nn import lora

FORMAT = 1
"""Newest format that this version reads."""


@dataclass(frozen=True)
class Checkpoint:
    """A potential read from a checkpoint, with the fields of an exported file's description.

    Attributes:
        potential: the model, in the precision it was trained in.
        family: model family.
        elements: symbols, in the order of the species index.
        baseline: composition energy per atom of each element, eV.
        details: hyper-parameters, configuration, data hashes, versions.
        references: papers to cite for the architecture.
    """

    potential: Potential
    family: str
    elements: list[str]
    baseline: list[float]
    details: dict[str, Any] = field(default_factory=dict)
    references: list[str] = field(default_factory=list)


def read(path: Path | str) -> Checkpoint:
    """Read `checkpoint.ckpt`; no code in the file is run.

    Raises:
        BadInput: no such file, not a checkpoint of mlplugins, truncated, or of a newer version.
    """
    content = _content(Path(path))
    family = models.family(content["family"])
    parameters = family.Hyperparameters(**content["hyperparameters"])
    state = content["state"]
    weights = state["best"] or state["average"]
    with torch.random.fork_rng(devices=[]):
        potential: Potential = family.Model(content["elements"], parameters)
    dtype = torch.float32 if content["configuration"]["training"]["dtype"] == "float32" else torch.float64
    potential = potential.to(dtype)
    try:
        _load(potential, weights, content.get("adapter"))
    except RuntimeError as error:
        raise BadInput(
            f"{path}: the weights do not fit this version's '{content['family']}' "
            f"(written by mlplugins {content['versions'].get('mlplugins')}): {error}"
        ) from error
    counters = state["counters"]
    return Checkpoint(
        potential=potential.eval(),
        family=content["family"],
        elements=list(content["elements"]),
        baseline=list(content["baseline"]),
        details={
            "hyperparameters": content["hyperparameters"],
            "n_parameters": sum(p.numel() for p in potential.parameters()),
            "best_epoch": counters["best_epoch"],
            "data": {"sha256": content["sha256"]},
            "configuration": content["configuration"],
            "versions": content["versions"],
            **({"finetune": content["finetune"]} if "finetune" in content else {}),
        },
        references=list(getattr(family, "REFERENCES", [])),
    )


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


def _content(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BadInput(f"no such checkpoint: '{path}'")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from RuntimeError to UnpicklingError
        raise BadInput(
            f"{path}: not a readable checkpoint, or truncated ({type(error).__name__}); expected the "
            "checkpoint.ckpt that `mlplugins train` writes; foreign checkpoints go to `mlplugins convert`"
        ) from error
    if not isinstance(content, dict) or "format" not in content or "family" not in content:
        raise BadInput(
            f"{path}: not a checkpoint of `mlplugins train`; foreign checkpoints go to `mlplugins convert`"
        )
    if content["format"] > FORMAT:
        raise BadInput(
            f"{path}: checkpoint format {content['format']}, this mlplugins reads up to {FORMAT}; upgrade it"
        )
    return content
