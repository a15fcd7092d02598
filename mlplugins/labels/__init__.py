"""Labels: energies, forces and stress of structures from a code of reference; one file per kind of label."""

from __future__ import annotations

from mlplugins.labels._contract import settings_of
from mlplugins.labels._labelling import Labelled, label
from mlplugins.labels._store import LabelStore, fingerprint

__all__ = ["LabelStore", "Labelled", "fingerprint", "label", "settings_of"]
