"""`python program.py` in the folder of a run: from the start, or the saved state, to the end."""

import json
import os
from pathlib import Path

import numpy as np
from ase import units
from ase.io import read

from mlplugins.model_file import artifact

given = json.loads(Path("input.json").read_text())
model = artifact.load(given["model"])
atoms = read("start.extxyz")
masses, p, step = atoms.get_masses()[:, None], atoms.get_momenta(), 0
if os.path.isfile("state.npz"):
    with np.load("state.npz") as state:
        step, atoms.positions, p = int(state["step"]), state["positions"], state["momenta"]
dt, kt = given["timestep"] * units.fs, units.kB * given["temperature"]
keep = np.exp(-given["timestep"] * given["friction"])
random = np.random.default_rng([given["seed"], step])
[result] = model.evaluate([atoms])


def dump():
    rows = [f"{s} " + " ".join(f"{x:.17g}" for x in r) for s, r in zip(atoms.symbols, atoms.positions)]
    lattice = " ".join(f"{x:.17g}" for x in atoms.cell.array.ravel())
    head = f'Lattice="{lattice}" Properties=species:S:1:pos:R:3 pbc="T T T" step={step}'
    with open("trajectory.xyz", "a") as stream:
        stream.write("\n".join([str(len(atoms)), head, *rows]) + "\n")


if step == given["first"] == 0:
    dump()
with open("log", "a") as log:
    while step < given["steps"]:
        p = p + dt / 2 * result.forces
        atoms.positions += dt / 2 * p / masses
        p = keep * p + np.sqrt((1 - keep**2) * masses * kt) * random.standard_normal(p.shape)
        atoms.positions += dt / 2 * p / masses
        [result] = model.evaluate([atoms])
        p, step = p + dt / 2 * result.forces, step + 1
        if step >= given["first"] and (step - given["first"]) % given["dump_interval"] == 0:
            dump()
        if step % given["log_interval"] == 0 or step == given["steps"]:
            kinetic = float((p**2 / (2 * masses)).sum())
            temperature = 2 * kinetic / (3 * len(atoms) - 3) / units.kB
            np.savez("new.npz", step=step, positions=atoms.positions, momenta=p)
            os.replace("new.npz", "state.npz")
            print(step, temperature, result.energy, result.energy + kinetic, file=log, flush=True)
