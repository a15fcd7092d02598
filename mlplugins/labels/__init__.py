"""Labels: energies, forces and stress of structures from a code of reference; one file per kind of label."""

from __future__ import annotations

from mlplugins.labels._labelling import Labelled, label

__all__ = ["Labelled", "label"]
