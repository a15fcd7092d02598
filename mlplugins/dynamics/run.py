"""One run of molecular dynamics as passed to an engine, and the processes that the engine requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlplugins.dynamics import start
from mlplugins.dynamics.settings import SimulationConfig
from mlplugins.dynamics.watch import Watch
from mlplugins.errors import BadInput


@dataclass(frozen=True)
class Run:
    """One trajectory: a temperature, a seed, a directory.

    Attributes:
        config: the campaign.
        atoms: structure after `supercell`, from `start.prepare`.
        elements: its symbols, by atomic number.
        temperature: K.
        seed: of velocities and thermostats.
        directory: where the host runs.
        inner_inputs: `charge`, `spin_multiplicity`, if the model of the inner steps takes them.
        watch: how it watches its own uncertainty; None: it does not.
    """

    config: SimulationConfig
    atoms: Atoms
    elements: tuple[str, ...]
    temperature: float
    seed: int
    directory: Path
    inner_inputs: tuple[str, ...] = ()
    watch: Watch | None = None

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
    def fixed(self) -> NDArray[np.bool_]:
        """Cartesian components that are fixed, (N, 3)."""
        return start.fixed(self.atoms)

    @property
    def degrees_of_freedom(self) -> int:
        """Degrees of freedom as counted by temperatures and thermostats of every engine."""
        return start.degrees_of_freedom(self.atoms)

    @property
    def periodic(self) -> bool:
        """Periodic in all three directions."""
        return bool(self.atoms.pbc.all())


def require_axes(run: Run, rotation: NDArray[np.float64], engine: str) -> None:
    """Refuse components that are fixed along axes which an engine rotates.

    Args:
        run: with or without fixed atoms.
        rotation: (3, 3), of the structure into the engine's frame.
        engine: its name.
    """
    partly = run.fixed.any(axis=1) & ~run.fixed.all(axis=1)
    if partly.any() and not np.allclose(rotation, np.eye(3), atol=1e-8):
        raise BadInput(
            f"structure '{run.config.structure}': single components of {int(partly.sum())} atoms are fixed, "
            f"but {engine} needs the cell turned (a along x, b in the xy plane): turn the structure so, or "
            "use engine ase"
        )


@dataclass(frozen=True)
class Command:
    """One process of a stage.

    Attributes:
        arguments: the command line.
        output: file in the run's directory that takes stdout and stderr.
        environment: variables added to the parent's.
    """

    arguments: tuple[str, ...]
    output: str
    environment: dict[str, str] = field(default_factory=dict)


def threads(count: int) -> dict[str, str]:
    """Environment for that many OpenMP threads."""
    return {"OMP_NUM_THREADS": str(count)}


@dataclass(frozen=True)
class Stage:
    """Processes to run next: `leader` decides when the stage is over and if it succeeded; `servants` assist.

    Attributes:
        name: shown in messages.
        leader: started first.
        servants: started once `ready()` is true.
        ready: e.g. whether the leader's socket exists.
    """

    name: str
    leader: Command
    servants: tuple[Command, ...] = ()
    ready: Callable[[], bool] = lambda: True
