"""Campaigns of molecular dynamics: one YAML → the host engines' own input files, run and resumed."""

from mlplugins.dynamics.settings import SimulationConfig
from mlplugins.simulation.campaign import simulate
from mlplugins.simulation.config import load
from mlplugins.simulation.driving import RunOutcome

__all__ = ["RunOutcome", "SimulationConfig", "load", "simulate"]
