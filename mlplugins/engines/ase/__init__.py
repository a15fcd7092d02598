"""ASE: the calculator."""

from mlplugins.engines.ase.calculator import MLCalculator as MLCalculator
