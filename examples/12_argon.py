"""A Lennard-Jones model of argon (argon.pt) and its crystal (argon.extxyz), for the next two examples."""

import ase.io
from ase.build import bulk

from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones

parameters = {"epsilon": 0.0103, "sigma": 3.405, "cutoff": 8.5, "onset": 0.9}
argon = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters(**parameters))
details = {"hyperparameters": parameters}
save(argon, "argon.pt", ModelCard("lennard-jones", ["Ar"], [0.0], details=details), "float64")
ase.io.write("argon.extxyz", bulk("Ar", "fcc", a=5.3, cubic=True))
