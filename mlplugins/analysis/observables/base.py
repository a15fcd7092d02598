"""Contract of an observable: computed at one temperature, with its own place in JSON, figures and report.

A file `observables/NAME.py` with an instance `OBSERVABLE` of a subclass is all there is to add: it is found
by its name, computed for every temperature, and every hook that it overrides is called. On the page of the
report appear `section`, `figures`, `checks` and `sentence`, on the terminal `lines`, on both `doubts`;
`tables` are CSV files. What takes several temperatures stands in the JSON beside them (`summary`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from mlplugins import registry
from mlplugins.analysis.result import RunResult
from mlplugins.analysis.sample import Sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # only when a report is wanted

PACKAGE = "mlplugins.analysis.observables"
HIDDEN = ("base",)

Found = TypeVar("Found")
Cite = Callable[..., str]
"""Keys of references → their numbers in brackets."""


class Observable(Generic[Found]):
    """One observable; `Found` is what it finds at one temperature.

    The hooks of a report take the temperatures at which something was found, cold to hot, as
    (result of the temperature, what was found), and are not called if there are none.

    Attributes:
        order: place among the observables, wherever several have something to say; equal ones by name.
        keys: of the JSON's entry of a temperature; null where nothing was found.
        summary_keys: of the JSON beside the temperatures, likewise.
        files: names of the `tables`.
        paragraph: part of the methods text that `sentence` stands at the end of: `fit` or `conductivity`.
        references: works that `sentence` cites beside those of the main text, by key.
    """

    order: int = 100
    keys: tuple[str, ...] = ()
    summary_keys: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    paragraph: Literal["fit", "conductivity"] = "conductivity"
    references: Mapping[str, str] = {}

    def compute(self, sample: Sample, notes: list[str]) -> Found | None:
        """The observable at one temperature; None where the data do not allow it.

        Args:
            sample: pooled runs with their fit and the settings.
            notes: to be appended to: warnings on what could not be had, without the temperature, which is
                put before them.

        Raises:
            BadInput: settings that make no sense for this sample.
        """
        raise NotImplementedError

    def as_json(self, found: Found) -> dict[str, object]:
        """Values of `keys`; NaN becomes null in the file."""
        return {}

    def doubts(self, found: Found | None, sample: Sample) -> list[str]:
        """Warnings about the result and its contradictions with the main numbers, without the temperature."""
        return []

    def figures(self, found: Sequence[tuple[RunResult, Found]]) -> dict[str, Figure]:
        """Figures by the names of their files."""
        return {}

    def tables(self, found: Sequence[tuple[RunResult, Found]]) -> dict[str, str]:
        """CSV tables by the names of their files, `files`."""
        return {}

    def summary(self, found: Sequence[tuple[RunResult, Found]]) -> dict[str, object]:
        """Values of `summary_keys`."""
        return {}

    def section(self, found: Sequence[tuple[RunResult, Found]]) -> list[str]:
        """Section of the report: pieces of HTML, first its heading, `<h2>…</h2>`; then e.g. `<p>…</p>` or
        `markup.table(…)`, which escapes its cells."""
        return []

    def checks(self, run: RunResult, found: Found) -> list[tuple[str, str]]:
        """(name, value), as text, for the section on independent checks."""
        return []

    def sentence(self, found: Sequence[tuple[RunResult, Found]], cite: Cite) -> str:
        """For the methods text, HTML; `cite("key")` gives the number of a reference."""
        return ""

    def lines(self, run: RunResult, found: Found) -> list[str]:
        """Printed below the table on the terminal."""
        return []

    def entries(self, found: Found | None) -> dict[str, object]:
        """Every one of `keys`, with null where nothing was found."""
        return dict.fromkeys(self.keys) | (self.as_json(found) if found is not None else {})


def registered() -> dict[str, Observable[Any]]:
    """All observables by name, in their order.

    >>> list(registered())[:2]
    ['bayes', 'known']
    """
    names = registry.available(PACKAGE, HIDDEN)
    loaded = {name: registry.load(PACKAGE, name, "observable", HIDDEN).OBSERVABLE for name in names}
    ordered = sorted(loaded.items(), key=lambda item: (item[1].order, item[0]))
    return {name.replace("-", "_"): each for name, each in ordered}


def found_in(name: str, runs: Sequence[RunResult]) -> list[tuple[RunResult, Any]]:
    """(run, what was found) of the runs in which an observable was found."""
    return [(run, run.observables[name]) for run in runs if run.observables.get(name) is not None]


def each_found(runs: Sequence[RunResult]) -> Iterator[tuple[Observable[Any], RunResult, Any]]:
    """(observable, run, what was found), run after run, of each the observables in their order."""
    observables = registered().items()
    for run in runs:
        for name, each in observables:
            for _, found in found_in(name, [run]):
                yield each, run, found


def summaries(runs: Sequence[RunResult]) -> dict[str, object]:
    """Entries of the observables in the JSON beside the temperatures."""
    entries: dict[str, object] = {}
    for name, each in registered().items():
        found = found_in(name, runs)
        entries |= dict.fromkeys(each.summary_keys) | (each.summary(found) if found else {})
    return entries


def check_rows(runs: Sequence[RunResult]) -> list[tuple[str, str]]:
    """Rows of the observables for the section on independent checks."""
    return [row for each, run, found in each_found(runs) for row in each.checks(run, found)]
