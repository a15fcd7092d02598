"""ASE: 200 steps of NVT with the trained potential.   python 02_ase.py"""

from ase import units
from ase.io import read
from ase.md.bussi import Bussi
from ase.md.velocitydistribution import Stationary, thermalize_momenta

from mlplugins import MLCalculator

atoms = read("data/li6ps5cl_pbe/train.extxyz", index=0)
atoms.calc = MLCalculator("potential/model.pt")

thermalize_momenta(atoms, temperature_K=800)
Stationary(atoms)
dynamics = Bussi(atoms, 2 * units.fs, temperature_K=800, taut=100 * units.fs, trajectory="ase.traj")
for _ in dynamics.irun(200):
    if dynamics.nsteps % 50 == 0:
        energy, temperature = atoms.get_potential_energy(), atoms.get_temperature()
        print(f"{dynamics.nsteps:5d}  E = {energy:.4f} eV  T = {temperature:.0f} K")
