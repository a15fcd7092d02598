"""Onsager coefficients of several charged species: σ of all carriers, its parts, transference numbers."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis.markup import pairs, span, table
from mlplugins.analysis.observables.base import Cite, Observable
from mlplugins.analysis.onsager import Onsager, ThermodynamicState, onsager
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.sample import Sample

Floats = NDArray[np.float64]


class OnsagerCoefficients(Observable[Onsager]):
    """L_ij and transference numbers, if carriers are given and the volume is known."""

    order = 40
    keys = ("onsager",)
    references = {
        "onsager": "K. D. Fong, H. K. Bergstrom, B. D. McCloskey, K. K. Mandadapu, AIChE J. 66, e17091 "
        "(2020), 10.1002/aic.17091."
    }

    def compute(self, sample: Sample, notes: list[str]) -> Onsager | None:
        """L_ij by the lags and weights of the fit of D*."""
        settings, result = sample.settings, sample.diffusion
        if not settings.carriers or not np.isfinite(sample.volume_a3):
            return None
        species: dict[str, Sequence[Floats]] = {sample.species: sample.paths.displacements}
        for name in settings.carriers:
            runs = zip(sample.trajectories, sample.slices)
            species[name] = [run.others[name][part] for run, part in runs]
        charges = {sample.species: settings.charge, **settings.carriers}
        return onsager(
            species, charges, sample.paths, result, ThermodynamicState(sample.temperature_k, sample.volume_a3)
        )

    def as_json(self, found: Onsager) -> dict[str, object]:
        """Matrices and sums."""
        return {"onsager": found.as_json()}

    def doubts(self, found: Onsager | None, sample: Sample) -> list[str]:
        """Carriers whose MSD is no line in the window of the first species."""
        return [
            f"the MSD of {carrier.species} is curved in the fit window (that of {sample.species}): its D* "
            f"and the "
            "L_ij with it are uncertain beyond their intervals; choose another with --fit-window"
            for carrier in (found.carriers[1:] if found else ())
            if carrier.curved
        ]

    def section(self, found: Sequence[tuple[RunResult, Onsager]]) -> list[str]:
        """A table for each temperature."""
        return [
            text
            for run, result in found
            for text in (f"<h2>Carriers at {run.temperature_k:g} K</h2>", _carriers(result))
        ]

    def sentence(self, found: Sequence[tuple[RunResult, Onsager]], cite: Cite) -> str:
        """The definition of the coefficients."""
        return (
            "Onsager coefficients L<sub>ij</sub> come from the cross displacements of the species' "
            "centres of "
            f"charge {cite('onsager')}."
        )

    def lines(self, run: RunResult, found: Onsager) -> list[str]:
        """σ of all carriers; the table shows one of them."""
        return [
            f"{run.temperature_k:g} K, all carriers: σ = {span(found.sigma)} mS/cm   Haven ratio = "
            f"{span(found.haven, 2)}   (the table is {run.species} alone)"
        ]


def _carriers(result: Onsager) -> str:
    names = [carrier.species for carrier in result.carriers]
    header = [
        "",
        *(f"σ part with {html.escape(name)} (mS/cm)" for name in names),
        "D* (cm²/s)",
        "transference",
    ]
    rows = [
        [
            f"{carrier.species} ({carrier.charge:+g} e)",
            *(span(value) for value in result.parts[row]),
            span(carrier.tracer),
            f"{result.transference[row]:.3f}" if result.transference else "–",
        ]
        for row, carrier in enumerate(result.carriers)
    ]
    totals = [
        ("σ = Σ z_i z_j e² L_ij", f"{span(result.sigma)} mS/cm"),
        ("Nernst–Einstein", f"{span(result.sigma_tracer)} mS/cm"),
        ("Haven ratio", span(result.haven)),
    ]
    return table(header, rows) + "<br>" + pairs(totals)


OBSERVABLE = OnsagerCoefficients()
