"""Finite-size correction of D in liquids: D(∞) = D(L) + ξ k T/(6 π η L), ξ = 2.837297 for a cubic cell.

I.-C. Yeh, G. Hummer, J. Phys. Chem. B 108, 15873 (2004). It is hydrodynamic: for liquids with their own
momentum, not for ions in a crystal that stands still.
"""

from __future__ import annotations

from mlplugins.errors import BadInput
from mlplugins.units import stokes_cm2_s

XI_CUBIC = 2.837297


def yeh_hummer(temperature_k: float, viscosity: float, volume_a3: float) -> float:
    """What to add to D, cm²/s, with L the cube root of the volume and the viscosity in mPa s.

    >>> round(1e5 * yeh_hummer(298.0, 0.89, 30.0**3), 4)  # water in a box of 30 Å
    0.2319
    """
    if not viscosity > 0:
        raise BadInput(f"viscosity {viscosity:g} mPa s; expected a positive number")
    return XI_CUBIC * stokes_cm2_s(temperature_k, viscosity, volume_a3 ** (1 / 3))
