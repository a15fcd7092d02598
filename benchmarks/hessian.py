"""`MLCalculator.get_hessian` against finite differences of forces, in turns: same numbers, CPU time, memory.

    python benchmarks/hessian.py [--rounds 3] [--cases nequip mace-64 ...] [--atoms 60]

Water of `speed.py`'s kind, random weights of one seed, float64, one thread. The Hessian is compared with
central differences (2 × 3N calls) first. Times are medians of process CPU time: of the Hessian, and of the 3N
calls of forces that one-sided differences take; the ratio is that of the Hessian to these. Memory is what the
Hessian adds to the peak of the process.
"""

from __future__ import annotations

import argparse
import importlib
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from mlplugins import MLCalculator
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "example": (
        "nequip",
        {"cutoff": 4.5, "num_layers": 2, "l_max": 2, "num_features": 24, "radial_mlp": [32]},
    ),
    "mace-64": ("mace", {"cutoff": 5.0, "num_channels": 64, "l_max": 2, "num_basis": 8}),
    "sevennet": (
        "nequip",
        {"cutoff": 5.0, "num_layers": 5, "l_max": 2, "num_features": [128, 64, 32], "radial_mlp": [64, 64]},
    ),
    "mace-128": ("mace", {"cutoff": 6.0, "num_channels": 128, "num_basis": 10}),
}
STEP = 1e-4
MIB = 1024.0


def main() -> int:
    """Print a line for every case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["example", "mace-64"])
    parser.add_argument("--atoms", type=int, default=60)
    args = parser.parse_args()
    torch.set_num_threads(1)
    atoms = water(args.atoms)
    print(f"{'case':10s} atoms | difference | Hessian, s  {3 * len(atoms)} calls, s  ratio | memory, MiB")
    for case in args.cases:
        with tempfile.TemporaryDirectory() as folder:
            calculator = MLCalculator(written(case, Path(folder)))
        calculator.get_property("forces", atoms)
        before = peak()
        found = calculator.get_hessian(atoms).reshape(3 * len(atoms), -1)
        memory = peak() - before
        expected = np.array([-difference(calculator, atoms, k) for k in range(3 * len(atoms))])
        off = np.abs(found - expected).max() / np.abs(expected).max()
        times = [
            (timed(lambda: calculator.get_hessian(atoms)), timed(lambda: calls(calculator, atoms)))  # noqa: B023
            for _ in range(args.rounds)
        ]
        ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(a / b for a, b in times)
        print(
            f"{case:10s} {len(atoms):5d} | {off:10.1e} | {ours:10.2f}  {theirs:12.2f}  {ratio:5.2f} | "
            f"{memory:6.0f}",
            flush=True,
        )
    return 0


def water(n_atoms: int) -> Atoms:
    """Molecules of water in random orientations at the density of the liquid."""
    random = np.random.default_rng(1)
    count = n_atoms // 3
    side = int(np.ceil(count ** (1 / 3)))
    places = np.array(list(np.ndindex(side, side, side)))[:count]
    length = (count * 29.9) ** (1 / 3)
    positions = []
    for place in places:
        axes = np.linalg.qr(random.normal(size=(3, 3)))[0]
        shape = np.array([[0, 0, 0], [0.757, 0.586, 0], [-0.757, 0.586, 0]])
        positions.append(shape @ axes + place * length / side)
    return Atoms("OHH" * count, np.concatenate(positions), cell=[length] * 3, pbc=True)


def written(case: str, folder: Path, dtype: str = "float64") -> Path:
    """A model of this shape."""
    family, hyperparameters = CASES[case]
    module = importlib.import_module(f"mlplugins.models.{family}")
    torch.manual_seed(0)
    model = module.Model(["H", "O"], module.Hyperparameters(**hyperparameters)).double()
    save(model, folder / "model.pt", ModelCard(family, ["H", "O"], [0.0, 0.0]), dtype)
    return folder / "model.pt"


def moved(atoms: Atoms, k: int, by: float) -> Atoms:
    """One coordinate displaced."""
    copy = atoms.copy()
    copy.positions[k // 3, k % 3] += by
    return copy


def difference(calculator: MLCalculator, atoms: Atoms, k: int) -> np.ndarray:
    """∂F/∂r_k by central differences."""
    ahead, behind = (calculator.get_property("forces", moved(atoms, k, s * STEP)) for s in (1, -1))
    return ((ahead - behind) / (2 * STEP)).ravel()


def calls(calculator: MLCalculator, atoms: Atoms) -> None:
    """Forces of every displaced structure, in one direction."""
    for k in range(3 * len(atoms)):
        calculator.get_property("forces", moved(atoms, k, STEP))


def timed(work: Callable[[], Any]) -> float:
    """CPU seconds."""
    start = time.process_time()
    work()
    return time.process_time() - start


def peak() -> float:
    """Of the process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


if __name__ == "__main__":
    raise SystemExit(main())
