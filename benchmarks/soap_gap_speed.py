"""Our SOAP-GAP against quippy-ase's GAP: same cutoff, basis and sparse points; one thread, in turns.

python benchmarks/soap_gap_speed.py MODEL.pt GAP.xml STRUCTURE --peer ENVIRONMENT_WITH_QUIPPY/bin/python

GAP.xml: from quippy-ase's gap_fit, with the hyper-parameters of MODEL.pt. CPU time of a call with forces, the
least of several, per atom.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from pathlib import Path

import ase.io
import torch

from mlplugins import MLCalculator

ROUNDS, CALLS = 3, 4


def ours(calculator: MLCalculator, structure: str) -> float:
    """µs per atom."""
    atoms = ase.io.read(structure)
    times = []
    for k in range(CALLS):
        moved = atoms.copy()
        moved.rattle(0.01, seed=k)
        moved.calc = calculator
        start = time.process_time()
        moved.get_forces()
        times.append(time.process_time() - start)
    return 1e6 * min(times[1:]) / len(atoms)


def theirs(python: str, gap: str, structure: str) -> float:
    """µs per atom."""
    script = Path(__file__).parent / "peers" / "quippy_speed.py"
    command = [python, str(script), gap, structure, str(CALLS)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(run.stdout.split()[-1])


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("gap")
    parser.add_argument("structure")
    parser.add_argument("--peer", required=True, help="python of an environment with quippy-ase")
    args = parser.parse_args()
    torch.set_num_threads(1)
    calculator = MLCalculator(args.model)
    for _ in range(ROUNDS):
        a, b = ours(calculator, args.structure), theirs(args.peer, args.gap, args.structure)
        print(f"ours {a:.0f} µs/atom, quippy {b:.0f} µs/atom, ratio {b / a:.2f}", flush=True)


if __name__ == "__main__":
    main()
