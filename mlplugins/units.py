"""The only conversion factors of the package (CODATA 2022).

Inside: eV, Å, u, K, fs, stress in eV/Å³ (ASE's sign), charges in e. A constant `X_PER_Y` turns a number in Y
into a number in X by multiplication.

>>> round(GPA_PER_EV_A3, 6)
160.217663
>>> round(BOLTZMANN_EV_K * 300, 7)
0.025852
"""

from __future__ import annotations

import math

# CODATA 2022, SI (written out: reading them from scipy takes as long as the rest of a command's start)
BOLTZMANN_J_K = 1.380649e-23
ELEMENTARY_CHARGE_C = 1.602176634e-19
AVOGADRO_PER_MOL = 6.02214076e23
VACUUM_PERMITTIVITY_F_M = 8.8541878188e-12
ATOMIC_MASS_KG = 1.66053906892e-27
BOHR_RADIUS_M = 5.29177210544e-11
ATOMIC_TIME_S = 2.4188843265864e-17
EV_PER_HARTREE = 27.211386245981
PLANCK_J_S = 6.62607015e-34
SPEED_OF_LIGHT_M_S = 299792458.0

_ANGSTROM, _CENTI, _MILLI, _PICO, _FEMTO = 1e-10, 1e-2, 1e-3, 1e-12, 1e-15

BOLTZMANN_EV_K = BOLTZMANN_J_K / ELEMENTARY_CHARGE_C
"""Boltzmann's constant, eV/K."""

A_PER_BOHR = BOHR_RADIUS_M / _ANGSTROM
E_A_PER_DEBYE = 1e-21 / SPEED_OF_LIGHT_M_S / ELEMENTARY_CHARGE_C / _ANGSTROM
"""1 D = 10⁻¹⁸ statC cm = 10⁻²¹ C m²/s / c."""

EV_PER_KCAL_MOL = 4.184 * 1000 / AVOGADRO_PER_MOL / ELEMENTARY_CHARGE_C

COULOMB_EV_A = ELEMENTARY_CHARGE_C / (4 * math.pi * VACUUM_PERMITTIVITY_F_M) / _ANGSTROM
"""e²/(4πε₀) in eV Å."""

GPA_PER_EV_A3 = ELEMENTARY_CHARGE_C / _ANGSTROM**3 / 1e9
BAR_PER_EV_A3 = ELEMENTARY_CHARGE_C / _ANGSTROM**3 / 1e5

FS_PER_PS = 1000.0
CM2_S_PER_A2_PS = _ANGSTROM**2 / _PICO / _CENTI**2
"""Diffusion coefficient: Å²/ps to cm²/s (1e-4)."""

CM2_S_PER_A2_FS = CM2_S_PER_A2_PS * FS_PER_PS

MS_CM_PER_S_CM = 1000.0

ASE_TIME_PER_FS = _FEMTO / (_ANGSTROM * (ATOMIC_MASS_KG / ELEMENTARY_CHARGE_C) ** 0.5)
"""fs to ASE's time unit Å √(u/eV)."""

W_MK_PER_EV_A_FS_K = ELEMENTARY_CHARGE_C / _ANGSTROM / _FEMTO
"""Thermal conductivity: eV/(Å fs K) to W/(m K)."""

PER_CM_PER_FS = _CENTI / SPEED_OF_LIGHT_M_S / _FEMTO
"""Wave number of a frequency: 1/fs to cm⁻¹."""
KELVIN_PER_PER_CM = PLANCK_J_S * SPEED_OF_LIGHT_M_S / _CENTI / BOLTZMANN_J_K
"""Second radiation constant: temperature of a wave number, K cm."""
A3_PER_E2_A2_EV = COULOMB_EV_A
"""Polarizability: e²Å²/eV to the Å³ of the polarizability volume α/(4πε₀)."""

