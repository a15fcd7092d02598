"""LAMMPS as an engine."""

from mlplugins.engines.base import Abilities
from mlplugins.engines.lammps import band
from mlplugins.engines.lammps.health import diagnose
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
from mlplugins.engines.lammps.single_point import single_points, ways

TITLE = "LAMMPS"
ABILITIES = Abilities(
    thermostats=("csvr", "nose-hoover", "langevin"),
    couplings=("iso", "aniso", "flexible"),
    ranks=True,
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
