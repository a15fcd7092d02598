"""Mean kinetic temperature of every thermostat in every host, over the one asked for.

    OMP_NUM_THREADS=1 python benchmarks/thermostats.py [--hosts lammps ase ipi] [--steps 200000 20000 20000]
        [--kinds csvr langevin nose-hoover]

52 atoms with the masses of Li6PS5Cl (Li 24, P 4, S 20, Cl 4), written and run by `mlplugins simulate`. csvr
and langevin on free atoms (no depth, no range), where each step's kinetic energy is nearly
independent and only ASE's Langevin has an error of integration (0.99961 at 5 and 50 fs, exactly);
nose-hoover, which does not thermalise free atoms, on an argon-like crystal. T = 2 K / (3N - 3) k_B from the
kinetic energy that the host prints; errors from blocks.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import ase.io
import numpy as np
import yaml
from ase import Atoms, units
from ase.build import bulk

from mlplugins.dynamics.output import table
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones
from mlplugins.simulation import campaign as campaigns
from mlplugins.simulation.config import load
from mlplugins.simulation.plan import plan

ELEMENTS = ["Li", "P", "S", "Cl"]
T, T_CRYSTAL = 600.0, 60.0
KINDS = {"lammps": ("csvr", "langevin", "nose-hoover"), "ase": ("csvr", "langevin", "nose-hoover")}
KINDS["ipi"] = ("csvr", "langevin")
STEP_AND_TAU = {
    ("csvr", "all"): (10.0, 10.0),
    ("langevin", "all"): (20.0, 40.0),
    ("langevin", "ase"): (5.0, 50.0),  # of second order in their ratio, the other two exact for free atoms
    ("nose-hoover", "all"): (2.0, 50.0),
}
"""fs."""

BLOCKS = 20


def structure(kind: str) -> Atoms:
    """52 atoms: free ones in a wide box, or a crystal for the thermostat that needs one."""
    symbols = "Li24P4S20Cl4"
    if kind != "nose-hoover":
        cell = [40.0] * 3
        return Atoms(symbols, np.random.default_rng(1).uniform(0, 40, (52, 3)), cell=cell, pbc=True)
    atoms = bulk("Ar", "fcc", a=5.4, cubic=True).repeat((13, 1, 1))
    atoms.symbols = symbols
    atoms.rattle(0.05, seed=1)
    return atoms


def mean_temperature(host: str, kind: str, steps: int, folder: Path) -> tuple[float, float]:
    """Mean of T over the one asked for, and its standard error."""
    free = kind != "nose-hoover"
    depth, diameter, cutoff = (1e-12, 1e-3, 3.0) if free else (0.0104, 3.4, 5.0)
    parameters = lennard_jones.Hyperparameters(epsilon=depth, sigma=diameter, cutoff=cutoff)
    description = ModelCard("lennard-jones", ELEMENTS, [0.0] * 4)
    save(lennard_jones.Model(ELEMENTS, parameters), folder / "model.pt", description, "float64")
    ase.io.write(folder / "start.extxyz", structure(kind))
    wanted = T if free else T_CRYSTAL
    step, tau = STEP_AND_TAU.get((kind, host), STEP_AND_TAU[kind, "all"])
    settings = {
        "model": "model.pt",
        "structure": "start.extxyz",
        "engine": host,
        "temperatures": [wanted],
        "timestep": step,
        "equilibration": {"steps": 500, "time_constant": 100},
        "steps": steps,
        "dump_interval": steps,
        "restart_interval": steps,
        "log_interval": 1,
        "thermostat": {"kind": kind, "time_constant": tau},
    }
    (folder / "md.yaml").write_text(yaml.safe_dump(settings))
    campaign = plan(load(folder / "md.yaml"), folder / "out")
    [outcome] = campaigns.run(campaign)
    if outcome.state != "finished":
        raise SystemExit(f"{host} {kind}: {outcome.message} {outcome.last_lines}")
    kinetic = kinetic_energies(host, campaign.runs[0].directory)
    blocks = 2 * kinetic[: len(kinetic) // BLOCKS * BLOCKS].reshape(BLOCKS, -1).mean(axis=1)
    blocks /= (3 * 52 - 3) * units.kB * wanted
    return float(blocks.mean()), float(blocks.std(ddof=1) / BLOCKS**0.5)


def kinetic_energies(host: str, directory: Path) -> np.ndarray:
    """Of the production, eV."""
    name, first, columns = {
        "lammps": ("log.lammps", 501, (4, 3)),
        "ase": ("md.log", 501, (3, 2)),
        "ipi": ("simulation.out", 1, (4, None)),
    }[host]
    rows = table(directory / name)
    rows = rows[rows[:, 0] >= first]
    total, potential = columns
    return rows[:, total] - (0 if potential is None else rows[:, potential])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", nargs="+", default=["lammps", "ase", "ipi"])
    parser.add_argument("--steps", nargs="+", type=int, default=[200_000, 20_000, 20_000])
    parser.add_argument("--kinds", nargs="+", default=sorted(set(sum(KINDS.values(), ()))))
    arguments = parser.parse_args()
    print(f"{'host':8s}{'thermostat':14s}{'steps':>8s}   <T>/T")
    for host, steps in zip(arguments.hosts, arguments.steps):
        for kind in (kind for kind in KINDS[host] if kind in arguments.kinds):
            with tempfile.TemporaryDirectory() as folder:
                mean, error = mean_temperature(host, kind, steps, Path(folder))
            print(f"{host:8s}{kind:14s}{steps:8d}   {mean:.4f} ± {error:.4f}", flush=True)


if __name__ == "__main__":
    main()
