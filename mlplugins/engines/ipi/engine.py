"""i-PI as an engine."""

from mlplugins.engines.base import Abilities
from mlplugins.engines.ipi.host import (
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

TITLE = "i-PI"
ABILITIES = Abilities(thermostats=("csvr", "langevin"), couplings=("iso", "aniso", "flexible"), beads=True)

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
