"""What LLPR costs: processor time of an NVE step in LAMMPS and of an energy in ASE, and of the covariance.

    OMP_NUM_THREADS=1 python benchmarks/uncertainty.py [--atoms 256] [--blocks 12] [--frames 1000]

Untrained networks of the shape of `committee.py`, with a readout of one hidden layer of 64, with and without
a posterior (its numbers do not change the cost). LAMMPS and ASE take turns in one process, ten steps each, so
that a busy machine slows all alike; given is process CPU time per step, its quartiles over the blocks, and
the ratio of the medians to the model without a posterior. The covariance is that of `mlplugins uncertainty`:
frames of 32 atoms of the same crystal with random labels, 8 directions of forces each.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from committee import PARAMETERS, report, start, steps_of
from engine_overhead import structure

from mlplugins import MLCalculator, ops
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import nequip
from mlplugins.structures import batch as batches
from mlplugins.structures import dataset
from mlplugins.uncertainties import llpr
from mlplugins.uncertainties.rows import rows

WIDTH = 64
PROBES = 8
EVERY = 10


def network(width: int = WIDTH) -> nequip.Model:
    """An untrained network of argon with a hidden layer in its readout."""
    torch.manual_seed(0)
    model = nequip.Model(["Ar"], nequip.Hyperparameters(**PARAMETERS, readout_mlp=[width]))
    model.average_neighbors.fill_(30.0)
    return model


def write(folder: Path) -> tuple[Path, Path]:
    """The same network without and with a posterior."""
    paths = []
    for name in ("plain.pt", "llpr.pt"):
        model = network()
        if name == "llpr.pt":
            n = model.feature_width
            factor = torch.randn(n, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
            model.last_layer.set(1e-3 * factor, 1e-3, 1.0, 1e-2)
        card = ModelCard("nequip", ["Ar"], [0.0], details={"hyperparameters": PARAMETERS})
        paths.append(folder / name)
        save(model, paths[-1], card, "float32")
    return paths[0], paths[1]


def ase_step(path: Path, atoms: Atoms, names: list[str], every: int = 1) -> Callable[[int], None]:
    """Ten energies and forces of a moving structure, with further properties every so many."""
    calc, moving = MLCalculator(path), atoms.copy()
    calc.probes = PROBES
    rng = np.random.default_rng(0)

    def steps(count: int) -> None:
        for number in range(count):
            moving.positions += rng.normal(0.0, 1e-3, moving.positions.shape)
            due = number % every == 0
            (calc.along.update if due else calc.along.difference_update)(names)  # as in a watched run
            calc.get_property("forces", moving)
            for name in names if due else ():
                calc.get_property(name, moving)

    return steps


def covariance(count: int, width: int) -> float:
    """CPU seconds of the posterior precision of `count` frames of 32 atoms, rows of the forces included."""
    potential = network(width).double().eval()
    potential.use_native_ops()
    rng = np.random.default_rng(0)
    graphs = []
    for seed in range(count):
        atoms = structure(32, "Ar")
        atoms.rattle(0.1, seed=seed)
        atoms.info["energy"] = rng.normal()
        atoms.arrays["forces"] = rng.normal(size=(len(atoms), 3))
        found = dataset.from_atoms(atoms, origin=str(seed))
        graphs.append(batches.single(found, ["Ar"], potential.cutoff, 0.0, torch.float64))
    before = time.process_time()
    llpr.posterior(rows(potential, graphs, 8))
    return time.process_time() - before


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--atoms", type=int, default=256)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--frames", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    print(f"ops: {ops.load()}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        plain, known = write(Path(name))
        atoms = structure(args.atoms, "Ar")
        fix = "fix u all pair {} mlplugins {} 1"
        decks = {
            "LAMMPS": (str(plain), []),
            "LAMMPS, energies every step": (str(known), [fix.format(1, "uncertainty")]),
            f"LAMMPS, {PROBES} probes every {EVERY}": (
                f"{known} probes {PROBES}",
                [fix.format(EVERY, "force_uncertainty")],
            ),
        }
        started = {case: start(words, atoms, Path(name), more) for case, (words, more) in decks.items()}
        runs: dict[str, Callable[[int], object]] = {case: steps_of(lmp) for case, lmp in started.items()}
        energies, forces = ["energy_uncertainty"], ["forces_uncertainty"]
        runs |= {
            "ASE": ase_step(plain, atoms, []),
            "ASE, energies every step": ase_step(known, atoms, energies),
            f"ASE, {PROBES} probes every {EVERY}": ase_step(known, atoms, forces, EVERY),
        }
        print(f"{len(atoms)} atoms, {network().feature_width} features")
        report(runs, args.blocks, lambda case: case.partition(",")[0])
    if args.frames:
        seconds = covariance(args.frames, WIDTH)
        print(f"covariance of {args.frames} frames × {network().feature_width} features: {seconds:.1f} CPU-s")


if __name__ == "__main__":
    main()
