"""The report of a learning loop: `report.html`, and its figures as PNG and PDF."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlplugins import __version__, files, plotting
from mlplugins.analysis.markup import figure, numbered, pairs, table
from mlplugins.analysis.page import STYLE
from mlplugins.dynamics.settings import label as printed
from mlplugins.quantities import MILLI
from mlplugins.workflows._learn_files import SELECTED, read_frames, read_json
from mlplugins.workflows._learn_round import Loop

MOST_ROWS = 60
"""Chosen frames that the table shows."""
DASH = "–"
SMALLEST = 1e-4
"""Errors below are off the picture, eV/Å."""
CURVE = (
    "Learning curve. Held out: RMSE of the force components on frames that are never learned from. Chosen: "
    "the same on the frames of each round, predicted before they were learned from. Dashed: 95 % quantile of "
    "the expected errors of the held-out frames; dotted: the target."
)
PARITY = (
    "Expected and true error of the force on the worst atom of the chosen frames, before they were learned "
    "from; the line is equality."
)


def write(loop: Loop, done: Sequence[Mapping[str, Any]], stopped: str, final: Mapping[str, Any]) -> None:
    """Write the report of the rounds so far.

    Args:
        loop: its configuration and folder.
        done: record of every complete round.
        stopped: why it is over; empty if it is not.
        final: errors of the last model, and of the control; empty if there is none yet.
    """
    title = f"Learning {' '.join(_elements(loop))}: {len(done)} rounds"
    with plotting.style():
        drawn = {"learning": (_curve(loop, done, final), CURVE, 0.7)}
        if any(each["surprise"] for each in done):
            drawn["expected"] = (_parity(loop, done), PARITY, 0.55)
        shown = []
        for name, (picture, caption, share) in drawn.items():
            plotting.save(picture, loop.folder / name)
            shown.append(figure(name, plotting.rendered(picture), caption, share))
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{title}</title><style>{STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1><small>mlplugins {html.escape(__version__)}</small>",
        f"<div class='key'>{_headline(loop, done, stopped, final)}</div>",
        "<h2>Rounds</h2>",
        _rounds(done),
        *shown,
        "<h2>Chosen frames</h2>",
        _chosen(loop, done),
        *_failed(done),
        "<h2>Runs that were left early</h2>",
        _halted(done),
        "<h2>Cost</h2>",
        _cost(done),
        "<h2>Configuration</h2>",
        pairs(_settings(loop), "What was asked for."),
        "</body></html>\n",
    ]
    files.write_text(loop.folder / "report.html", numbered("\n".join(parts)))


def _elements(loop: Loop) -> list[str]:
    frames = read_frames(loop.round(0) / "train.extxyz")
    return sorted({symbol for atoms in frames for symbol in atoms.get_chemical_symbols()})


def _headline(loop: Loop, done: Sequence[Mapping[str, Any]], stopped: str, final: Mapping[str, Any]) -> str:
    lines = [f"Stopped: {stopped}." if stopped else "The loop goes on."]
    if final:
        lines.append(f"With {final['n_train']} labelled frames: {_rmse(final)}.")
    if control := final.get("control"):
        lines.append(f"The same number of frames, chosen at random: {_rmse(control)}.")
        if loop.config.test is None:
            lines.append("The frames set aside are of the choice: name a test set to compare impartially.")
    failed = sum(len(each["failed"]) for each in done)
    lines += [f"{failed} labels failed; they are listed below."] if failed else []
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _rmse(record: Mapping[str, Any]) -> str:
    held = record["held_out"]
    return (
        f"RMSE of forces {MILLI * held['forces_rmse_eV_A']:.3g} meV/Å, of energies "
        f"{MILLI * held['energy_rmse_eV_atom']:.3g} meV/atom on {held['n_frames']} frames set aside"
    )


def _rounds(done: Sequence[Mapping[str, Any]]) -> str:
    header = ["round", "learned from", "explored", "above target", "left early", "chosen", "failed"]
    header += ["held out (meV/Å)", "chosen, before (meV/Å)", "true/expected (rms)", "steps of a run"]
    rows = []
    for each in done:
        said = each["surprise"]
        rows.append(
            [
                str(each["round"]),
                str(each["n_train"]),
                str(each["n_frames"]),
                f"{100 * each['n_above'] / max(each['n_frames'], 1):.1f} %",
                f"{each['halted']} of {len(each['runs'])}",
                str(each["n_chosen"]),
                str(len(each["failed"])),
                f"{MILLI * each['held_out']['forces_rmse_eV_A']:.3g}",
                f"{MILLI * said['forces_rmse_eV_A']:.3g}" if said else DASH,
                f"{said['ratio_rms']:.2f}" if said else DASH,
                str(each["steps"]),
            ]
        )
    caption = (
        "Rounds: frames learned from, explored, and chosen; RMSE of force components on the frames set aside "
        "and on the chosen ones before they were learned from; root mean square of true over expected error "
        "there (1: calibrated)."
    )
    return table(header, rows, caption)


def _curve(loop: Loop, done: Sequence[Mapping[str, Any]], final: Mapping[str, Any]) -> Any:
    picture = plotting.canvas(plotting.COLUMN * 1.4, 2.8, CURVE)
    axes = picture.subplots()
    n = [each["n_train"] for each in done]
    axes.plot(n, [each["held_out"]["forces_rmse_eV_A"] for each in done], "o-", label="held out")
    with_chosen = [each for each in done if each["surprise"]]
    values = [each["surprise"]["forces_rmse_eV_A"] for each in with_chosen]
    axes.plot([each["n_train"] for each in with_chosen], values, "s-", label="chosen, before")
    axes.plot(n, [each["expected_95"] for each in done], "--", color=plotting.GREY, label="expected, 95 %")
    axes.axhline(loop.config.until.expected_error, ls=":", color=plotting.INK, lw=0.8)
    for name, record, marker in (("final", final, "D"), ("random", final.get("control"), "x")):
        if record:
            error = record["held_out"]["forces_rmse_eV_A"]
            axes.plot([record["n_train"]], [error], marker, ms=6, label=f"{name}, held out")
    axes.set(xlabel="labelled frames", ylabel="error of forces (eV/Å)", yscale="log")
    axes.legend()
    plotting.finish(axes)
    return picture


def _parity(loop: Loop, done: Sequence[Mapping[str, Any]]) -> Any:
    picture = plotting.canvas(plotting.COLUMN, 3.0, PARITY)
    axes = picture.subplots()
    ends: list[float] = []
    for each, color in zip(done, plotting.colors(len(done))):
        content = read_json(loop.round(each["round"]) / "surprise.json")
        if not content["values"]:
            continue
        expected, true = np.array(content["values"]["worst"]).T
        axes.plot(content["scale"] * expected, true, "o", color=color, label=f"round {each['round']}")
        ends += [*(content["scale"] * expected), *true]
    low, high = max(min(ends), SMALLEST), max(ends)
    axes.plot([low, high], [low, high], color=plotting.GREY, lw=0.8)
    axes.set(xlabel="expected error (eV/Å)", ylabel="true error (eV/Å)", xscale="log", yscale="log")
    axes.set(xlim=(low / 2, 2 * high), ylim=(low / 2, 2 * high))
    axes.legend()
    plotting.finish(axes)
    return picture


def _chosen(loop: Loop, done: Sequence[Mapping[str, Any]]) -> str:
    header = ["round", "run", "frame", "worst atom", "expected (eV/Å)", "true (eV/Å)", "distance", "why"]
    rows = []
    for each in done:
        folder = loop.round(each["round"])
        frames = read_frames(folder / SELECTED)
        values = read_json(folder / "surprise.json")["values"]
        true = [row[1] for row in values["worst"]] if values else []
        complete = len(true) == len(frames)  # none failed
        for k, atoms in enumerate(frames):
            info = atoms.info
            worst = int(info["worst_atom"])
            rows.append(
                [
                    str(each["round"]),
                    str(info["run"]),
                    str(info["frame"]),
                    f"{worst} {atoms.symbols[worst]}",
                    f"{float(info['expected_error']):.3g}",
                    f"{true[k]:.3g}" if complete else DASH,
                    f"{float(info['distance']):.3g}" if "distance" in info else DASH,
                    str(info["reason"]),
                ]
            )
    if not rows:
        return "<p>None.</p>"
    cut = f" The first {MOST_ROWS} of {len(rows)}." if len(rows) > MOST_ROWS else ""
    caption = (
        "Chosen frames: where they come from (structure, temperature, segment), the atom with the largest "
        "expected error, that error and the largest true one, distance of the mean SOAP vector to the "
        f"nearest frame learned from.{cut}"
    )
    return table(header, rows[:MOST_ROWS], caption)


def _failed(done: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [[str(each["round"]), item["hash"], item["reason"]] for each in done for item in each["failed"]]
    if not rows:
        return []
    return [
        "<h2>Labels that failed</h2>",
        table(["round", "folder", "reason"], rows, "Never learned from.", "text"),
    ]


def _halted(done: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [str(each["round"]), Path(str(r["structure"])).name, printed(r["temperature_K"]), r["halted"]]
        for each in done
        for r in each["runs"]
        if r["halted"]
    ]
    if not rows:
        return "<p>None.</p>"
    caption = "Runs that ended before their last step, and why."
    return table(["round", "structure", "T (K)", "why"], rows[:MOST_ROWS], caption)


def _cost(done: Sequence[Mapping[str, Any]]) -> str:
    header = ["round", "training (s)", "exploration (s)", "labels (s)", "labels (CPU-s)"]
    rows = [
        [
            str(each["round"]),
            *(f"{each['seconds'][name]:.1f}" for name in ("train", "explore", "label")),
            f"{each['label_cpu_s']:.2f}",
        ]
        for each in done
    ]
    return table(header, rows, "Wall time of the part of each round that was not interrupted.")


def _settings(loop: Loop) -> list[tuple[str, Any]]:
    content = loop.config.model_dump(mode="json")
    return [(name, str(value)) for name, value in content.items() if value is not None]