A_FS_PER_ATOMIC_VELOCITY = A_PER_BOHR / (ATOMIC_TIME_S / _FEMTO)


def conductivity_ms_cm(charge2_diffusion: float, volume_a3: float, temperature_k: float) -> float:
    """Conductivity σ = e² Σ z² N D / (V k T) in mS/cm (Nernst–Einstein form).

    Args:
        charge2_diffusion: Σ z² N D in cm²/s (charges in e).
        volume_a3: cell volume, Å³.
        temperature_k: temperature, K.

    >>> round(conductivity_ms_cm(24 * 1e-5, 1000.0, 600.0), 2)
    743.7
    """
    e2_over_kt = ELEMENTARY_CHARGE_C**2 / (BOLTZMANN_J_K * temperature_k)  # C²/J
    per_volume = charge2_diffusion * _CENTI**2 / (volume_a3 * _ANGSTROM**3)  # 1/(m s)
    siemens_per_m = e2_over_kt * per_volume
    return siemens_per_m * _CENTI * MS_CM_PER_S_CM


def absorption_per_cm(density: float, volume_a3: float, temperature_k: float) -> float:
    """n(ω)α(ω) = S/(6 V k T ε₀ c) in cm⁻¹, of the spectral density S = ∫⟨μ̇(0)·μ̇(t)⟩e^(−iωt)dt, (e Å)²/fs.

    >>> round(absorption_per_cm(1.0, 1000.0, 300.0))
    38913
    """
    si = (ELEMENTARY_CHARGE_C * _ANGSTROM) ** 2 / _FEMTO * density
    volume = volume_a3 * _ANGSTROM**3
    thermal = BOLTZMANN_J_K * temperature_k * VACUUM_PERMITTIVITY_F_M * SPEED_OF_LIGHT_M_S
    return si / (6 * volume * thermal) * _CENTI


def absorption_km_mol(density: float, temperature_k: float) -> float:
    """N_A n(ω)α(ω) V in km/mol per cm⁻¹: its integral over wave numbers is in km/mol.

    >>> round(absorption_km_mol(1.0, 300.0), 1)
    234.3
    """
    cross_section = absorption_per_cm(density, 1.0, temperature_k) / _CENTI * _ANGSTROM**3  # m²
    return AVOGADRO_PER_MOL * cross_section / _CENTI / 1000.0


def stokes_cross_section_cm2_sr(activity: float, shift_per_cm: float, laser_per_cm: float) -> float:
    """dσ/dΩ of Stokes scattering without its thermal factor 1/(1 − e^(−hν/kT)), cm²/sr.

    (2π)⁴/45 (ν̃₀ − ν̃)⁴ h/(8π²cν̃) S of the activity S = 45 ᾱ'² + 7 γ'², Å⁴/u (of α/(4πε₀)).

    >>> round(stokes_cross_section_cm2_sr(17.6, 2331.0, 19436.0) * 1e31, 2)  # nitrogen at 514.5 nm
    3.77
    """
    per_m = (laser_per_cm - shift_per_cm) / _CENTI
    quantum = PLANCK_J_S / (8 * math.pi**2 * SPEED_OF_LIGHT_M_S * shift_per_cm / _CENTI)
    si = activity * _ANGSTROM**4 / ATOMIC_MASS_KG
    return (2 * math.pi) ** 4 / 45 * per_m**4 * quantum * si / _CENTI**2


def stokes_cm2_s(temperature_k: float, viscosity_mpa_s: float, length_a: float) -> float:
    """k T/(6 π η L) in cm²/s: the diffusion coefficient of a sphere of radius L in a liquid.

    >>> round(stokes_cm2_s(298.0, 0.89, 1.0) * 1e5, 3)
    2.452
    """
    newton_m = BOLTZMANN_J_K * temperature_k
    drag = 6 * math.pi * viscosity_mpa_s * _MILLI * length_a * _ANGSTROM
    return newton_m / drag / _CENTI**2
