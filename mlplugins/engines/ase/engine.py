"""ASE as an engine."""

from mlplugins.engines.ase.host import (
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
from mlplugins.engines.base import Abilities

TITLE = "ASE"
ABILITIES = Abilities(thermostats=("csvr", "nose-hoover", "langevin"), couplings=("iso",))

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
