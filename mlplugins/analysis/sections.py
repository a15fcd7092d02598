"""Sections of the report beyond D, σ and H: independent checks, anisotropy, several species, hops."""

from __future__ import annotations

import html
from collections.abc import Sequence

from mlplugins.analysis.conductivity import RunResult
from mlplugins.analysis.markup import pairs, span, table
from mlplugins.analysis.onsager import Onsager

_BAYES = (
    "<p>The Bayesian regression takes the ions as independent. Where they hop together (Haven ratio well "
    "below 1) its interval of D* is too narrow: for groups of four it holds the truth in 79 % of synthetic "
    "trajectories instead of 95 %. The intervals of the results come from blocks of time, which see such "
    "correlations.</p>"
)


def further_sections(runs: Sequence[RunResult]) -> list[str]:
    """HTML of all further results; nothing where there are none."""
    made = [run for run in runs if run.further is not None]
    if not made:
        return []
    return [*_checks(made), *_tensor(made), *_species(made), *_hops(made)]


def _checks(runs: Sequence[RunResult]) -> list[str]:
    header = [
        "T (K)",
        "D* (cm²/s)",
        "Bayesian regression",
        "collective D",
        "Bayesian",
    ]
    rows, notes = [], []
    for run in runs:
        found = run.further
        if found is None:
            continue
        values = [run.diffusion.tracer, found.bayes]
        values += [run.diffusion.collective, found.bayes_collective]
        rows.append([f"{run.temperature_k:g}", *(span(value) for value in values)])
        if found.green_kubo is not None:
            kubo = found.green_kubo
            text = f"{span(kubo.sigma)} mS/cm at {kubo.plateau_ps:.3g} ps ({kubo.reason})"
            notes.append((f"Green–Kubo σ, {run.temperature_k:g} K", text))
        if found.infinite is not None:
            notes.append(
                (f"D* in an infinite cell, {run.temperature_k:g} K", f"{span(found.infinite)} cm²/s")
            )
    return ["<h2>Independent checks</h2>", table(header, rows), _BAYES, pairs(notes)]


def _tensor(runs: Sequence[RunResult]) -> list[str]:
    header = ["T (K)", "D_xx", "D_yy", "D_zz", "D_yz", "D_xz", "D_xy", "principal values"]
    rows = []
    for run in runs:
        if run.further is not None:
            tensor = run.further.tensor
            principal = ", ".join(f"{value:.3g}" for value in tensor.principal)
            rows.append([f"{run.temperature_k:g}", *(span(value, 2) for value in tensor.entries), principal])
    return ["<h2>Self-diffusion tensor (cm²/s, axes of the trajectory)</h2>", table(header, rows)]


def _species(runs: Sequence[RunResult]) -> list[str]:
    parts = []
    for run in runs:
        if run.further is not None and run.further.onsager is not None:
            parts += [f"<h2>Carriers at {run.temperature_k:g} K</h2>", _carriers(run.further.onsager)]
    return parts


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


def _hops(runs: Sequence[RunResult]) -> list[str]:
    header = [
        "T (K)",
        "sites",
        "hops",
        "straight back",
        "per ion and ps",
        "residence (ps)",
        "mean length (Å)",
        "f",
    ]
    rows = []
    for run in runs:
        if run.further is None or run.further.hops is None:
            continue
        hops, factor = run.further.hops, run.further.correlation_factor
        back = f"{100 * hops.reversed_ / hops.count:.0f} %" if hops.count else "–"
        rows.append(
            [
                f"{run.temperature_k:g}",
                str(hops.sites),
                str(hops.count),
                back,
                span(hops.rate_per_ps),
                span(hops.residence_ps),
                f"{hops.length_a:.2f}",
                f"{factor:.3f}" if factor is not None else "–",
            ]
        )
    if not rows:
        return []
    return ["<h2>Hops between sites</h2>", table(header, rows)]
