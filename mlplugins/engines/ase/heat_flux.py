"""Heat fluxes of the frames of a trajectory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from ase import Atoms

from mlplugins.engines.ase.calculator import MLCalculator
from mlplugins.errors import BadInput
from mlplugins.model_file.structure import Array


def heat_fluxes(frames: Iterable[Atoms], calculator: MLCalculator) -> Array:
    """J of every frame, (T, 6): the total x, y, z, then its convective part, as LAMMPS' `compute heat/flux`.

    In ASE's units (`MLCalculator.heat_flux`). `mlplugins thermal` reads what `numpy.save` writes of it.

    Raises:
        BadInput: no frame, a frame without velocities, and as `MLCalculator.heat_flux`.
    """
    rows = []
    for index, atoms in enumerate(frames):
        if not atoms.has("momenta"):
            raise BadInput(f"frame {index}: no velocities; write the trajectory with them (momenta)")
        flux = calculator.heat_flux(atoms)
        rows.append(np.concatenate([flux.total, flux.convective]))
    if not rows:
        raise BadInput("heat fluxes: expected one frame or more, got none")
    return np.array(rows)
