"""The result of one temperature: D, σ, the Haven ratio and what the observables add."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlplugins.analysis.diffusion import Diffusion
from mlplugins.analysis.sample import Curve
from mlplugins.analysis.value import Value
from mlplugins.units import MS_CM_PER_S_CM


@dataclass(frozen=True)
class RunResult:
    """Everything about one temperature.

    Attributes:
        hops: number of hops if D* were made of hops of the length in the settings.
        loglog_slope: d ln MSD / d ln t at the longest lags that are well sampled.
        warnings: what was dropped, assumed or doubted, with the temperature before it.
        observables: what else was computed, by the names of the files in `observables/`; None where the data
            do not allow it.
        entries: the keys of the observables in the JSON.
    """

    temperature_k: float
    species: str
    charge: float
    n_frames: int
    n_ions: int
    n_atoms: int
    n_runs: int
    volume_a3: float
    interval_fs: float
    length_ps: float
    diffusion: Diffusion
    sigma_tracer: Value | None
    sigma_collective: Value | None
    hops: float
    loglog_slope: float
    curve: Curve
    framework_rms_a: dict[str, float]
    drift_a: float
    warnings: tuple[str, ...]
    observables: Mapping[str, Any] = field(default_factory=dict)
    entries: Mapping[str, object] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """One entry of `runs` of `--json`."""
        window = self.diffusion.window
        collective, haven = self.diffusion.collective, self.diffusion.haven
        return {
            "T_K": self.temperature_k,
            "n_frames": self.n_frames,
            "D_cm2_s": self.diffusion.tracer.as_json(),
            "sigma_tracer_mS_cm": self.sigma_tracer.as_json() if self.sigma_tracer else None,
            "sigma_collective_mS_cm": self.sigma_collective.as_json() if self.sigma_collective else None,
            "haven_ratio": haven.as_json() if haven else None,
            "fit_window_ps": [window.low_ps, window.high_ps],
            "fit_window_reason": window.reason,
            "D_collective_cm2_s": collective.as_json() if collective else None,
            "D_axes_cm2_s": [value.as_json() for value in self.diffusion.axes],
            "n_ions": self.n_ions,
            "n_atoms": self.n_atoms,
            "n_runs": self.n_runs,
            "volume_A3": self.volume_a3,
            "frame_interval_fs": self.interval_fs,
            "length_ps": self.length_ps,
            "time_blocks": self.diffusion.blocks,
            "estimated_hops": self.hops,
            "loglog_slope": self.loglog_slope,
            "msd_intercept_A2": self.diffusion.intercept_a2,
            "framework_rms_displacement_A": self.framework_rms_a,
            "drift_removed_A": self.drift_a,
            "sigma_tracer_S_cm": (
                self.sigma_tracer.scaled(1 / MS_CM_PER_S_CM).as_json() if self.sigma_tracer else None
            ),
            "sigma_collective_S_cm": (
                self.sigma_collective.scaled(1 / MS_CM_PER_S_CM).as_json() if self.sigma_collective else None
            ),
            **self.entries,
        }
