"""Vibration amplitude of the mobile ions about their sites, and their attempt frequency."""

from __future__ import annotations

from collections.abc import Sequence

from mlplugins.analysis.markup import Cell, table
from mlplugins.analysis.numbers import measured, parts
from mlplugins.analysis.observables.base import Cite, Observable
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.sample import Sample
from mlplugins.analysis.vibrations import RESOLVED, Vibrations
from mlplugins.analysis.written import csv_table, ends


class VibrationsAboutSites(Observable[Vibrations]):
    """Amplitude from the distances to the sites; frequency from it, and from the velocities."""

    order = 81
    keys = (
        "vibration_amplitude_A",
        "attempt_frequency_THz",
        "attempt_frequency_from",
        "frequency_from_amplitude_THz",
        "frequency_from_spectrum_THz",
        "kinetic_share",
    )
    files = ("vibrations.csv",)

    def compute(self, sample: Sample, notes: list[str]) -> Vibrations | None:
        """None where neither sites nor spectrum are known."""
        found = sample.vibrations
        return found if found.attempt_thz is not None else None

    def as_json(self, found: Vibrations) -> dict[str, object]:
        """Both frequencies, and which is the attempt frequency."""
        values = (
            found.amplitude_a and found.amplitude_a.as_json(),
            found.attempt_thz and found.attempt_thz.as_json(),
            found.source,
            found.from_amplitude_thz and found.from_amplitude_thz.as_json(),
            found.from_spectrum_thz and found.from_spectrum_thz.as_json(),
            found.kinetic_share,
        )
        return dict(zip(self.keys, values))

    def tables(self, found: Sequence[tuple[RunResult, Vibrations]]) -> dict[str, str]:
        """A line for each temperature."""
        names = ("amplitude_A", "attempt_frequency_THz", "from_amplitude_THz", "from_spectrum_THz")
        head = ["T_K", *(f"{name}{end}" for name in names for end in ("", "_low", "_high"))]
        lines = []
        for run, each in found:
            values = (
                each.amplitude_a,
                each.attempt_thz,
                each.from_amplitude_thz,
                each.from_spectrum_thz,
            )
            cells = [text for value in values for text in ends(value)]
            lines.append([f"{run.temperature_k:g}", *cells, each.source, f"{each.kinetic_share:.4g}"])
        return {"vibrations.csv": csv_table([*head, "attempt_frequency_from", "kinetic_share"], lines)}

    def section(self, found: Sequence[tuple[RunResult, Vibrations]]) -> list[str]:
        """A row for each temperature."""
        header = ["T (K)", "amplitude u (Å)", "ν from u (THz)", "ν of the spectrum (THz)"]
        header += ["share of kT/2", "attempt frequency from"]
        rows: list[list[Cell]] = [
            [
                f"{run.temperature_k:g}",
                parts(each.amplitude_a),
                parts(each.from_amplitude_thz),
                parts(each.from_spectrum_thz),
                f"{100 * each.kinetic_share:.0f} %",
                each.source,
            ]
            for run, each in found
        ]
        caption = (
            "Vibrations about the sites: u along one axis; ν = √(kT/m)/2πu of harmonic ions; mean frequency "
            "of the velocities, where frames hold their kinetic energy "
            f"({100 * RESOLVED[0]:.0f} to {100 * RESOLVED[1]:.0f} % of kT/2)."
        )
        return ["<h2>Vibrations about the sites</h2>", table(header, rows, caption)]

    def sentence(self, found: Sequence[tuple[RunResult, Vibrations]], cite: Cite) -> str:
        """Where the attempt frequency comes from."""
        sources = {each.source for _, each in found}
        spectrum = "the mean frequency of the spectrum of the ions' velocities"
        amplitude = "√(kT/m)/2πu of harmonic ions with the rms distance u from their sites along an axis"
        texts = {"spectrum": spectrum, "amplitude": amplitude}
        return f"Attempt frequencies are {' or '.join(texts[each] for each in sorted(sources))}."

    def lines(self, run: RunResult, found: Vibrations) -> list[str]:
        """Amplitude and attempt frequency."""
        how = "mean of the spectrum" if found.source == "spectrum" else "from the amplitude, harmonic"
        amplitude = f"vibration amplitude {measured(found.amplitude_a, 'Å')}, " if found.amplitude_a else ""
        frequency = measured(found.attempt_thz, "THz")
        return [f"{run.temperature_k:g} K: {amplitude}attempt frequency {frequency} ({how})"]


OBSERVABLE = VibrationsAboutSites()
