"""Vibrational spectra from time series of dipoles, polarizabilities and velocities."""
