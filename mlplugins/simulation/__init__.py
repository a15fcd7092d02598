"""Campaigns of molecular dynamics: one YAML → the host engines' own input files, run and resumed."""

from mlplugins.simulation.campaign import simulate
from mlplugins.simulation.config import load
from mlplugins.simulation.driving import Outcome

__all__ = ["Outcome", "load", "simulate"]
