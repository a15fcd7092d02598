"""D* and D_σ by Bayesian regression: an independent check of the main fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlplugins.analysis.bayes import kinisi_posterior, msd_points, posterior, window_points
from mlplugins.analysis.blocks import Paths
from mlplugins.analysis.markup import Cell, pairs, table
from mlplugins.analysis.numbers import parts, unit_of
from mlplugins.analysis.observables.base import Cite, Observable, check_rows
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.sample import Sample
from mlplugins.analysis.value import Value

_LIMITS = (
    "<p>The Bayesian regression takes the ions as independent. Where they hop together (Haven ratio well "
    "below 1) its interval of D* is too narrow: for groups of four it holds the truth in 79 % of synthetic "
    "trajectories instead of 95 %. The intervals of the results come from blocks of time, which see such "
    "correlations.</p>"
)


@dataclass(frozen=True)
class Posteriors:
    """Posteriors of D* and D_σ, cm²/s; None where the scatter is not that of diffusion."""

    tracer: Value | None
    collective: Value | None


class BayesianCheck(Observable[Posteriors]):
    """The regression in the fit window, and the section on independent checks."""

    order = 10
    keys = ("D_bayes_cm2_s", "D_collective_bayes_cm2_s")
    paragraph = "fit"

    def compute(self, sample: Sample, notes: list[str]) -> Posteriors | None:
        """Posteriors of D* and D_σ, with the lags of the fit window; None where there is no D*."""
        if sample.accelerates:
            return None
        charge = sample.collective
        return Posteriors(_posterior(sample.paths, sample), _posterior(charge, sample) if charge else None)

    def as_json(self, found: Posteriors) -> dict[str, object]:
        """Both posteriors, null where there is none."""
        values = (found.tracer, found.collective)
        return {key: value.as_json() if value else None for key, value in zip(self.keys, values)}

    def doubts(self, found: Posteriors | None, sample: Sample) -> list[str]:
        """Where D* contradicts the main fit, or has no posterior."""
        tracer, bayes = sample.diffusion.tracer, found.tracer if found else None
        if tracer.value <= 0 or sample.accelerates:
            return []
        if bayes is None:
            return [
                "no Bayesian posterior: the scatter of the MSD does not grow with the lag as that of "
                "a diffusing ion"
            ]
        if sample.diffusion.curved or (bayes.high >= tracer.low and bayes.low <= tracer.high):
            return []
        return [
            f"the Bayesian regression gives D = {bayes.value:.3g} [{bayes.low:.3g}, {bayes.high:.3g}] "
            "cm²/s, outside the interval of the main fit"
        ]

    def section(self, found: Sequence[tuple[RunResult, Posteriors]]) -> list[str]:
        """The main values next to the posteriors, followed by the checks of other observables."""
        values = [
            (run.diffusion.tracer, both.tracer, run.diffusion.collective, both.collective)
            for run, both in found
        ]
        unit = unit_of((value for row in values for value in row), "cm²/s")
        names = ("D*", "D* Bayesian", "Dσ", "Dσ Bayesian")
        rows: list[list[Cell]] = [
            [f"{run.temperature_k:g}", *(parts(value, unit) for value in row)]
            for (run, _), row in zip(found, values)
        ]
        caption = "D* and the collective D<sub>σ</sub> by the main fit and by Bayesian regression."
        checks = pairs(check_rows([run for run, _ in found]), "Other checks.")
        header = ["T (K)", *(unit.heads(name) for name in names)]
        return ["<h2>Independent checks</h2>", table(header, rows, caption), _LIMITS, checks]

    def sentence(self, found: Sequence[tuple[RunResult, Posteriors]], cite: Cite) -> str:
        """The assumptions of the regression."""
        return (
            f"Bayesian regression with the covariance of a Markov process {cite('bayes')}, which treats the "
            "ions as independent, served as a check."
        )


def _posterior(paths: Paths, sample: Sample) -> Value | None:
    points = msd_points(paths, window_points(paths, sample.diffusion.window))
    closed = posterior(points, paths.interval_fs)
    if sample.settings.sampler == "kinisi" and closed is not None:
        return kinisi_posterior(points, paths.interval_fs)
    return closed


OBSERVABLE = BayesianCheck()
