"""A driver of i-PI that watches the uncertainty of what it computes, and ends above a limit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlplugins.dynamics.watch import DEVIATION, ENERGY, FORCE, Measure, Recorder, Watch
from mlplugins.engines.ipi.options import Options
from mlplugins.errors import BadInput
from mlplugins.model_file.artifact import Artifact, Committee
from mlplugins.model_file.structure import PlainStructure


class StepWatch:
    """Counts the structures that i-PI sends: `beads` of them are a step, of which the worst value counts.

    i-PI asks for the forces of every step once, and for those of the state that it starts from.
    """

    def __init__(self, options: Options, artifacts: Sequence[Artifact]) -> None:
        self.measure = _measure(artifacts)
        watch = Watch(
            self.measure, options.watch_interval, options.stop_above, options.keep_above, options.probes
        )
        self._every, self._beads = options.watch_interval, options.beads
        self._recorder = Recorder(watch, Path())
        self._first, self._seen = options.first_step, 0
        self._pending: list[tuple[NDArray[np.float64], PlainStructure]] = []

    def probes_due(self, count: int) -> bool:
        """Whether the force uncertainty of any of the next `count` structures is looked at."""
        steps = ((self._seen + k) // self._beads for k in range(count))
        return self.measure is FORCE and any(self._due(self._first + step) for step in steps)

    def look(self, structures: Sequence[PlainStructure], committees: Sequence[Committee]) -> None:
        """Record what is complete.

        Raises:
            RunStopped: above `stop_above`.
        """
        for structure, committee in zip(structures, committees):
            step = self._first + self._seen // self._beads
            self._seen += 1
            if self._due(step):
                self._pending.append((self._values(committee), structure))
            if self._seen % self._beads == 0 and self._pending:
                values = np.array([each for each, _ in self._pending])  # (beads, N)
                worst = self._pending[int(values.max(axis=1).argmax())][1]
                self._pending = []
                self._recorder.look(step, values.max(axis=0), partial(_atoms, worst))

    def _due(self, step: int) -> bool:
        return step % self._every == 0

    def _values(self, committee: Committee) -> NDArray[np.float64]:
        """(N,) of the measure, in its unit."""
        if self.measure is DEVIATION:
            return committee.deviation().devi_f
        of_model = committee.mean.forces_uncertainty
        if self.measure is FORCE and of_model is not None:
            return np.asarray(np.linalg.norm(of_model, axis=1))
        return np.asarray(committee.mean.uncertainties)


def watch(options: Options, artifacts: Sequence[Artifact]) -> StepWatch | None:
    """The watch that the options ask for; None if they do not.

    Raises:
        BadInput: a model without the uncertainty asked for.
    """
    first = artifacts[0]
    if options.force_uncertainty and not first.has_force_uncertainty:
        raise BadInput(
            f"force_uncertainty: '{first.path.name}' predicts none: {first.without_force_uncertainty}"
        )
    asked = options.stop_above is not None or options.keep_above is not None
    return StepWatch(options, artifacts) if asked else None


def probes(options: Options, watch: StepWatch | None, count: int) -> int | None:
    """Probes for the next `count` structures; None if nobody asks for the uncertainty of their forces."""
    due = bool(options.force_uncertainty) or (watch is not None and watch.probes_due(count))
    return options.probes if due else None


def _measure(artifacts: Sequence[Artifact]) -> Measure:
    first = artifacts[0]
    if sum(artifact.n_members for artifact in artifacts) > 1:
        return DEVIATION
    if first.has_force_uncertainty:
        return FORCE
    if first.has_uncertainty:
        return ENERGY
    raise BadInput(
        f"stop_above, keep_above: '{first.path.name}' predicts no uncertainty: "
        f"{first.without_force_uncertainty}"
    )


def _atoms(structure: PlainStructure) -> Atoms:
    return Atoms(
        numbers=structure.numbers, positions=structure.positions, cell=structure.cell, pbc=structure.pbc
    )
