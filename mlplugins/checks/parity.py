"""The same numbers in every engine: each against ASE's calculator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms

from mlplugins import engines
from mlplugins.checks.result import ENERGY_UNIT, FORCE_UNIT, STRESS_UNIT, Check, limits
from mlplugins.engines.base import Way
from mlplugins.errors import MlpluginsError
from mlplugins.model_file.artifact import Artifact
from mlplugins.quantities import QUANTITIES, Results

REFERENCE = "ase"


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
        chosen: of `engines.available()`.
        ranks: MPI ranks, for engines that have them.
        report: called with what is compared next.
    """
    atoms = [structure for _, structure in structures]
    rows: list[Check] = []
    references: list[Results | MlpluginsError] = []
    for name in [REFERENCE, *(other for other in chosen if other != REFERENCE)]:
        engine = engines.load(name)
        for way in engine.ways(model, atoms, ranks):
            report(f"parity: {_describe(engine.TITLE, way, structures)}")
            outcomes = engine.single_points(model, [atoms[k] for k in way.structures], way)
            if name == REFERENCE:
                references += outcomes
                continue
            for k, outcome in zip(way.structures, outcomes):
                rows += _compare(model, structures[k][0], references[k], outcome, (name, way))
    return rows


def steps(
    model: Artifact, structures: Sequence[tuple[str, Atoms]], chosen: Sequence[str], ranks: Sequence[int]
) -> int:
    """Number of progress reports of `parity`."""
    atoms = [structure for _, structure in structures]
    return sum(len(engines.load(name).ways(model, atoms, ranks)) for name in {REFERENCE, *chosen})


def _describe(title: str, way: Way, structures: Sequence[tuple[str, Atoms]]) -> str:
    parts = [title]
    if len(way.structures) < len(structures):
        parts += [structures[k][0] for k in way.structures]
    if way.ranks > 1:
        parts.append(f"{way.ranks} ranks")
    return ", ".join([*parts, *filter(None, [way.detail])])


def _compare(
    model: Artifact,
    label: str,
    reference: Results | MlpluginsError,
    outcome: Results | MlpluginsError,
    how: tuple[str, Way],
) -> list[Check]:
    engine, way = how

    def row(name: str, value: float, limit: float, unit: str, note: str = "") -> Check:
        detail = f" ({way.detail})" if way.detail else ""
        return Check(f"{name} = ASE{detail}", engine, way.ranks, value, limit, unit, label, note)

    if isinstance(reference, MlpluginsError):
        return [row("energy, forces, stress", np.nan, 0.0, "", str(reference))]
    if isinstance(outcome, MlpluginsError):
        return [row("energy, forces, stress", np.nan, 0.0, "", str(outcome))]
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
    for name, value in (outcome.more or {}).items():
        expected, quantity = reference.get(name), QUANTITIES.get(name, QUANTITIES["energy"])
        if expected is not None:
            off = float(np.abs(value - expected).max()) / (n if quantity.extensive else 1)
            size = max(1.0, float(np.abs(expected).max()))
            limit = bounds.force * size if name in QUANTITIES else bounds.energy
            rows.append(row(name, off, limit, quantity.compared_unit))
    return rows
