#!/usr/bin/env bash
# openmmml 1.8 (potential "ase", createSystem(topology, aseAtoms=atoms)); OpenMM 8.6.1; ase 3.27.0.
# Expected: OpenMM's energy is that of the Atoms object which it was given, in its own cell, and atoms that FixAtoms holds are held or refused.
# Seen: where the topology has no box vectors the periodic Atoms get OpenMM's default cell of 20 Å in place of their own, without a word (copper:
# 49.9 for 2.2 eV); and FixAtoms holds the atoms on ASE's side only: OpenMM moves them, the energies are those of the place where they began.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check openmmml==1.8 OpenMM==8.6.1 ase==3.27.0 2>/dev/null
OMP_NUM_THREADS=1 v/bin/python -W ignore - <<'PY'
import numpy as np
import openmm
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from openmm import app
from openmmml import MLPotential

EV = units.kJ / units.mol


def copper():
    atoms = bulk("Cu", a=3.61, cubic=True) * (3, 3, 3)
    atoms.rattle(0.05, seed=1)
    atoms.calc = EMT()
    return atoms


def run(atoms, box, steps=20):
    """Energy of OpenMM at the start; energy, and ASE's of the same positions, after the steps; largest move of the first 54 atoms."""
    start, topology = atoms.positions.copy(), app.Topology()
    residue = topology.addResidue("X", topology.addChain())
    for symbol in atoms.symbols:
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    if box:
        topology.setPeriodicBoxVectors(atoms.cell.array / 10)
    system = MLPotential("ase").createSystem(topology, aseAtoms=atoms)
    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(start / 10)
    first = context.getState(energy=True).getPotentialEnergy()._value * EV
    context.setVelocitiesToTemperature(600, 1)
    integrator.step(steps)
    state = context.getState(energy=True, positions=True)
    there = copper()
    there.positions = state.getPositions(asNumpy=True)._value * 10
    moved = np.abs(there.positions - start)[:54].max()
    return first, state.getPotentialEnergy()._value * EV, there.get_potential_energy(), moved


own = copper().get_potential_energy()
plain, _, _, _ = run(copper(), True)
bare = copper()
other, _, _, _ = run(bare, False)
fixed = copper()
fixed.set_constraint(FixAtoms(range(54)))
_, shown, there, moved = run(fixed, True)
print(f"ASE {own:.4f} eV; OpenMM {plain:.4f} with a box in the topology, {other:.4f} without, cell then {bare.cell.lengths()}")
print(f"54 fixed atoms: moved by up to {moved:.3f} Å; energy {shown:.4f} eV, of these positions {there:.4f} eV")
lost = abs(plain - own) < 1e-6 and other - own > 40 and np.allclose(bare.cell.lengths(), 20)
held = moved > 0.1 and there - shown > 1
raise SystemExit(0 if lost and held else "changed")
PY
