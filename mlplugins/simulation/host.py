"""What a host engine's file offers; found by name in `mlplugins/simulation/hosts/`."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, cast

from mlplugins import registry
from mlplugins.simulation.plan import Run
from mlplugins.simulation.process import Stage

PACKAGE = "mlplugins.simulation.hosts"


class Host(Protocol):
    """A module with these functions."""

    def require(self, run: Run) -> None:
        """Refuse (BadInput, MissingDependency) if the host is absent or cannot do what the run asks."""

    def write(self, run: Run) -> None:
        """Write the host's input files into `run.directory`, which exists."""

    def next_stage(self, run: Run) -> Stage | None:
        """Prepare what is left to do, from the last state that the host saved; None if nothing is."""

    def steps_done(self, run: Run) -> int:
        """How far the run is, of `run.config.total_steps`; only looks."""

    def prune(self, run: Run) -> None:
        """Remove saved states that are no longer needed."""

    def has_state(self, run: Run) -> bool:
        """Whether the host saved a state from which the run can be continued."""

    def hottest(self, run: Run) -> float:
        """Highest temperature in the last part of the log, K; infinite if it is not a number."""

    def failure(self, run: Run) -> list[str]:
        """The host's last words."""

    def trajectories(self, run: Run) -> list[Path]:
        """Files that hold the production frames."""


def load(engine: str) -> Host:
    """The host engine of that name."""
    return cast(Host, registry.load(PACKAGE, engine, "engine"))
