"""A run in ASE that watches its own uncertainty."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ase import Atoms

from mlplugins.dynamics import watch
from mlplugins.dynamics.watch import DEVIATION, ENERGY, FORCE, MEASURES, Recorder, Watch
from mlplugins.errors import RunStopped

HERE = Path()
ALONG = {FORCE.key: "forces_uncertainty", ENERGY.key: "energies_uncertainty"}
"""Properties of the calculator that take an evaluation of their own, unless the forces are to bring them."""


class Watcher:
    """Looks at the uncertainty of the atoms every few steps, writes `uncertainty.dat` and frames in the
    working directory, and ends the process (exit code 3) above `stop_above`.

    Args:
        atoms: with an `MLCalculator`.
        measure: a key of `watch.MEASURES`.
        every: steps.
        stop_above, keep_above: in the unit of the measure; None: no limit.
        probes: of `force_uncertainty`; 0: exactly.
    """

    def __init__(
        self,
        atoms: Atoms,
        measure: str,
        every: int,
        stop_above: float | None = None,
        keep_above: float | None = None,
        probes: int = 8,
    ) -> None:
        self._atoms = atoms
        self._watch = Watch(MEASURES[measure], every, stop_above, keep_above, probes)
        self._recorder = Recorder(self._watch, HERE)
        atoms.calc.probes = probes

    def begin(self, step: int) -> None:
        """Forget what was written of this step and later ones."""
        watch.cut(HERE, step)

    def look(self, step: int) -> None:
        """Record this step, if it is one to look at; the forces of the next one come with what it needs."""
        if (name := ALONG.get(self._watch.measure.key)) is not None:
            along: set[str] = self._atoms.calc.along
            (along.discard if (step + 1) % self._watch.every else along.add)(name)
        if step % self._watch.every:
            return
        try:
            self._recorder.look(step, per_atom(self._atoms, self._watch.measure.key), self._atoms.copy)
        except RunStopped as end:
            print(f"stopped: {end}", flush=True)
            sys.exit(end.exit_code)


def per_atom(atoms: Atoms, measure: str) -> np.ndarray:
    """(N,) of the measure, in its unit: a model deviation, the norm of the standard deviations of the
    components of a force, or the standard deviation of an atomic energy."""
    if measure == DEVIATION.key:
        return np.asarray(atoms.calc.get_property("devi_f", atoms))
    if measure == FORCE.key:
        return np.asarray(np.linalg.norm(atoms.calc.get_property(ALONG[measure], atoms), axis=1))
    return np.asarray(atoms.calc.get_property(ALONG[measure], atoms))
