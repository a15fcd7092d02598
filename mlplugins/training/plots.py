"""Learning curves and parity plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlplugins import plotting
from mlplugins.plotting import BLUE, GREY, INK, ORANGE
from mlplugins.quantities import QUANTITIES, Quantity
from mlplugins.structures.metrics import Pairs

PANEL = 2.35
"""Width and height of a panel, inches: three of them fill a page."""


def learning_curves(rows: Sequence[dict[str, float]], best_epoch: int, path: Path) -> None:
    """Loss and errors per epoch, training and validation; the best epoch and the ends of stages marked."""
    ends = [one["epoch"] for one, other in pairwise(rows) if one.get("stage") != other.get("stage")]
    panels = {"loss": "loss"}
    panels |= {k: v for k, v in _errors().items() if any(f"train_{k}" in row for row in rows)}
    with plotting.style():
        figure, axes = _figure(len(panels))
        for ax, (name, title) in zip(axes, panels.items()):
            for part, color in (("train", BLUE), ("validation", ORANGE)):
                points = [(row["epoch"], row[f"{part}_{name}"]) for row in rows if f"{part}_{name}" in row]
                if points:
                    x, y = zip(*points)
                    marker = "o" if len(points) < 3 else None
                    ax.plot(x, y, color=color, label=part, marker=marker)
            for end in ends:
                ax.axvline(end + 0.5, color=GREY, lw=0.8)
            ax.axvline(best_epoch, color=GREY, lw=0.8, ls=":", label=f"best epoch, {best_epoch}")
            ax.set(xlabel="epoch", title=title, yscale="log")
            plotting.finish(ax)
        axes[0].legend()
        plotting.save(figure, path)


def data_curve(rows: Sequence[dict[str, float]], laws: dict[str, dict[str, float]], path: Path) -> None:
    """Error against number of training frames, with the fitted law ε = a + b/N^c.

    Args:
        rows: `n_train` and errors of each fit.
        laws: `a`, `b`, `c` of each error that has a fit.
        path: what to write, see `plotting.save`.
    """
    panels = {name: title for name, title in _errors().items() if name in rows[0]}
    sizes = [row["n_train"] for row in rows]
    with plotting.style():
        figure, axes = _figure(len(panels))
        for ax, (name, title) in zip(axes, panels.items()):
            ax.plot(sizes, [row[name] for row in rows], "o", color=BLUE, label="validation")
            if name in laws:
                a, b, c = (laws[name][key] for key in ("a", "b", "c"))
                n = np.geomspace(sizes[0], sizes[-1], 100)
                ax.plot(n, a + b / n**c, color=GREY, lw=1.0, label=f"{_short(a)} + {_short(b)}/N^{c:.2f}")
                ax.legend()
            ax.set(xlabel="training frames N", title=title, xscale="log", yscale="log")
            ax.set_xticks(sizes, [f"{n:.0f}" for n in sizes])
            ax.minorticks_off()
        plotting.save(figure, path)


def parity(found: Mapping[str, Pairs], path: Path, title: str) -> None:
    """Prediction against label, one panel per quantity; many points become a density. Of several energies a
    row each.

    Args:
        found: (label, prediction) of each quantity, by the name of the energy that the structures are
            labelled with (`mlplugins.structures.metrics.pairs_of_energies`); the names are shown if there
            are several.
        path: what to write, see `plotting.save`.
        title: what the structures are.
    """
    rows = {name: (own, _panels(own)) for name, own in found.items() if _panels(own)}
    if not rows:
        return
    width = max(len(panels) for _, panels in rows.values())
    with plotting.style():
        figure = plotting.canvas(PANEL * width, PANEL * len(rows))
        grid = figure.subplots(len(rows), width, squeeze=False)
        for axes, (name, (own, panels)) in zip(grid, rows.items()):
            for ax, (quantity, part) in zip(axes, panels):
                _parity_panel(ax, quantity, *own[f"{quantity.name} {part}".strip()])
                said = f"{quantity.noun}, {part}" if part else quantity.components_text
                ax.set_title(f"{name}: {said}" if len(rows) > 1 else said)
            for ax in axes[len(panels) :]:
                ax.set_axis_off()
        figure.suptitle(title, x=0.01, ha="left")
        plotting.save(figure, path)


def _panels(found: Pairs) -> list[tuple[Quantity, str]]:
    """Quantities, and the parts of tensors among them."""
    return [
        (quantity, part)
        for name, quantity in QUANTITIES.items()
        if name in found
        for part in [part.name for part in quantity.parts] or [""]
    ]


def z_scores(sets: Mapping[str, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Histograms of errors over predicted standard deviations, with the normal density.

    Args:
        sets: z before and after calibration, by what the frames are.
        path: what to write, see `plotting.save`.
    """
    edge = 5.0
    bins, x = np.linspace(-edge, edge, 31).tolist(), np.linspace(-edge, edge, 201)
    with plotting.style():
        figure, axes = _figure(len(sets))
        for ax, (name, (before, after)) in zip(axes, sets.items()):
            raw, scaled = (np.clip(z, -edge, edge) for z in (before, after))  # the last bins hold the rest
            weight = np.full(len(after), 1.0 / len(after) / (bins[1] - bins[0]))
            label = f"calibrated, rms {_rms(after)}"
            ax.hist(scaled, bins, weights=weight, color=BLUE, alpha=0.7, label=label)
            label = f"before, rms {_rms(before)}"
            ax.hist(raw, bins, weights=weight, histtype="step", color=ORANGE, lw=1.2, label=label)
            ax.plot(x, np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi), color=INK, lw=1.0, label="normal")
            ax.set(xlabel="error / predicted standard deviation", title=f"{name}, {len(after)} frames")
            ax.set_ylim(top=1.35 * ax.get_ylim()[1])
            ax.legend(loc="upper left")
        axes[0].set_ylabel("density")
        plotting.save(figure, path)


