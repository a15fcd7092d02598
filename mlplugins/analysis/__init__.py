"""Trajectories to transport coefficients, in numpy: MSD, conductivity, Arrhenius, report."""
