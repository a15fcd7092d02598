"""LAMMPS: data files, runs of `lmp`, logs and dumps."""

from mlplugins.engines.lammps.data import write_data as write_data
