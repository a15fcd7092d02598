"""Times sevenn's own calculator and training step on request, for benchmarks that alternate with it.

Runs in an environment of its own (`pip install torch sevenn==0.13.0`), knows nothing of mlplugins:

    python sevennet_stock.py [--model 7net-0] [--threads 1] FRAMES.extxyz

It prints one JSON line when ready, `{"atoms": [...], "versions": {...}}`, and then answers every line of its
standard input with one JSON line:

| line         | answer                                                                              |
|--------------|-------------------------------------------------------------------------------------|
| `time N [k]` | N energy + force + stress evaluations of frame k (0): seconds of each               |
| `train N [k]`| N steps of Adam on energy and forces of frame k, batch of one: seconds of each      |
| `energy [k]` | energy of frame k, eV, and its largest force component, eV/Å                        |
| `rss`        | peak resident memory of this process, MiB                                           |
| `quit`       | nothing; ends, as the end of the input does                                         |

Seconds are `{"cpu": [...], "wall": [...]}`: process CPU time (all threads) and wall time. Before every
evaluation the atoms move by 1e-4 Å; building the neighbour list is included, as in a simulation.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any


def _parse() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("frames", help="structures (extxyz)")
    parser.add_argument("--model", default="7net-0", help="name or checkpoint file; default: 7net-0")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


class Peer:
    """sevenn, with the frames loaded."""

    def __init__(self, args: argparse.Namespace) -> None:
        import numpy as np
        import torch
        from ase.io import read
        from sevenn.calculator import SevenNetCalculator

        torch.set_num_threads(args.threads)
        self.frames = read(args.frames, ":")
        self.calculator = SevenNetCalculator(args.model, device="cpu")
        self.checkpoint = args.model
        self.random = np.random.default_rng(0)
        self.trainer: Any = None

    def ready(self) -> dict[str, Any]:
        """The first line."""
        import e3nn
        import sevenn
        import torch

        versions = {"sevenn": sevenn.__version__, "e3nn": e3nn.__version__, "torch": torch.__version__}
        return {"atoms": [len(frame) for frame in self.frames], "versions": versions}

    def answer(self, words: list[str]) -> dict[str, Any]:
        """The answer to one request."""
        request, numbers = words[0], [int(word) for word in words[1:]]
        if request == "rss":
            return {"peak_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
        if request == "energy":
            return self.energy(*numbers)
        if request == "time":
            return self.times(self.evaluation(*numbers[1:]), numbers[0])
        if request == "train":
            return self.times(self.training_step(*numbers[1:]), numbers[0])
        raise ValueError(f"unknown request '{request}'")

    def energy(self, k: int = 0) -> dict[str, float]:
        """Energy and largest force of frame k as it is."""
        self.calculator.calculate(self.frames[k])
        results = self.calculator.results
        return {"energy": float(results["energy"]), "max_force": float(abs(results["forces"]).max())}

    def evaluation(self, k: int = 0) -> Callable[[], None]:
        """One evaluation of frame k, moved a little."""
        atoms = self.frames[k].copy()

        def once() -> None:
            atoms.positions += 1e-4 * self.random.standard_normal(atoms.positions.shape)
            self.calculator.calculate(atoms)

        return once

    def training_step(self, k: int = 0) -> Callable[[], None]:
        """One step of Adam on frame k, labelled with zeros: forward, force, double backward, update."""
        import torch
        from ase.calculators.singlepoint import SinglePointCalculator
        from sevenn.train.dataload import graph_build
        from sevenn.util import load_checkpoint
        from torch_geometric.loader import DataLoader

        if self.trainer is None:
            self.trainer = load_checkpoint(self.checkpoint).build_model()
            self.trainer.set_is_batch_data(True)
        model = self.trainer.train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-6)
        atoms = self.frames[k].copy()
        zeros = {"energy": 0.0, "forces": 0.0 * atoms.positions, "stress": 0.0 * atoms.cell.array.ravel()[:6]}
        atoms.calc = SinglePointCalculator(atoms, **zeros)
        graph = graph_build([atoms], self.calculator.cutoff, y_from_calc=True)
        (batch,) = DataLoader(graph, batch_size=1)

        def once() -> None:
            optimizer.zero_grad()
            output = model(batch.clone())
            loss = output["inferred_total_energy"].square().mean() + output["inferred_force"].square().mean()
            loss.backward()
            optimizer.step()

        return once

    def times(self, once: Callable[[], None], n: int) -> dict[str, list[float]]:
        """CPU and wall seconds of each of n calls."""
        cpu, wall = [], []
        for _ in range(n):
            start = time.process_time(), time.perf_counter()
            once()
            cpu.append(time.process_time() - start[0])
            wall.append(time.perf_counter() - start[1])
        return {"cpu": cpu, "wall": wall}


def main() -> None:
    """Answer requests until the input ends."""
    args = _parse()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # before torch
    answers, sys.stdout = sys.stdout, sys.stderr  # sevenn prints; the answers must stay alone on their stream
    peer = Peer(args)
    print(json.dumps(peer.ready()), file=answers, flush=True)
    for line in sys.stdin:
        words = line.split()
        if words == ["quit"]:
            break
        if words:
            print(json.dumps(peer.answer(words)), file=answers, flush=True)


if __name__ == "__main__":
    main()
