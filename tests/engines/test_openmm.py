"""The ASE calculator in OpenMM's dynamics, by openmm-ml."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from ase import units
from openmm import app
from openmmml import MLPotential

from mlplugins import MLCalculator

from .conftest import crystal, triclinic

EV = units.kJ / units.mol


def context_of(atoms, calculator, integrator, *forces):
    topology = app.Topology()
    residue = topology.addResidue("argon", topology.addChain())
    for symbol in atoms.symbols:
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    topology.setPeriodicBoxVectors(atoms.cell.array / 10)
    system = MLPotential("ase").createSystem(topology, calculator=calculator)
    for force in forces:
        system.addForce(force)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(atoms.positions / 10)
    context.setVelocitiesToTemperature(60, 1)
    return context


def state_of(context):
    """Potential and kinetic energy (eV), forces (eV/Å), positions and cell (Å)."""
    state = context.getState(energy=True, forces=True, positions=True)
    energies = [e._value * EV for e in (state.getPotentialEnergy(), state.getKineticEnergy())]
    vectors = (state.getPositions(asNumpy=True), state.getPeriodicBoxVectors(asNumpy=True))
    return *energies, state.getForces(asNumpy=True)._value * EV / 10, *(10 * v._value for v in vectors)


@pytest.mark.parametrize("structure", [crystal, triclinic])
def test_energies_forces_and_conservation(structure, argon_model):
    atoms = structure()
    integrator = openmm.VerletIntegrator(0.002)
    context = context_of(atoms, MLCalculator(argon_model), integrator)
    atoms.calc = MLCalculator(argon_model)
    integrator.step(5)  # the leapfrog takes velocities of the start for those of half a step before
    totals = []
    for _ in range(6):
        potential, kinetic, forces, atoms.positions, cell = state_of(context)
        np.testing.assert_allclose(cell, atoms.cell.array, atol=1e-12)
        assert potential == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-10)
        totals.append(potential + kinetic)
        integrator.step(5)
    assert np.ptp(totals) < 1e-3 * kinetic


def test_cell_of_a_barostat_is_the_models(argon_model):
    atoms = crystal()
    integrator = openmm.LangevinMiddleIntegrator(60, 1, 0.002)
    barostat = openmm.MonteCarloBarostat(2000, 60, 2)
    barostat.setRandomNumberSeed(1)
    integrator.setRandomNumberSeed(1)
    context = context_of(atoms, MLCalculator(argon_model), integrator, barostat)
    integrator.step(40)
    potential, _, forces, positions, cell = state_of(context)
    assert abs(cell[0, 0] - atoms.cell[0, 0]) > 0.01
    atoms.set_cell(cell)
    atoms.positions, atoms.calc = positions, MLCalculator(argon_model)
    assert potential == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-10)
