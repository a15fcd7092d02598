"""Choosing labels from a pool with rare kinds: what `mlplugins learn` does against three controls.

Copper, labels by ASE's EMT. The first model knows 8 cold frames. The pool has 100 cold frames and 10 of each
rare kind (hot, molten, vacancy, stretched and squeezed, a surface). 5 frames are labelled a round; errors of
the force components are measured on 12 frames of every kind that are never in the pool.

    python benchmarks/rare_kinds.py [seeds] [rounds]

`learn`: the spread of a committee of 3, then farthest points among the 20 least certain, as the command does.
`farthest`: farthest points alone. `shuffled`: as `learn`, with the spreads of other frames. `random`: any.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc100
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from mlplugins.structures import selection
from mlplugins.workflows import _learn_round as rounds
from mlplugins.workflows._learn_config import LearnConfig
from mlplugins.workflows._learn_judge import Judge, surprise
from mlplugins.workflows.select import mean_soap

METHODS = ("learn", "farthest", "shuffled", "random")
EACH = 5
MODEL = {"family": "soap-gap", "cutoff": 4.2, "n_max": 4, "l_max": 3, "two_body": 8}
TRAINING = {"n_sparse": 150, "regularisation": {"energy": 1e-3, "forces": 0.02, "virial": 0.01}}
TEXT = {
    "start": {"frames": "none"},
    "labels": {"kind": "emt"},
    "model": MODEL,
    "training": TRAINING,
    "uncertainty": {"members": 3},
    "explore": {"structures": ["none"], "temperatures": [300.0], "steps": 1},
    "until": {"expected_error": 0.1},
}


def _frame(kind: str, rng: np.random.Generator) -> Atoms:
    """One labelled frame of a kind."""
    atoms = bulk("Cu", cubic=True) * (2, 2, 1)
    amplitude = {"cold": 0.06, "hot": 0.15, "molten": 0.3}.get(kind, 0.08)
    if kind == "vacancy":
        del atoms[int(rng.integers(len(atoms)))]
    elif kind == "strained":
        atoms.set_cell(atoms.cell * (1.0 + rng.choice([-0.06, 0.08])), scale_atoms=True)
    elif kind == "surface":
        atoms = fcc100("Cu", (2, 2, 4), vacuum=5.0, periodic=True)
    atoms.positions += rng.normal(0.0, amplitude, (len(atoms), 3))
    atoms.calc = EMT()
    found = {
        "energy": atoms.get_potential_energy(),
        "forces": atoms.get_forces(),
        "stress": atoms.get_stress(),
    }
    atoms.calc = SinglePointCalculator(atoms, **found)
    return atoms


KINDS = ("cold", "hot", "molten", "vacancy", "strained", "surface")


def run(method: str, seed: int, n_rounds: int, folder: Path) -> list[dict[str, float]]:
    """RMSE of force components by kind after every second round, and how many rare frames were chosen."""
    rng = np.random.default_rng(seed)
    known = [_frame("cold", rng) for _ in range(8)]
    pool = [(kind, _frame(kind, rng)) for kind in KINDS for _ in range(100 if kind == "cold" else 10)]
    test = {kind: [_frame(kind, rng) for _ in range(12)] for kind in KINDS}
    loop = rounds.Loop(LearnConfig.model_validate(TEXT), folder)
    features = mean_soap([atoms for _, atoms in pool], 4.2)
    left, rare, rows = list(range(len(pool))), 0, []
    for number in range(n_rounds):
        at = folder / f"{number}"
        at.mkdir()
        scores = rng.uniform(size=len(pool))
        if method == "learn":
            judge = Judge(rounds.train(loop, at, rounds.Sets(known, known[:1])))
            scores = np.array([judge.of(atoms).deviations.max() for _, atoms in pool])
        candidates = sorted(left, key=lambda k: -scores[k])
        if method != "farthest":
            candidates = candidates[: EACH if method == "random" else rounds.POOL * EACH]
        order = selection.choose(features[candidates], EACH, "fps", given=mean_soap(known, 4.2))
        chosen = [candidates[k] for k in order]
        left = [k for k in left if k not in chosen]
        known = known + [pool[k][1] for k in chosen]
        rare += sum(pool[k][0] != "cold" for k in chosen)
        if number % 2 or number == n_rounds - 1:
            path = rounds.train(loop, at / "all", rounds.Sets(known, known[:1]), final=True)
            row = {kind: surprise(Judge(path), frames).force_rmse for kind, frames in test.items()}
            rows.append({"labels": EACH * (number + 1), "rare": rare, **row})
    return rows


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    seeds, n_rounds = (int(word) for word in (sys.argv[1:] + ["5", "6"][len(sys.argv) - 1 :]))
    print(
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS')}, {seeds} seeds; forces in meV/Å, mean (min-max)"
    )
    print(
        f"{'method':10s} {'labels':>6s} {'rare':>5s} {'cold':>18s} {'worst kind':>18s} {'mean of rare':>18s}"
    )
    begun = time.process_time()
    for method in METHODS:
        found = []
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder:
                found.append(run(method, seed, n_rounds, Path(folder)))
        for rows in zip(*found):
            rare = np.array([[row[kind] for kind in KINDS[1:]] for row in rows]) * 1000
            values = [np.array([row["cold"] for row in rows]) * 1000, rare.max(axis=1), rare.mean(axis=1)]
            cells = " ".join(f"{v.mean():6.0f} ({v.min():.0f}-{v.max():.0f})".rjust(18) for v in values)
            chosen = np.mean([row["rare"] for row in rows])
            print(f"{method:10s} {rows[0]['labels']:6.0f} {chosen:5.1f} {cells}", flush=True)
    print(f"{time.process_time() - begun:.0f} CPU-s")


if __name__ == "__main__":
    main()
