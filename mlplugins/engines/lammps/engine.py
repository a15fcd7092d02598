"""LAMMPS as an engine."""

from mlplugins.engines.base import Abilities
from mlplugins.engines.lammps.host import (
    failure,
    has_state,
    hottest,
    next_stage,
    prune,
    require,
    steps_done,
    trajectories,
    write,
)

TITLE = "LAMMPS"
ABILITIES = Abilities(
    thermostats=("csvr", "nose-hoover", "langevin"), couplings=("iso", "aniso", "flexible"), ranks=True
)

__all__ = [
    "ABILITIES",
    "TITLE",
    "failure",
    "has_state",
    "hottest",
    "next_stage",
    "prune",
    "require",
    "steps_done",
    "trajectories",
    "write",
]
