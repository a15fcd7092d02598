"""ASE: 200 steps of Langevin MD with the trained potential.   python 02_ase.py"""

from ase import units
from ase.io import read
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

from mlplugins import MLCalculator

atoms = read("data/li6ps5cl_pbe/train.extxyz", index=0)
atoms.calc = MLCalculator("potential/model.pt")

MaxwellBoltzmannDistribution(atoms, temperature_K=800, rng=None)
dynamics = Langevin(atoms, timestep=2 * units.fs, temperature_K=800, friction=0.01 / units.fs, trajectory="ase.traj")
for _ in dynamics.irun(200):
    if dynamics.nsteps % 50 == 0:
        print(f"{dynamics.nsteps:5d}  E = {atoms.get_potential_energy():.4f} eV  T = {atoms.get_temperature():.0f} K")
