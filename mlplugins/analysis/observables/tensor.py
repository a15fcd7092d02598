"""The tensor of self-diffusion in the axes of the trajectory."""

from __future__ import annotations

from collections.abc import Sequence

from mlplugins.analysis.markup import Cell, table
from mlplugins.analysis.matrix import DiffusionTensor, diffusion_tensor
from mlplugins.analysis.numbers import parts, significant, unit_of
from mlplugins.analysis.observables.base import Observable
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.sample import Sample


class SelfDiffusionTensor(Observable[DiffusionTensor]):
    """Six components with their intervals, and principal values."""

    order = 30
    keys = ("D_tensor_cm2_s",)

    def compute(self, sample: Sample, notes: list[str]) -> DiffusionTensor | None:
        """By the lags and weights of the fit of D*; None where there is no D*."""
        return None if sample.accelerates else diffusion_tensor(sample.paths, sample.diffusion)

    def as_json(self, found: DiffusionTensor) -> dict[str, object]:
        """Voigt order, principal values and directions."""
        return {"D_tensor_cm2_s": found.as_json()}

    def section(self, found: Sequence[tuple[RunResult, DiffusionTensor]]) -> list[str]:
        """A row for each temperature."""
        unit = unit_of((value for _, tensor in found for value in tensor.entries[:3]), "cm²/s")
        header = ["T (K)", "D_xx", "D_yy", "D_zz", "D_yz", "D_xz", "D_xy", "principal values"]
        rows: list[list[Cell]] = []
        for run, tensor in found:
            principal = ", ".join(significant(unit.factor * value) for value in tensor.principal)
            entries = (parts(value, unit) for value in tensor.entries)
            rows.append([f"{run.temperature_k:g}", *entries, principal])
        caption = f"Self-diffusion tensor in {unit.text}, in the axes of the trajectory."
        return ["<h2>Anisotropy</h2>", table(header, rows, caption, "stacked")]


OBSERVABLE = SelfDiffusionTensor()
