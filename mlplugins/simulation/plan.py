"""From a configuration to runs: structure, element order, directories, and checks beforehand."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase import Atoms
from ase.data import atomic_numbers

from mlplugins import engines, files
from mlplugins.dynamics import start
from mlplugins.dynamics.run import Run
from mlplugins.dynamics.settings import DIRECT, Mobile, SimulationConfig, label
from mlplugins.dynamics.start import read_structure
from mlplugins.elements import require_known
from mlplugins.errors import BadInput
from mlplugins.model_file import artifact
from mlplugins.model_file.doubts import closest
from mlplugins.simulation import provenance, time_steps, watching
from mlplugins.simulation.config import require_able

UPRIGHT = 1e-8
"""Components of an upright cell above its diagonal, relative to its largest."""
MOBILE_IONS = {"Li": 1.0, "Na": 1.0, "K": 1.0, "Rb": 1.0, "Cs": 1.0, "Ag": 1.0}
"""Ions taken as the mobile ones if the configuration names none (the first that the structure holds)."""

NOT_PHYSICS = ("temperatures", "seeds", "parallel", "ranks", "threads", "mobile", "engine", "cluster")
"""Keys that do not change what one existing run is."""

WATCH = ("stop_above", "keep_above", "watch_interval", "probes")
"""Keys that may change while a run is continued: its input files are then written again."""

LATER_KEYS = ("velocities", "beads", "mts")
"""Keys that status files of older versions lack."""

PLACES = ("model", "structure", "inner")
"""Where the files are, which may change: their contents are compared by `fingerprint`."""


NVE_TEMPERATURE = 0.25
"""How far (relative) the start velocities of an NVE run may be off the temperature it is named after."""


@dataclass(frozen=True)
class Campaign:
    """All runs of a configuration with one engine.

    Attributes:
        config: as validated.
        directory: holds one directory per run.
        runs: every temperature with every seed.
        fingerprint: SHA-256 of the model and of the structure.
        notes: what of the start structure is kept or has no part, for the user.
        potential: the model in words, for the report.
        command: what the campaign is made by, for the report.
    """

    config: SimulationConfig
    directory: Path
    runs: tuple[Run, ...]
    fingerprint: dict[str, str]
    notes: tuple[str, ...] = ()
    potential: dict[str, str] = field(default_factory=dict)
    command: str = "mlplugins.simulate, from Python"

    def settings(self) -> dict[str, Any]:
        """What an existing run must share with the configuration to be continued."""
        values = self.config.model_dump(mode="json", exclude=set(NOT_PHYSICS))
        mts = self.config.mts
        inner = None if mts is None else mts.inner
        return {
            **values,
            **self.fingerprint,
            "mts": mts and {"inner": inner if inner == DIRECT else "a file", "every": mts.every},
            "model": str(self.config.model),
            "structure": self.config.structure,
            "inner": inner,
        }


def with_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of an older run, with the values then implied for keys that were added later."""
    fields = SimulationConfig.model_fields
    later = {key: fields[key].default for key in (*LATER_KEYS, *WATCH)}
    return {**later, **settings}


def plan(config: SimulationConfig, directory: Path) -> Campaign:
    """Read structure and model, refuse what cannot work, lay out the runs (nothing is written).

    Raises:
        BadInput: what the engine cannot do, missing files, elements that the model does not know, NPT
            without a periodic cell, and what `start.prepare`, `time_steps.checked` and `watching.of` refuse.
    """
    require_able(config)
    given = read_structure(config.structure)
    model = artifact.load(config.model, device=config.device)
    time_steps.require_forces(model, "model")
    config = config.model_copy(update={"model": model.path})  # absolute: the runs have folders of their own
    require_known(
        given.symbols,
        model.elements,
        f"structure '{config.structure}' holds ",
        f", which '{config.model.name}' does not know; it knows {', '.join(model.elements)}",
    )
    _check_cell(config, given)
    model.state(given.info, f"structure '{config.structure}'")
    taken = start.ForModel(model.repels, tuple(model.inputs), closest(model.record, model.cutoff))
    atoms, notes = start.prepare(given, config.structure, config.supercell, config.velocities, taken)
    _check_start(config, atoms)
    notes = (*notes, *_turned(config, atoms))
    watch, said = watching.of(config, model)
    inner = time_steps.checked(config, model, atoms)
    if inner is not None:
        config = config.model_copy(update={"mts": inner.settings})
    elements = tuple(sorted(set(atoms.get_chemical_symbols()), key=lambda symbol: atomic_numbers[symbol]))
    _mobile(config, elements)
    root = directory / config.engine
    runs = tuple(
        Run(
            config,
            atoms,
            elements,
            temperature,
            seed,
            root / f"T{label(temperature)}_seed{seed}",
            () if inner is None else inner.inputs,
            watch,
        )
        for temperature in config.temperatures
        for seed in config.seeds
    )
    fingerprint = {
        "model_sha256": files.sha256(config.model),
        "structure_sha256": _hash(atoms),
    }
    potential, notes = provenance.potential(model), (*notes, *said)
    if inner is not None:
        fingerprint, notes = fingerprint | inner.fingerprint, (*notes, *inner.notes)
        potential |= inner.made
    return Campaign(config, root, runs, fingerprint, notes, potential)


