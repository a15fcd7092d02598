"""Labels by another model.pt, for a faster one that learns from it, or for trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from ase import Atoms

from mlplugins import files
from mlplugins.labels._contract import CodeResult, LabelSettings


class Settings(LabelSettings):
    """A teacher.

    Attributes:
        model: model.pt, or any other metatomic model.
        device: where it computes.
        variant: which energy, of a model that has several.
    """

    model: str
    device: Literal["cpu", "cuda"] = "cpu"
    variant: str | None = None

    FILES: ClassVar = ("model",)
    WORK: ClassVar = ("device",)

    def physics(self) -> dict[str, Any]:
        """The model by its content."""
        return {**super().physics(), "model_sha256": files.sha256(Path(self.model))}


def compute(settings: Settings, atoms: Atoms, folder: Path) -> CodeResult:
    """Label one structure."""
    from mlplugins.model_file import artifact  # torch: not before the process has forked

    model = artifact.load(settings.model, settings.device, settings.variant)
    found = model.evaluate([atoms])[0]
    kind = model.family or model.name or "metatomic model"
    return CodeResult(
        found.energy, found.forces, found.stress if atoms.pbc.all() else None, f"{kind} {model.path.name}"
    )
