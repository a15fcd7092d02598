"""How the runs of a campaign were made, in words: `conductivity.yaml` carries it to the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlplugins import engines
from mlplugins.dynamics.run import Run
from mlplugins.dynamics.settings import SimulationConfig
from mlplugins.model_file.artifact import Artifact
from mlplugins.units import FS_PER_PS

ERRORS = (("energy", "rmse_meV_per_atom", "meV/atom"), ("forces", "rmse_meV_per_A", "meV/Å"))


def potential(model: Artifact) -> dict[str, str]:
    """The model and its errors.

    Args:
        model: as the campaign loads it.
    """
    name = model.family or model.name or "metatomic model"
    data = model.record.get("data") or {}
    frames = f", trained on {data['n_train']} structures" if "n_train" in data else ""
    return {
        "potential": f"{model.path.name}: {name}, cutoff {model.cutoff:g} Å, {model.dtype}{frames}",
        "test errors of the potential": _errors(model.record.get("errors")),
    }


def _errors(of_sets: Any) -> str:
    """RMSE of frames that were not fitted."""
    for name in ("test", "validation"):
        found = of_sets.get(name) if isinstance(of_sets, dict) else None
        values = [
            f"{label} {found[label][key]:.3g} {unit}"
            for label, key, unit in ERRORS
            if found and found.get(label)
        ]
        if found and values:
            return f"RMSE of {', '.join(values)} ({found['n_structures']} {name} structures)"
    return "not recorded in the model"


def described(
    config: SimulationConfig, runs: Sequence[Run], model: dict[str, str], command: str, begun: str
) -> dict[str, str]:
    """Names and values for the table of the report.

    Args:
        config: of the campaign.
        runs: all of them.
        model: from `potential`.
        command: that made them.
        begun: date.
    """
    atoms = runs[0].atoms
    repeated = " × ".join(map(str, config.supercell))
    frame_fs = config.timestep * config.dump_interval
    cell = f", {atoms.cell.volume:.5g} Å³ at the start" if atoms.pbc.all() else ""
    held = int(runs[0].fixed.any(axis=1).sum())
    return {
        "structure": f"{atoms.get_chemical_formula()}, {len(atoms)} atoms, {repeated} cells of the file{cell}"
        + (f", {held} atoms fixed" if held else ""),
        **model,
        "engine": engines.load(config.engine).TITLE,
        "ensemble": _ensemble(config),
        "time step": f"{config.timestep:g} fs{' (outer step)' if config.mts else ''}, "
        f"a frame every {frame_fs:g} fs",
        "length of a run": f"{config.steps} steps ({config.steps * config.timestep / FS_PER_PS:g} ps) after "
        + _equilibration(config),
        "seeds": f"{', '.join(map(str, config.seeds))} at each temperature",
        "command": command,
        "begun": begun,
    }


def _ensemble(config: SimulationConfig) -> str:
    texts = [config.ensemble.upper()]
    if config.ensemble != "nve":
        heat = config.thermostat
        texts.append(f"{heat.kind} thermostat, {heat.time_constant:g} fs")
    if config.ensemble == "npt":
        press = config.barostat
        texts.append(f"{press.coupling} barostat, {press.time_constant:g} fs, {config.pressure:g} GPa")
    if config.beads > 1:
        texts.append(f"path integrals of {config.beads} beads")
    return "; ".join(texts)


def _equilibration(config: SimulationConfig) -> str:
    before = config.equilibration
    stages = [
        f"{steps} steps of {what}"
        for steps, what in ((before.npt_steps, "NPT for the mean cell"), (before.steps, "Langevin NVT"))
        if steps
    ]
    return " and ".join(stages) or "no equilibration"


def together(all_of_them: Sequence[dict[str, str]]) -> dict[str, str]:
    """Of several campaigns: what they share once, what differs one after the other.

    >>> together([{"engine": "LAMMPS", "seeds": "1"}, {"engine": "i-PI", "seeds": "1"}])
    {'engine': 'LAMMPS; i-PI', 'seeds': '1'}
    """
    names = dict.fromkeys(name for each in all_of_them for name in each)
    return {
        name: "; ".join(dict.fromkeys(each[name] for each in all_of_them if name in each)) for name in names
    }