def _rms(z: np.ndarray) -> str:
    return _short(float(np.sqrt(np.mean(z**2))))


def _errors() -> dict[str, str]:
    """Titles of the errors of all quantities, by their names in log.csv."""
    return {q.column("rmse"): f"{q.noun} RMSE ({q.error_unit})" for q in QUANTITIES.values()}


def _parity_panel(ax: Axes, quantity: Quantity, label: np.ndarray, predicted: np.ndarray) -> None:
    unit, error_unit = quantity.compared_unit, quantity.error_unit
    shift = float(np.mean(label)) if quantity.baseline else 0.0
    x, y = label - shift, predicted - shift
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    margin = 0.05 * (high - low) or 1e-3
    limits = (low - margin, high + margin)
    ax.plot(limits, limits, color=GREY, lw=0.8, zorder=0)
    if len(x) > 5000:
        ax.hexbin(x, y, gridsize=80, bins="log", cmap="Blues", mincnt=1, extent=(*limits, *limits), lw=0.1)
    else:
        ax.plot(x, y, "o", ms=3, alpha=0.5 if len(x) > 100 else 0.9, color=BLUE, mew=0)
    error = (y - x) * quantity.error_scale
    text = (
        f"MAE {_short(np.abs(error).mean())} {error_unit}\n"
        f"RMSE {_short(np.sqrt(np.square(error).mean()))} {error_unit}\n{len(x)} values"
    )
    ax.text(0.04, 0.96, text, transform=ax.transAxes, va="top", fontsize=7)
    origin = f" {'+' if shift < 0 else '−'} {abs(shift):.3f}" if quantity.baseline else ""
    ax.set(xlim=limits, ylim=limits, title=quantity.components_text)
    ax.set(xlabel=f"reference{origin} ({unit})", ylabel=f"model{origin} ({unit})")
    ax.set_aspect("equal")
    ax.locator_params(nbins=5)


def _figure(n_panels: int) -> tuple[Figure, list[Axes]]:
    figure = plotting.canvas(PANEL * n_panels, PANEL)
    axes = figure.subplots(1, n_panels, squeeze=False)
    return figure, list(axes[0])


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
