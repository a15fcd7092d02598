"""ASE as an engine."""

from mlplugins.engines.ase import band
from mlplugins.engines.ase.health import diagnose
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
from mlplugins.engines.ase.single_point import single_points, ways
from mlplugins.engines.base import Abilities

TITLE = "ASE"
ABILITIES = Abilities(thermostats=("csvr", "nose-hoover", "langevin"), couplings=("iso",), band=band.relax)

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
