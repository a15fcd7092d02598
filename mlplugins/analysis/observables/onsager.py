"""Onsager coefficients of several charged species: σ of all carriers, its parts, transference numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlplugins.analysis.markup import Cell, pairs, table
from mlplugins.analysis.numbers import conductivity_unit, measured, parts, span, unit_of
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
        if not settings.carriers or not np.isfinite(sample.volume_a3) or sample.accelerates:
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
            for text in (f"<h2>Carriers at {run.temperature_k:g} K</h2>", *_carriers(run, result))
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
            f"{run.temperature_k:g} K, all carriers: σ = {measured(found.sigma, 'mS/cm')}   Haven ratio = "
            f"{span(found.haven)}   (the table is {run.species} alone)"
        ]


def _carriers(run: RunResult, result: Onsager) -> list[str]:
    names = [carrier.species for carrier in result.carriers]
    sigma = conductivity_unit(value for row in result.parts for value in row)
    d = unit_of((carrier.tracer for carrier in result.carriers), "cm²/s")
    shares = result.transference
    header = ["ion", *(sigma.heads(f"σ with {name}") for name in names), d.heads("D*"), "transference"]
    rows: list[list[Cell]] = [
        [
            f"{carrier.species} ({carrier.charge:+g} e)".replace("-", "−"),
            *(parts(value, sigma) for value in result.parts[row]),
            parts(carrier.tracer, d),
            f"{shares[row]:.2f}" if shares else "–",
        ]
        for row, carrier in enumerate(result.carriers)
    ]
    totals: list[tuple[str, Cell]] = [
        ("σ = Σ z_i z_j e² L_ij", measured(result.sigma, "mS/cm")),
        ("Nernst–Einstein", measured(result.sigma_tracer, "mS/cm")),
        ("Haven ratio", span(result.haven)),
    ]
    where = f"at {run.temperature_k:g} K"
    return [
        table(header, rows, f"Parts z<sub>i</sub> z<sub>j</sub> e² L<sub>ij</sub> of σ {where}."),
        pairs(totals, f"σ of all carriers together {where}."),
    ]


OBSERVABLE = OnsagerCoefficients()
