"""Collective and single jumps: how many of the jumps are part of a string."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlplugins.analysis.markup import Cell, table
from mlplugins.analysis.numbers import DASH, parts, span
from mlplugins.analysis.observables.base import Cite, Observable
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.sample import Sample
from mlplugins.analysis.strings import Strings, strings
from mlplugins.analysis.written import csv_table, ends

FEWEST = 20
"""Jumps below which nothing is said of them together."""
SHOWN = 5
"""Sizes of strings in the table; the last are all longer ones."""


@dataclass(frozen=True)
class Collective:
    """Strings of jumps, or why they are not known."""

    strings: Strings | None
    reason: str = ""


class CollectiveJumps(Observable[Collective]):
    """The window is a period of the attempt frequency, at least a frame."""

    order = 83
    keys = ("collective_jumps",)
    files = ("collective.csv",)

    def compute(self, sample: Sample, notes: list[str]) -> Collective | None:
        """None where no sites are known, which the hops say."""
        found = sample.visits
        if not found.stretches:
            return None
        if not found.resolved:
            return Collective(None, found.unresolved())
        if found.count < FEWEST:
            return Collective(None, f"too few jumps: {found.count} (expected at least {FEWEST})")
        attempt = sample.vibrations.attempt_thz
        period = 1 / attempt.value if attempt is not None else 0.0
        return Collective(strings(found, max(1, int(np.ceil(period / found.interval_ps)))))

    def as_json(self, found: Collective) -> dict[str, object]:
        """Share, the same by chance, sizes."""
        each = found.strings
        if each is None:
            return {"collective_jumps": {"reason": found.reason}}
        return {
            "collective_jumps": {
                "n_jumps": each.jumps,
                "window_ps": each.window_ps,
                "share": each.share.as_json(),
                "share_by_chance": each.by_chance,
                "n_strings_of_size": list(each.sizes),
                "reason": None,
            }
        }

    def tables(self, found: Sequence[tuple[RunResult, Collective]]) -> dict[str, str]:
        """A line for each size of strings at each temperature."""
        head = [
            "T_K",
            "window_ps",
            "share",
            "share_low",
            "share_high",
            "share_by_chance",
            "size",
            "n_strings",
        ]
        lines = [
            [
                f"{run.temperature_k:g}",
                f"{each.strings.window_ps:.6g}",
                *ends(each.strings.share),
                f"{each.strings.by_chance:.6g}",
                size + 1,
                number,
            ]
            for run, each in found
            if each.strings is not None
            for size, number in enumerate(each.strings.sizes)
        ]
        return {"collective.csv": csv_table(head, lines)}

    def section(self, found: Sequence[tuple[RunResult, Collective]]) -> list[str]:
        """A row for each temperature."""
        header = ["T (K)", "jumps", "window (ps)", "collective", "by chance"]
        header += [f"strings of {size}" for size in range(1, SHOWN)] + [f"of {SHOWN} or more"]
        rows: list[list[Cell]] = []
        for run, each in found:
            if each.strings is None:
                continue
            sizes = np.pad(each.strings.sizes, (0, SHOWN))
            rows.append(
                [
                    f"{run.temperature_k:g}",
                    str(each.strings.jumps),
                    f"{each.strings.window_ps:.2g}",
                    parts(each.strings.share),
                    f"{each.strings.by_chance:.2f}",
                    *(str(number) for number in sizes[: SHOWN - 1]),
                    str(int(sizes[SHOWN - 1 :].sum())) if len(sizes) else DASH,
                ]
            )
        texts = ["<h2>Collective and single jumps</h2>"]
        caption = (
            "Collective: share of the jumps into a site that another ion leaves, or out of one that another "
            "ion takes, within the window; by chance: the same with the jumps of each ion moved in time."
        )
        if rows:
            texts.append(table(header, rows, caption))
        return texts + [
            f"<p>{run.temperature_k:g} K: {each.reason}.</p>" for run, each in found if each.reason
        ]

    def sentence(self, found: Sequence[tuple[RunResult, Collective]], cite: Cite) -> str:
        """What is collective."""
        if not any(each.strings for _, each in found):
            return ""
        return (
            "Jumps are collective if one ends where another ion's begins, within a period of the attempt "
            "frequency; their share is compared with that of jumps moved in time, ion by ion."
        )

    def lines(self, run: RunResult, found: Collective) -> list[str]:
        """The share, and that by chance."""
        if found.strings is None:
            return [f"{run.temperature_k:g} K: no collective jumps: {found.reason}"]
        each = found.strings
        return [
            f"{run.temperature_k:g} K: {span(each.share)} of {each.jumps} jumps are collective "
            f"({each.by_chance:.2f} by chance, window {each.window_ps:.2g} ps)"
        ]


OBSERVABLE = CollectiveJumps()
