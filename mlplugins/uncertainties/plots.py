"""Coverage and sparsification of predicted standard deviations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.stats import norm

from mlplugins import plotting
from mlplugins.plotting import BLUE, GREY, INK, ORANGE
from mlplugins.quantities import QUANTITIES
from mlplugins.uncertainties.quality import REMOVED, sparsification

PANEL = 2.35
"""Width and height of a panel, inches."""

COLORS = {"energy": ORANGE, "forces": BLUE}


def quality(values: Mapping[str, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Coverage of intervals (all quantities), then error against σ and sparsification of the last one.

    Args:
        values: errors and standard deviations by name of the quantity.
        path: what to write, see `plotting.save`.
    """
    with plotting.style():
        figure = plotting.canvas(3 * PANEL, PANEL)
        coverage, scatter, removal = figure.subplots(1, 3)
        nominal = np.linspace(0.02, 0.98, 49)
        coverage.plot([0, 1], [0, 1], color=GREY, lw=0.8)
        for name, (errors, deviations) in values.items():
            inside = np.abs(errors / deviations)[:, None] < norm.ppf(0.5 + nominal / 2)
            label = f"{QUANTITIES[name].components_text}, {len(errors)}"
            coverage.plot(nominal, inside.mean(axis=0), color=COLORS.get(name, INK), label=label)
        coverage.set(
            xlabel="nominal coverage", ylabel="observed", title="intervals", xlim=(0, 1), ylim=(0, 1)
        )
        coverage.legend()
        name = list(values)[-1]
        errors, deviations = values[name]
        quantity = QUANTITIES[name]
        unit, scale = quantity.error_unit, quantity.error_scale
        size, sigma = np.abs(errors) * scale, deviations * scale
        ends = np.array([sigma.min(), sigma.max()])
        scatter.plot(sigma, np.maximum(size, 1e-3 * size.max()), "o", ms=2, alpha=0.4, mew=0, color=BLUE)
        for factor, line in ((1.0, "-"), (1.96, ":")):
            scatter.plot(ends, factor * ends, line, color=INK, lw=0.8, label=f"{factor:g} σ")
        scatter.set(xlabel=f"predicted σ ({unit})", ylabel=f"|error| ({unit})", xscale="log", yscale="log")
        scatter.set_title(quantity.components_text)
        scatter.legend()
        curves = {"by σ": (deviations, BLUE), "by the true error": (size, GREY)}
        for label, (order, color) in curves.items():
            removal.plot(100 * REMOVED, scale * sparsification(errors, order), color=color, label=label)
        rmse = scale * float(np.sqrt(np.mean(errors**2)))
        removal.axhline(rmse, color=INK, lw=0.8, ls=":", label="at random")
        removal.set(xlabel="removed (%)", ylabel=f"RMSE of the rest ({unit})", title="sparsification")
        removal.set(ylim=(0, 1.3 * rmse))
        removal.legend()
        for axes in (coverage, scatter, removal):
            plotting.finish(axes)
        plotting.save(figure, path)
