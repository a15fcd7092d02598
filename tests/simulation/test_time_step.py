"""What the time step costs: stationary variances of the Langevin thermostat of ASE's script."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.langevin import Langevin
from scipy.linalg import solve_discrete_lyapunov

from mlplugins.dynamics.settings import Thermostat
from mlplugins.engines.ase.host import PRODUCTION

T = 600.0


class Springs(Calculator):
    """Every atom on a spring of its own."""

    implemented_properties = ("energy", "forces")

    def __init__(self, stiffness):
        super().__init__()
        self.stiffness = stiffness

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0, "forces": -self.stiffness * atoms.positions}


class Draws:
    """Random numbers given beforehand."""

    def __init__(self, *values):
        self.values = list(values)

    def standard_normal(self, size):
        return np.full(size, self.values.pop(0))


def temperatures(wavenumber, timestep, time_constant):
    """⟨m v²⟩ and ⟨k x²⟩ over k_B T of one mode: the step is linear in x, v and two random numbers."""
    mass = 6.94
    stiffness = mass * (2 * np.pi * wavenumber * 100 * units._c / units.second) ** 2
    columns = []
    for place, speed, *draws in np.eye(4):
        atoms = Atoms("Li", positions=[[place] * 3], masses=[mass], velocities=[[speed] * 3])
        atoms.calc = Springs(stiffness)
        names = {"atoms": atoms, "dt": timestep * units.fs, "T": T, "TAU": time_constant, "units": units}
        stepper = eval(PRODUCTION["nvt", "langevin"], {**names, "rng": Draws(*draws), "Langevin": Langevin})
        stepper.step()
        columns.append([atoms.positions[0, 0], atoms.get_velocities()[0, 0]])
    step = np.array(columns).T
    spread = solve_discrete_lyapunov(step[:, :2], step[:, 2:] @ step[:, 2:].T)
    return mass * spread[1, 1] / (units.kB * T), stiffness * spread[0, 0] / (units.kB * T)


@pytest.mark.parametrize("timestep", [1.0, 2.0])
@pytest.mark.parametrize("wavenumber", [100.0, 355.0, 550.0])
def test_ase_langevin_is_cold_by_a_sixth_and_its_positions_hot_by_a_twelfth(wavenumber, timestep):
    """Of (ω Δt)², as docs/simulation.md says; what BAOAB would give is a quarter and nothing."""
    square = (2 * np.pi * wavenumber * 100 * units._c * timestep * 1e-15) ** 2
    kinetic, configurational = temperatures(wavenumber, timestep, Thermostat().time_constant)
    assert kinetic == pytest.approx(1 - square / 6, abs=0.1 * square / 6 + 5e-5)
    assert configurational == pytest.approx(1 + square / 12, abs=0.1 * square / 12 + 5e-5)


def test_friction_itself_costs_nothing_at_the_default_time_constant():
    """A mode so soft that only Δt over the time constant is left."""
    kinetic, _ = temperatures(1.0, 2.0, Thermostat().time_constant)
    assert kinetic == pytest.approx(1, abs=1e-4)
    strong, _ = temperatures(1.0, 20.0, 40.0)
    assert strong < 0.996
