"""Eight replicas in one call against one by one: CPU time of `Artifact.evaluate`, as for the beads of i-PI.

    OMP_NUM_THREADS=1 python benchmarks/batches.py [--model model.pt] [--atoms 24 192] [--replicas 8]

The replicas are rattled water, so the model must know H and O; without --model an untrained MACE of 64
channels is written. Both ways take turns; the results are compared.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from speed import water

from mlplugins.model_file.artifact import load


def write_mace(path: Path) -> Path:
    """An untrained MACE model of water in float32."""
    from mlplugins.model_file.card import ModelCard
    from mlplugins.model_file.write import save
    from mlplugins.models import mace

    torch.manual_seed(0)
    model = mace.Model(["H", "O"], mace.Hyperparameters(cutoff=5.0, num_channels=64, l_max=2))
    save(model, path, ModelCard("mace", ["H", "O"], [0.0, 0.0]), "float32")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path)
    parser.add_argument("--atoms", type=int, nargs="+", default=[24, 192])
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = load(args.model or write_mace(Path(folder) / "model.pt"))
    for n_atoms in args.atoms:
        replicas = [water(n_atoms // 3) for _ in range(args.replicas)]
        for seed, atoms in enumerate(replicas):
            atoms.rattle(0.02, seed=seed)
        seconds: dict[str, list[float]] = {"one by one": [], "one batch": []}
        for _ in range(args.rounds + 1):
            start = time.process_time()
            single = [model.evaluate([atoms])[0] for atoms in replicas]
            middle = time.process_time()
            batch = model.evaluate(replicas)
            seconds["one by one"].append(middle - start)
            seconds["one batch"].append(time.process_time() - middle)
        worst = max(np.abs(a.forces - b.forces).max() for a, b in zip(single, batch))
        one, together = (1e3 * float(np.median(values[1:])) for values in seconds.values())
        print(
            f"{args.replicas} × {n_atoms} atoms: one by one {one:.1f} ms, one batch {together:.1f} ms "
            f"({one / together:.2f}×), forces differ by {worst:.1e} eV/Å"
        )


if __name__ == "__main__":
    main()
