"""All checks of a model file on some structures: what `mlplugins check` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mlplugins import engines
from mlplugins.checks import parity
from mlplugins.checks.md import NVE, md_checks
from mlplugins.checks.physics import NVE_FEWEST, PhysicsChecks
from mlplugins.checks.result import Check
from mlplugins.elements import require_known
from mlplugins.errors import BadInput, RunFailed, nearest
from mlplugins.model_file import artifact
from mlplugins.model_file.artifact import Artifact
from mlplugins.model_file.card import RADIAL
from mlplugins.quantities import ENERGY
from mlplugins.structures import extxyz

Named = tuple[str, Atoms]
PHYSICS_STEPS = 8
"""How often `PhysicsChecks.run` reports for one structure, at most."""


@dataclass(frozen=True)
class CheckOptions:
    """What is checked.

    Attributes:
        engines: which are compared with ASE's calculator; None: all of `engines.available()`.
        ranks: MPI ranks, for engines that have them.
        nve_steps: steps of the short NVE in ASE, 4 at least; 0: none.
        md: also 4 ps of NVE in LAMMPS, of the first structure.
        unconstrained: rotations and inversion are reported, not judged: for models that learn them.
        variants: which of several energies (`pbe` of `energy/pbe`), one after another; `all` of them; none:
            the one that `model` has been loaded with, or its default.
    """

    engines: tuple[str, ...] | None = None
    ranks: tuple[int, ...] = (1, 2)
    nve_steps: int = 200
    md: bool = False
    unconstrained: bool = False
    variants: tuple[str, ...] = ()

    @property
    def chosen(self) -> tuple[str, ...]:
        """The engines.

        Raises:
            BadInput: an unknown one, none, ranks or steps that are none, `md` without LAMMPS.
        """
        names = engines.available()
        found = tuple(names) if self.engines is None else self.engines
        for name in found:
            if name not in names:
                raise BadInput(f"engines (--engines): unknown engine '{name}': {nearest(name, names)}")
        if not found:
            raise BadInput(f"engines (--engines): expected some of {', '.join(names)}")
        if not self.ranks or min(self.ranks) < 1 or (self.nve_steps != 0 and self.nve_steps < NVE_FEWEST):
            raise BadInput(
                f"ranks (--ranks): expected numbers from 1, nve_steps (--nve-steps): {NVE_FEWEST} at least, "
                f"as fewer show no drift, or 0; got {' '.join(map(str, self.ranks))} and {self.nve_steps}"
            )
        if self.md and "lammps" not in found:
            raise BadInput("md (--md) runs in LAMMPS: add lammps to the engines (--engines)")
        return found


@dataclass(frozen=True)
class CheckReport:
    """What was found.

    Attributes:
        model: the loaded file, with the first of the energies that were checked.
        rows: one per check; one that could not be done failed, with the reason as its note.
    """

    model: Artifact
    rows: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(row.passed for row in self.rows)

    def record(self) -> dict[str, Any]:
        """As the JSON file holds it."""
        return {
            "passed": self.passed,
            "checks": [row.record() for row in self.rows],
            RADIAL: self.model.record.get(RADIAL),
        }


def check(
    model: str | Path | Artifact,
    structures: str | Path | Atoms | Sequence[str | Path | Atoms],
    options: CheckOptions = CheckOptions(),
    device: str = "cpu",
    report: Callable[[str, int, int], None] = lambda text, step, total: None,
) -> CheckReport:
    """Whether a model is physical, and the same in every engine.

    Args:
        model: model file, or one that is loaded.
        structures: `FILE` (all its frames), `FILE@INDEX`, or structures.
        options: what is checked.
        device: on which a file is loaded.
        report: called with what is checked next, and which step of how many that is.

    Raises:
        BadInput: no such file, engine, structure or energy, or an element that the model does not know.

    >>> check("model.pt", ["no-such-structure.xyz"])
    Traceback (most recent call last):
    ...
    mlplugins.errors.BadInput: no such structure file: 'no-such-structure.xyz'
    """
    chosen = options.chosen
    several = [structures] if isinstance(structures, str | Path | Atoms) else structures
    named = [one for k, given in enumerate(several) for one in _named(given, k)]
    if not named:
        raise BadInput("expected one structure at least, got none")
    loaded = model if isinstance(model, Artifact) else artifact.load(model, device=device)
    for label, atoms in named:
        known = f"; it knows {', '.join(loaded.elements)}"
        require_known(atoms.symbols, loaded.elements, f"{label}: the model does not know ", known)
    models = _of_each_energy(loaded, options.variants)
    ranks = (1,) if loaded.molecular else options.ranks  # a whole molecule refuses more
    each = PHYSICS_STEPS * len(named) + parity.steps(loaded, named, chosen, ranks) + options.md
    rows: list[Check] = []
    for k, one in enumerate(models):
        said = f", {one.energy_output}" if options.variants else ""
        own = [(label + said, atoms) for label, atoms in named]
        rows += _of_one(one, own, options, ranks, _Steps(report, k * each, each, each * len(models)))
    return CheckReport(models[0], tuple(rows))


class _Steps:
    """Progress of the checks of one energy: steps `done` + 1 … `done` + `own` of `total`."""

    def __init__(self, report: Callable[[str, int, int], None], done: int, own: int, total: int) -> None:
        self.report, self.step, self.last, self.total = report, done, done + own, total

    def __call__(self, text: str) -> None:
        self.step = min(self.step + 1, self.last)
        self.report(text, self.step, self.total)


def _of_one(
    model: Artifact, named: list[Named], options: CheckOptions, ranks: tuple[int, ...], tell: _Steps
) -> list[Check]:
    """All checks of one energy."""
    first = tell.step
    rows = [row for one in named for row in _physics(model, one, options, tell)]
    tell.step = first + PHYSICS_STEPS * len(named)
    rows += parity.parity(model, named, options.chosen, ranks, tell)
    if options.md:
        tell("NVE in LAMMPS")
        rows += md_checks(model, *named[0], ranks, NVE())
    return rows


def _of_each_energy(model: Artifact, names: tuple[str, ...]) -> list[Artifact]:
    """The file loaded with each of these energies."""
    if "all" in names:
        names = tuple(model.energies or (name for name in model.outputs if name.startswith(ENERGY)))
        if not names:
            raise BadInput(f"variants (--variant): '{model.path.name}' has one energy only: leave it out")
    return [artifact.load(model.path, model.device, name) for name in names] or [model]


def _physics(model: Artifact, one: Named, options: CheckOptions, tell: Callable[[str], None]) -> list[Check]:
    label, atoms = one
    try:
        suite = PhysicsChecks(model, atoms, label, options.unconstrained)
    except RunFailed as error:
        return [Check("evaluation", parity.REFERENCE, 1, np.nan, 0.0, "", label, str(error))]
    return suite.run(options.nve_steps, lambda name: tell(f"{label}: {name}"))


def _named(given: str | Path | Atoms, place: int) -> list[Named]:
    """Structures with their names in the table."""
    if isinstance(given, Atoms):
        return [(f"{given.get_chemical_formula()} ({place})", given)]
    name, at, index = str(given).rpartition("@")
    path = Path(name if at else given)
    if at and not index.lstrip("-").isdigit():
        path, at = Path(given), ""
    if not path.is_file():
        raise BadInput(f"no such structure file: '{path}'")
    try:
        frames = extxyz.read(path, index if at else ":")
    except BadInput:
        raise
    except Exception as error:  # ASE's readers raise whatever the format's parser raises
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise BadInput(f"'{given}': ASE cannot read it ({reason}); expected FILE or FILE@INDEX") from error
    frames = frames if isinstance(frames, list) else [frames]
    if not frames:
        raise BadInput(f"'{given}' holds no structure")
    if at:
        return [(f"{path.name}@{index}", frames[0])]
    return [(path.name if len(frames) == 1 else f"{path.name}@{k}", atoms) for k, atoms in enumerate(frames)]
