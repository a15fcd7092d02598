"""The only conversion factors of the package (CODATA, through `ase.units` and `scipy.constants`).

Inside: eV, Å, u, K, fs, stress in eV/Å³ (ASE's sign), charges in e. A constant `X_PER_Y` turns a number in Y
into a number in X by multiplication.

>>> round(GPA_PER_EV_A3, 6)
160.217663
>>> round(BOLTZMANN_EV_K * 300, 7)
0.025852
"""

from __future__ import annotations

from scipy import constants

BOLTZMANN_EV_K = constants.k / constants.e
"""Boltzmann's constant, eV/K."""

ELEMENTARY_CHARGE_C = constants.e
"""Elementary charge, C."""

EV_PER_HARTREE = constants.value("Hartree energy in eV")
A_PER_BOHR = constants.value("Bohr radius") / constants.angstrom
EV_PER_KCAL_MOL = constants.calorie * 1000 / constants.N_A / constants.e

COULOMB_EV_A = constants.e / (4 * constants.pi * constants.epsilon_0) / constants.angstrom
"""e²/(4πε₀) in eV Å."""

GPA_PER_EV_A3 = constants.e / constants.angstrom**3 / constants.giga
BAR_PER_EV_A3 = constants.e / constants.angstrom**3 / constants.bar

FS_PER_PS = 1000.0
CM2_S_PER_A2_PS = constants.angstrom**2 / constants.pico / constants.centi**2
"""Diffusion coefficient: Å²/ps to cm²/s (1e-4)."""

CM2_S_PER_A2_FS = CM2_S_PER_A2_PS * FS_PER_PS

MS_CM_PER_S_CM = 1000.0

ASE_TIME_PER_FS = constants.femto / (constants.angstrom * (constants.atomic_mass / constants.e) ** 0.5)
"""fs to ASE's time unit Å √(u/eV)."""

A_FS_PER_ATOMIC_VELOCITY = A_PER_BOHR / (constants.value("atomic unit of time") / constants.femto)


def conductivity_ms_cm(charge2_diffusion: float, volume_a3: float, temperature_k: float) -> float:
    """Conductivity σ = e² Σ z² N D / (V k T) in mS/cm (Nernst–Einstein form).

    Args:
        charge2_diffusion: Σ z² N D in cm²/s (charges in e).
        volume_a3: cell volume, Å³.
        temperature_k: temperature, K.

    >>> round(conductivity_ms_cm(24 * 1e-5, 1000.0, 600.0), 2)
    743.7
    """
    e2_over_kt = constants.e**2 / (constants.k * temperature_k)  # C²/J
    per_volume = charge2_diffusion * constants.centi**2 / (volume_a3 * constants.angstrom**3)  # 1/(m s)
    siemens_per_m = e2_over_kt * per_volume
    return siemens_per_m * constants.centi * MS_CM_PER_S_CM


def stokes_cm2_s(temperature_k: float, viscosity_mpa_s: float, length_a: float) -> float:
    """k T/(6 π η L) in cm²/s: the diffusion coefficient of a sphere of radius L in a liquid.

    >>> round(stokes_cm2_s(298.0, 0.89, 1.0) * 1e5, 3)
    2.452
    """
    newton_m = constants.k * temperature_k
    drag = 6 * constants.pi * viscosity_mpa_s * constants.milli * length_a * constants.angstrom
    return newton_m / drag / constants.centi**2
