"""Contract of an engine: the functions and constants of the file `engine.py` in its folder.

A new engine is a folder `engines/NAME/` with that file; how it is divided further is its own matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ase import Atoms

from mlplugins.dynamics.run import Run, Stage
from mlplugins.engines.band import ImageBand, Relaxed
from mlplugins.engines.findings import Finding
from mlplugins.errors import MlpluginsError
from mlplugins.quantities import Results

if TYPE_CHECKING:  # torch: `mlplugins doctor` works without
    from mlplugins.model_file.artifact import Artifact


@dataclass(frozen=True)
class Abilities:
    """Capabilities of an engine's dynamics beyond one classical run on one rank.

    Attributes:
        thermostats: of `thermostat.kind`.
        couplings: of `barostat.coupling`.
        ranks: whether one run can use several MPI ranks.
        beads: whether it does path integrals.
        mts: whether it has an integrator with multiple time steps.
        turns: whether it turns cells so that a lies along x and b in the plane of x and y.
        band: optimises a path between two minima (`engines/band.py`); None: it cannot.
    """

    thermostats: tuple[str, ...]
    couplings: tuple[str, ...]
    ranks: bool = False
    beads: bool = False
    mts: bool = False
    turns: bool = False
    band: Callable[[ImageBand], Relaxed] | None = None


@dataclass(frozen=True)
class Way:
    """One way in which an engine evaluates structures.

    Attributes:
        structures: which of those that were given, by their place.
        ranks: MPI ranks.
        detail: what distinguishes it from other ways, such as a mode or a transport.
    """

    structures: tuple[int, ...]
    ranks: int = 1
    detail: str = ""


class Engine(Protocol):
    """A module with these names.

    Attributes:
        TITLE: how the engine is called in texts.
        ABILITIES: what the settings of its runs may ask for.
    """

    TITLE: str
    ABILITIES: Abilities

    def require(self, run: Run) -> None:
        """Refuse (BadInput, MissingDependency) if the host is absent or cannot do what the run asks."""

    def write(self, run: Run) -> None:
        """Write the host's input files into `run.directory`, which exists."""

    def next_stage(self, run: Run) -> Stage | None:
        """Prepare what is left to do, from the last state that the host saved; None if nothing is."""

    def steps_done(self, run: Run) -> int:
        """Number of steps done, of `run.config.total_steps`; changes nothing."""

    def prune(self, run: Run) -> None:
        """Remove saved states that are no longer needed."""

    def has_state(self, run: Run) -> bool:
        """Whether the host saved a state from which the run can be continued; changes nothing."""

    def hottest(self, run: Run) -> float:
        """Highest temperature in the last part of the log, K; infinite if it is NaN; changes nothing."""

    def failure(self, run: Run) -> list[str]:
        """Last messages of the host; changes nothing."""

    def trajectories(self, run: Run) -> list[Path]:
        """Files that hold the production frames."""

    def ways(self, model: Artifact, structures: Sequence[Atoms], ranks: Sequence[int]) -> list[Way]:
        """The ways in which `mlplugins check` lets the engine evaluate structures, in order.

        Args:
            model: the loaded file.
            structures: all that are checked.
            ranks: MPI ranks that were asked for, for an engine that has them.
        """

    def single_points(
        self, model: Artifact, structures: Sequence[Atoms], way: Way
    ) -> list[Results | MlpluginsError]:
        """Energy, forces and stress of each structure, computed by the engine itself; or why there are none.

        Args:
            model: the loaded file.
            structures: those of `way`.
            way: of `ways`.
        """

    def diagnose(self) -> Iterator[Finding]:
        """Findings of `mlplugins doctor` about the engine's programs and packages."""
