"""The line protocol of the peers: one process per package, so that measurements can take turns.

A peer prints one line of JSON when it is ready, and then answers each line of its input with one:

| line      | answer                                                                         |
|-----------|--------------------------------------------------------------------------------|
| `use K`   | takes structure K of the file: `n_atoms`                                       |
| `time N`  | N evaluations of energy and forces, neighbour list included: `cpu_s`, `wall_s` |
| `train N` | N training steps on forces (graph ready, no update of the weights): the same   |
| `forces`  | `energy` (eV), `forces` (eV/Å)                                                 |
| `rss`     | `peak_MiB`, the largest resident memory so far                                 |

Atoms move by 1e-4 Å before every evaluation, so that nothing is cached. Nothing here imports mlplugins:
peers run in the environments of their packages.
"""

import json
import os
import sys
import time


class Peer:
    """What a package provides; `frames` are ASE structures."""

    def __init__(self, frames):
        import numpy as np

        self.frames = frames
        self.atoms = frames[0].copy()
        self.random = np.random.default_rng(0)

    def evaluate(self, atoms):
        """Energy (eV) and forces (eV/Å)."""
        raise NotImplementedError

    def training_step(self, atoms):
        """A function that does one forward and backward pass of a loss on energy and forces."""
        raise NotImplementedError

    def answer(self, command, number):
        if command == "use":
            self.atoms = self.frames[number].copy()
            return {"n_atoms": len(self.atoms)}
        if command == "time":
            return self._timed(self._moved, number)
        if command == "train":
            return self._timed(self.training_step(self.atoms), number)
        if command == "forces":
            energy, forces = self.evaluate(self.atoms)
            return {"energy": float(energy), "forces": forces.tolist()}
        if command == "rss":
            with open(
                "/proc/self/status", encoding="ascii"
            ) as status:  # ru_maxrss counts the parent before exec
                (line,) = [line for line in status if line.startswith("VmHWM")]
            return {"peak_MiB": int(line.split()[1]) / 1024}
        raise ValueError(f"unknown request '{command}'")

    def _moved(self):
        self.atoms.positions += 1e-4 * self.random.standard_normal(self.atoms.positions.shape)
        self.evaluate(self.atoms)

    @staticmethod
    def _timed(function, n):
        cpu, wall = [], []
        for _ in range(n):
            start = time.process_time(), time.perf_counter()
            function()
            cpu.append(time.process_time() - start[0])
            wall.append(time.perf_counter() - start[1])
        return {"cpu_s": cpu, "wall_s": wall}


def pin(threads):
    """Thread counts of every library, before they are imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)


def serve(make):
    """Answer requests with the peer that `make()` returns, until the input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what packages print must not mix with the answers
    peer = make()
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        words = line.split()
        if words:
            number = int(words[1]) if len(words) > 1 else 0
            print(json.dumps(peer.answer(words[0], number)), file=answers, flush=True)
