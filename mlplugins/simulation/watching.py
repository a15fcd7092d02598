"""Campaigns whose runs watch their own uncertainty: what the model offers, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlplugins.dynamics.run import Run
from mlplugins.dynamics.settings import SimulationConfig
from mlplugins.dynamics.watch import DEVIATION, ENERGY, FORCE, TABLE, Measure, Watch
from mlplugins.errors import BadInput
from mlplugins.model_file.artifact import Artifact


def of(config: SimulationConfig, model: Artifact) -> tuple[Watch | None, tuple[str, ...]]:
    """How the runs watch themselves, and what the user is told of it.

    Raises:
        BadInput: a model without uncertainty; multiple time steps.

    >>> of(SimulationConfig(model="m.pt", structure="a.cif", temperatures=9, steps=90), None)
    (None, ())
    """
    if not config.watches:
        return None, ()
    key = "stop_above" if config.stop_above is not None else "keep_above"
    measure = _measure(model, key)
    if config.mts is not None:
        raise BadInput(f"'{key}' with 'mts': steps of several lengths are not watched; leave one of them out")
    every = config.watch_interval or config.dump_interval
    watch = Watch(measure, every, config.stop_above, config.keep_above, config.probes)
    limits = [
        f"{name} {getattr(config, name):g} {measure.unit}"
        for name in ("keep_above", "stop_above")
        if getattr(config, name) is not None
    ]
    notes = [f"watched every {every} steps: the {measure.words} on the worst atom; {', '.join(limits)}"]
    if measure is ENERGY:
        notes.append(
            f"{model.path.name} has no uncertainty of forces ({model.without_force_uncertainty}): the "
            "thresholds are energies, in eV"
        )
    return watch, tuple(notes)


def _measure(model: Artifact, key: str) -> Measure:
    """The best that the model offers.

    Raises:
        BadInput: nothing.
    """
    if model.n_members > 1:
        return DEVIATION
    if model.has_force_uncertainty:
        return FORCE
    if model.has_uncertainty:
        return ENERGY
    why = "it is not one of mlplugins'" if model.family is None else model.without_force_uncertainty
    raise BadInput(f"'{key}': '{model.path.name}' predicts no uncertainty: {why}")


def entry(run: Run, base: Path) -> dict[str, Any]:
    """What `conductivity.yaml`, in the folder `base`, says of the watch of a run."""
    watch = run.watch
    if watch is None:
        return {}
    config = run.config
    limits = {name: getattr(watch, name) for name in ("keep_above", "stop_above")}
    return {
        "uncertainty": {
            "file": str((run.directory / TABLE).relative_to(base)),
            "what": watch.measure.words,
            "unit": watch.measure.unit,
            **{name: value for name, value in limits.items() if value is not None},
            "first_step": config.total_steps - config.steps,
        }
    }
