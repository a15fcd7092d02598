"""What is odd about the first structure that models are given, and about what they say of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mlplugins.model_file.committee import Committee, copies, zeros
from mlplugins.structures import nearest


class Recorded(Protocol):
    """A model with what is known of its training."""

    @property
    def record(self) -> Mapping[str, Any]: ...
    @property
    def cutoff(self) -> float: ...


CLOSEST = "closest_A"
"""In the part `data` of a model's record: the shortest distance of each pair of elements in training."""


def closest(record: Mapping[str, Any], cutoff: float = math.inf) -> nearest.Pairs:
    """The shortest distances in a model's training frames, Å, so that `too_close` names no pair beyond the
    cutoff; none where the file does not say.

    >>> closest({"data": {"closest_A": {"H-H": 1.4}}}), closest({"source": {"format": "mace"}})
    ({'H-H': 1.4}, {})
    """
    data = record.get("data")
    found = data.get(CLOSEST) if isinstance(data, Mapping) else None
    seen = cutoff / nearest.TOO_CLOSE
    return {pair: min(r, seen) for pair, r in found.items()} if isinstance(found, Mapping) else {}


def of_structure(models: Sequence[Recorded], structure: nearest.Framed) -> str:
    """Whether elements come closer than in the training frames of all models; "" if not, or nobody knows."""
    known = nearest.merged([closest(model.record, model.cutoff) for model in models])
    return nearest.too_close(known, structure)


def of_first(
    models: Sequence[Recorded], files: Sequence[Path], structure: nearest.Framed, committee: Committee
) -> list[str]:
    """The same, and models of a committee that are one and the same, or of another zero of the energy.

    Args:
        models: the models.
        files: the file of every member.
        structure: the first.
        committee: what the models say of it.
    """
    members = committee.members
    said = of_structure(models, structure), copies(files, members), zeros(files, members)
    return [each for each in said if each]
