"""Compiled ops and LAMMPS plug-in, one folder per torch series; mlplugins chooses (`mlplugins doctor`)."""
