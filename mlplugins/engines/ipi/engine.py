"""i-PI as an engine."""

from mlplugins.engines.base import Abilities
from mlplugins.engines.ipi import band
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
from mlplugins.engines.ipi.program import diagnose
from mlplugins.engines.ipi.single_point import single_points, ways

TITLE = "i-PI"
ABILITIES = Abilities(
    thermostats=("csvr", "langevin"),
    couplings=("iso", "aniso", "flexible"),
    beads=True,
    mts=True,
    turns=True,
    band=band.relax,
)

__all__ = [
    "ABILITIES",
    "TITLE",
    "diagnose",
    "failure",
    "has_state",
    "hottest",
    "next_stage",
    "prune",
    "require",
    "single_points",
    "steps_done",
    "trajectories",
    "ways",
    "write",
]
