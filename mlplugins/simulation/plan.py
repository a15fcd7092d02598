"""From a configuration to runs: structure, element order, directories, and what is refused beforehand."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import yaml
from ase import Atoms
from ase.data import atomic_numbers

from mlplugins.engines import artifact
from mlplugins.errors import BadInput
from mlplugins.simulation.config import Mobile, SimulationConfig

MOBILE_IONS = {"Li": 1.0, "Na": 1.0, "K": 1.0, "Rb": 1.0, "Cs": 1.0, "Ag": 1.0}
"""Ions taken as the mobile ones if the configuration names none (the first that the structure holds)."""

NOT_PHYSICS = ("temperatures", "seeds", "parallel", "ranks", "threads", "mobile", "engine", "cluster")
"""Keys that do not change what one existing run is."""


@dataclass(frozen=True)
class Run:
    """One trajectory: a temperature, a seed, a directory.

    Attributes:
        config: the campaign.
        atoms: structure after `supercell`, without calculator.
        elements: symbols in the order of the LAMMPS types.
        temperature: K.
        seed: of velocities and thermostats.
        directory: where the host runs.
    """

    config: SimulationConfig
    atoms: Atoms
    elements: tuple[str, ...]
    temperature: float
    seed: int
    directory: Path

    @property
    def name(self) -> str:
        """Such as `T0700_seed1`."""
        return self.directory.name

    @property
    def title(self) -> str:
        """One line for the head of the host's files."""
        what = f"{self.atoms.get_chemical_formula()}, {self.temperature:g} K, seed {self.seed}"
        return f"{what}, {self.config.ensemble.upper()}; written by mlplugins simulate"

    @property
    def periodic(self) -> bool:
        """Periodic in all three directions."""
        return bool(self.atoms.pbc.all())


@dataclass(frozen=True)
class Campaign:
    """All runs of a configuration with one engine.

    Attributes:
        config: as validated.
        directory: holds one directory per run.
        runs: every temperature with every seed.
        fingerprint: SHA-256 of the model and of the structure.
    """

    config: SimulationConfig
    directory: Path
    runs: tuple[Run, ...]
    fingerprint: dict[str, str]

    def settings(self) -> dict[str, Any]:
        """What an existing run must share with the configuration to be continued."""
        values = self.config.model_dump(mode="json", exclude=set(NOT_PHYSICS))
        return {
            **values,
            **self.fingerprint,
            "model": str(self.config.model),
            "structure": self.config.structure,
        }


def plan(config: SimulationConfig, directory: Path) -> Campaign:
    """Read structure and model, refuse what cannot work, lay out the runs (nothing is written).

    Raises:
        BadInput: missing files, elements that the model does not know, NPT without a periodic cell.
    """
    atoms = read_structure(config.structure)
    model = artifact.load(config.model, device=config.device)
    unknown = sorted(set(atoms.get_chemical_symbols()) - set(model.elements))
    if unknown:
        raise BadInput(
            f"structure '{config.structure}' holds {', '.join(unknown)}, which '{config.model.name}' "
            f"does not know; it knows {', '.join(model.elements)}"
        )
    _check_cell(config, atoms)
    supercell = atoms.repeat(config.supercell)
    elements = tuple(sorted(set(atoms.get_chemical_symbols()), key=lambda symbol: atomic_numbers[symbol]))
    _mobile(config, elements)
    root = directory / config.engine
    runs = tuple(
        Run(config, supercell, elements, temperature, seed, root / f"T{_padded(temperature)}_seed{seed}")
        for temperature in config.temperatures
        for seed in config.seeds
    )
    fingerprint = {
        "model_sha256": hashlib.sha256(config.model.read_bytes()).hexdigest(),
        "structure_sha256": _hash(supercell),
    }
    return Campaign(config, root, runs, fingerprint)


def read_structure(source: str) -> Atoms:
    """Read `file` or `file@index` (default: the last frame) without calculator and constraints.

    Raises:
        BadInput: no such file, not readable, no such frame, positions not finite.
    """
    name, at, index = source.rpartition("@")
    path = Path(name if at else source)
    if not path.is_file():
        raise BadInput(f"no such structure file: '{path}'")
    try:
        atoms = ase.io.read(path, index=int(index) if at else -1)
    except Exception as error:  # ASE's readers raise whatever the format's parser raises
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise BadInput(
            f"structure '{source}': ASE cannot read it ({reason}); expected FILE or FILE@INDEX"
        ) from error
    if not isinstance(atoms, Atoms) or len(atoms) == 0:
        raise BadInput(f"structure '{source}': expected one structure with atoms")
    if not np.isfinite(atoms.positions).all():
        raise BadInput(f"structure '{source}': positions are not finite")
    atoms.calc = None
    atoms.set_constraint()
    atoms.set_velocities(np.zeros((len(atoms), 3)))
    return atoms


def conductivity_inputs(campaign: Campaign, trajectories: Sequence[Sequence[Path]], base: Path) -> str:
    """The YAML that `mlplugins conductivity` reads: every trajectory with its temperature and time step.

    Args:
        campaign: its runs.
        trajectories: the files of each run.
        base: directory of the YAML, to which the paths are relative.
    """
    mobile = _mobile(campaign.config, campaign.runs[0].elements)
    runs = [
        {
            "files": [str(path.relative_to(base)) for path in files],
            "temperature": run.temperature,
            "timestep": run.config.timestep,
            "interval": run.config.dump_interval,
        }
        for run, files in zip(campaign.runs, trajectories)
    ]
    head = "# mlplugins conductivity conductivity.yaml     (temperature in K, MD time step in fs)\n"
    if mobile is None:
        head += "# name the ion that moves: species: Li, charge: 1\n"
        return head + yaml.safe_dump({"runs": runs}, sort_keys=False, default_flow_style=None)
    content = {"species": mobile.species, "charge": mobile.charge, "runs": runs}
    return head + yaml.safe_dump(content, sort_keys=False, default_flow_style=None)


def _check_cell(config: SimulationConfig, atoms: Atoms) -> None:
    if atoms.pbc.any() and not atoms.cell[atoms.pbc].any(axis=1).all():
        raise BadInput(f"structure '{config.structure}': periodic along a direction without a cell vector")
    if config.needs_pressure and not atoms.pbc.all():
        raise BadInput(
            f"structure '{config.structure}': NPT needs a cell periodic in three directions, "
            f"got pbc = {atoms.pbc.tolist()}; use ensemble nvt and npt_steps 0"
        )
    repeated = [n for n, periodic in zip(config.supercell, atoms.pbc) if n > 1 and not periodic]
    if repeated:
        raise BadInput(f"'supercell': {list(config.supercell)} repeats a direction that is not periodic")
    if len(atoms) == 1 and config.supercell == (1, 1, 1):
        raise BadInput(f"structure '{config.structure}': one atom has no temperature; give a 'supercell'")


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


def _padded(temperature: float) -> str:
    whole, point, rest = f"{temperature:g}".partition(".")
    return whole.rjust(4, "0") + point + rest


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
    return digest.hexdigest()