def conductivity_inputs(
    campaign: Campaign, trajectories: Sequence[Sequence[Path]], base: Path, begun: str = ""
) -> str:
    """The YAML that `mlplugins conductivity` reads: every trajectory with its temperature and time step, and
    how they were made.

    Args:
        campaign: its runs.
        trajectories: the files of each run.
        base: directory of the YAML, to which the paths are relative.
        begun: date of the campaign; today's if none is given.
    """
    mobile = _mobile(campaign.config, campaign.runs[0].elements)
    runs = [
        {
            "files": [str(path.relative_to(base)) for path in files],
            "temperature": run.temperature,
            "timestep": run.config.timestep,
            "interval": run.config.dump_interval,
            **watching.entry(run, base),
        }
        for run, files in zip(campaign.runs, trajectories)
    ]
    head = "# mlplugins conductivity conductivity.yaml     (temperature in K, MD time step in fs)\n"
    if mobile is None:
        head += "# name the ion that moves: species: Li, charge: 1\n"
    moving = {} if mobile is None else {"species": mobile.species, "charge": mobile.charge}
    dynamics = provenance.described(
        campaign.config,
        campaign.runs,
        campaign.potential,
        campaign.command,
        begun or date.today().isoformat(),
    )
    return head + as_yaml({**moving, "runs": runs, "dynamics": dynamics})


def as_yaml(content: Mapping[str, Any]) -> str:
    """The content of conductivity.yaml: a line for each run, and for each entry of `dynamics`."""
    rest = dict(content)
    made = {"dynamics": rest.pop("dynamics")}
    text = yaml.safe_dump(rest, sort_keys=False, default_flow_style=None)
    return text + yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=1000)


def _check_cell(config: SimulationConfig, atoms: Atoms) -> None:
    if atoms.pbc.any() and not atoms.cell[atoms.pbc].any(axis=1).all():
        raise BadInput(f"structure '{config.structure}': periodic along a direction without a cell vector")
    if config.needs_pressure and not atoms.pbc.all():
        raise BadInput(
            f"structure '{config.structure}': NPT needs a cell periodic in three directions, "
            f"got pbc = {atoms.pbc.tolist()}; use ensemble nvt and npt_steps 0"
        )
    if len(atoms) == 1 and config.supercell == (1, 1, 1):
        raise BadInput(f"structure '{config.structure}': one atom has no temperature; give a 'supercell'")


def _turned(config: SimulationConfig, atoms: Atoms) -> list[str]:
    """A note on axes of the results that are not those of the structure."""
    engine = engines.load(config.engine)
    above = np.abs(np.triu(atoms.cell.array, 1)).max()
    if not engine.ABILITIES.turns or not atoms.pbc.any() or above < UPRIGHT * np.abs(atoms.cell.array).max():
        return []
    return [
        f"{engine.TITLE} turns the cell of '{config.structure}' (a along x, b in the plane of x and y): x, y "
        "and z of its trajectories, and of D, stresses and dipoles of them, are not those of the structure"
    ]


def _check_start(config: SimulationConfig, atoms: Atoms) -> None:
    """Refuse settings that the constraints or velocities of the start structure make meaningless."""
    where = f"structure '{config.structure}'"
    if atoms.constraints and config.needs_pressure:
        raise BadInput(
            f"{where}: fixed atoms and a cell that changes exclude each other; use ensemble nvt or nve and "
            "npt_steps 0, or take the constraints out of the file"
        )
    if atoms.constraints and config.beads > 1:
        raise BadInput(f"{where}: fixed atoms with 'beads' {config.beads} are not supported; use beads 1")
    if atoms.has("momenta"):
        _check_velocities(config, atoms, where)


def _check_velocities(config: SimulationConfig, atoms: Atoms, where: str) -> None:
    if config.beads > 1:
        raise BadInput(
            f"{where}: its velocities are of atoms, not of {config.beads} beads; use velocities: thermal"
        )
    if config.ensemble != "nve" or config.equilibration.steps or config.equilibration.npt_steps:
        return
    found = start.temperature(atoms)
    wrong = [t for t in config.temperatures if abs(t - found) > NVE_TEMPERATURE * t]
    if wrong or len(config.seeds) > 1:
        what = f"{wrong[0]:g} K was asked for" if wrong else "all 'seeds' would give the same run"
        raise BadInput(
            f"{where}: NVE without equilibration from its own velocities ({found:.4g} K), but {what}; use "
            "velocities: thermal, or an equilibration"
        )


def _mobile(config: SimulationConfig, elements: tuple[str, ...]) -> Mobile | None:
    if config.mobile is not None:
        if config.mobile.species not in elements:
            raise BadInput(
                f"'mobile.species': '{config.mobile.species}' is not in the structure ({', '.join(elements)})"
            )
        return config.mobile
    for species, charge in MOBILE_IONS.items():
        if species in elements:
            return Mobile(species=species, charge=charge)
    return None


def _hash(atoms: Atoms) -> str:
    digest = hashlib.sha256()
    for array in (
        atoms.numbers.astype(np.int64),
        atoms.positions,
        atoms.cell.array,
        atoms.pbc,
        atoms.get_masses(),
    ):
        digest.update(np.ascontiguousarray(array).tobytes())
    if atoms.has("momenta"):
        digest.update(b"momenta" + np.ascontiguousarray(atoms.get_momenta()).tobytes())
    if atoms.info:  # charge and spin
        digest.update(repr(sorted(atoms.info.items())).encode())
    if atoms.constraints:
        digest.update(b"fixed" + np.ascontiguousarray(start.fixed(atoms)).tobytes())
    return digest.hexdigest()
