"""The same numbers in every engine: ASE = LAMMPS (1 rank and more, all modes) = i-PI."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms

from mlplugins.checks import engines
from mlplugins.checks.engines import Outcome, SinglePoint
from mlplugins.checks.result import ENERGY_UNIT, FORCE_UNIT, STRESS_UNIT, Check, limits
from mlplugins.errors import MlpluginsError
from mlplugins.model_file.artifact import Artifact

ENGINES = ("ase", "lammps", "ipi")
LARGEST_GHOST = 500
"""Atoms up to which the ghost mode is compared as well where the exchange mode is the default."""


def parity(
    model: Artifact,
    structures: Sequence[tuple[str, Atoms]],
    chosen: Sequence[str],
    ranks: Sequence[int],
    report: Callable[[str], None],
) -> list[Check]:
    """Rows of every engine against ASE.

    Args:
        model: the loaded file.
        structures: (name, structure).
        chosen: of `ENGINES`.
        ranks: of LAMMPS.
        report: called with what is compared next.
    """
    report("parity: ASE")
    atoms = [structure for _, structure in structures]
    references = engines.in_ase(model, atoms)
    rows: list[Check] = []
    if "lammps" in chosen:
        for (label, structure), reference in zip(structures, references):
            for count, mode in _modes(model, len(structure), ranks):
                report(f"parity: LAMMPS, {label}, {count} rank{'s' * (count > 1)}, {mode}")
                outcome = engines.in_lammps(model, structure, count, mode)
                rows += _compare(model, label, reference, outcome, ("lammps", count, mode))
    if "ipi" in chosen:
        report("parity: i-PI")
        outcomes = engines.in_ipi(model, atoms)
        for (label, _), reference, outcome in zip(structures, references, outcomes):
            rows += _compare(model, label, reference, outcome, ("ipi", 1, "ffdirect"))
        report("parity: i-PI, socket")
        [outcome] = engines.in_ipi(model, atoms[:1], socket=True)
        rows += _compare(model, structures[0][0], references[0], outcome, ("ipi", 1, "socket"))
    return rows


def _modes(model: Artifact, n_atoms: int, ranks: Sequence[int]) -> list[tuple[int, str]]:
    """Which ranks and modes are run."""
    modes = [(1, "fold")] if 1 in ranks else []
    exchanges = model.n_layers is not None and model.n_layers > 1 and not model.record.get("portable", False)
    for count in ranks:
        if count > 1:
            if exchanges:
                modes.append((count, "exchange"))
            if not exchanges or n_atoms <= LARGEST_GHOST:
                modes.append((count, "ghost"))
    return modes


def _compare(
    model: Artifact, label: str, reference: Outcome, outcome: Outcome, how: tuple[str, int, str]
) -> list[Check]:
    engine, count, detail = how

    def row(name: str, value: float, limit: float, unit: str, note: str = "") -> Check:
        return Check(f"{name} = ASE ({detail})", engine, count, value, limit, unit, label, note)

    for failed in (reference, outcome):
        if isinstance(failed, MlpluginsError):
            return [row("energy, forces, stress", np.nan, 0.0, "", str(failed))]
    if not isinstance(reference, SinglePoint) or not isinstance(outcome, SinglePoint):
        raise TypeError(json.dumps([str(reference), str(outcome)]))
    n = len(reference.forces)
    bounds = limits(model, reference)
    deviation = np.abs(outcome.forces - reference.forces)
    rows = [
        row("energy", abs(outcome.energy - reference.energy) / n, bounds.energy, ENERGY_UNIT),
        row("forces", float(deviation.max()), bounds.force, FORCE_UNIT),
    ]
    if reference.stress is not None and outcome.stress is not None:
        stress = float(np.abs(outcome.stress - reference.stress).max())
        rows.append(row("stress", stress, bounds.stress, STRESS_UNIT))
    return rows
