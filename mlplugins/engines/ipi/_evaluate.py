"""Run in a separate process: i-PI evaluates every system of an input file once, in full precision.

    python -m mlplugins.engines.ipi._evaluate input.xml results.npz

i-PI prints forces with five digits and energies with nine, too few to compare engines; so its own objects are
asked, after the driver, the units and the sockets of a normal run.
"""

from __future__ import annotations

import os
import sys

import numpy as np
from ipi.engine.simulation import Simulation
from ipi.utils.depend import dstrip
from ipi.utils.units import unit_to_user


def main(source: str, target: str) -> None:
    """Write `energy_k` (eV), `forces_k` (N, 3) (eV/Å), `virial_k` (3, 3) (eV) and the extras, `extras_KEY_k`
    (atomic units), of system k."""
    with open(source, encoding="utf-8") as stream:
        simulation = Simulation.load_from_xml(stream)
    arrays = {}
    for index, system in enumerate(simulation.syslist):
        arrays[f"energy_{index}"] = unit_to_user("energy", "electronvolt", system.forces.pot)
        arrays[f"forces_{index}"] = unit_to_user(
            "force", "ev/ang", dstrip(system.forces.f).reshape(-1, 3).copy()
        )
        arrays[f"virial_{index}"] = unit_to_user("energy", "electronvolt", dstrip(system.forces.vir).copy())
        for key, values in system.forces.extras.items():
            if key != "raw":
                arrays[f"extras_{key}_{index}"] = np.asarray(values[0], dtype=float)
    np.savez(target, **arrays)
    sys.stdout.flush()
    os._exit(0)  # i-PI's threads would wait for the next step


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
