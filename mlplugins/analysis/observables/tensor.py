"""The tensor of self-diffusion in the axes of the trajectory."""

from __future__ import annotations

from collections.abc import Sequence

from mlplugins.analysis.markup import span, table
from mlplugins.analysis.matrix import DiffusionTensor, diffusion_tensor
from mlplugins.analysis.observables.base import Observable
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.sample import Sample


class SelfDiffusionTensor(Observable[DiffusionTensor]):
    """Six components with their intervals, and principal values."""

    order = 30
    keys = ("D_tensor_cm2_s",)

    def compute(self, sample: Sample, notes: list[str]) -> DiffusionTensor:
        """By the lags and weights of the fit of D*."""
        return diffusion_tensor(sample.paths, sample.diffusion)

    def as_json(self, found: DiffusionTensor) -> dict[str, object]:
        """Voigt order, principal values and directions."""
        return {"D_tensor_cm2_s": found.as_json()}

    def section(self, found: Sequence[tuple[RunResult, DiffusionTensor]]) -> list[str]:
        """A row for each temperature."""
        header = ["T (K)", "D_xx", "D_yy", "D_zz", "D_yz", "D_xz", "D_xy", "principal values"]
        rows = []
        for run, tensor in found:
            principal = ", ".join(f"{value:.3g}" for value in tensor.principal)
            rows.append([f"{run.temperature_k:g}", *(span(value, 2) for value in tensor.entries), principal])
        return ["<h2>Self-diffusion tensor (cm²/s, axes of the trajectory)</h2>", table(header, rows)]


OBSERVABLE = SelfDiffusionTensor()
