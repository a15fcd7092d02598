"""Prediction with the same sGDML weights: the `sgdml` package and mlplugins, taking turns in one process.

    python benchmarks/kernel_speed.py MODEL_DIR FRAMES [--rounds 15] [--train 50]

MODEL_DIR is the folder of `mlplugins train` with family sgdml; FRAMES are structures of its molecule. Runs
in an
environment that has both packages (`pip install sgdml`). The weights are written in sgdml's own format, and
the
forces are compared first. Times are medians of process CPU time for energy and forces on one thread: of one
structure at a time, through the whole of `model.pt` (neighbour list included), and of 100 at once.
`--train N` fits N frames with both packages, with the same σ, λ and permutations, and compares the
predictions.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
import yaml

from mlplugins.checkpoints import native
from mlplugins.engines import artifact
from mlplugins.models.base import energy_derivatives
from mlplugins.structures import batch
from mlplugins.structures.dataset import from_atoms
from mlplugins.training import config, solve


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("frames", help="file that ASE reads")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--train", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    ours = artifact.load(args.model / "model.pt")
    theirs = predictor(converted(args.model))
    frames = ase.io.read(args.frames, index=":100")
    positions = np.array([a.positions.reshape(-1) for a in frames])
    energies, forces = theirs.predict(positions)
    found = ours.evaluate(frames)
    shift = np.array([r.energy for r in found]) - energies
    print(
        f"{ours.family}, {len(native.read(args.model / 'checkpoint.ckpt').potential.points)} points: "
        "largest difference "
        f"forces {np.abs(forces - np.array([r.forces.ravel() for r in found])).max():.1e} eV/Å, "
        f"energies {np.ptp(shift):.1e} eV"
    )
    names = ("theirs, 1", "ours, 1", "alone, 1", "theirs, 100", "ours, 100", "alone, 100")
    times: dict[str, list[float]] = {name: [] for name in names}
    alone, inputs, many = potential_alone(args.model, frames)
    for k in range(args.rounds):
        one, p = frames[k % 100], positions[k % 100]
        times["theirs, 1"].append(_timed(lambda p=p: theirs.predict(p), 10))
        times["ours, 1"].append(_timed(lambda one=one: ours.evaluate([one]), 10))
        times["alone, 1"].append(_timed(lambda: alone(*inputs), 10))
        times["alone, 100"].append(_timed(lambda: alone(*many), 1) / 100)
        times["theirs, 100"].append(_timed(lambda: theirs.predict(positions), 1) / 100)
        times["ours, 100"].append(_timed(lambda: ours.evaluate(frames), 1) / 100)
    for count in ("1", "100"):
        for who, what in (("ours", "through model.pt"), ("alone", "the model alone")):
            a, b = (statistics.median(times[f"{name}, {count}"]) for name in ("theirs", who))
            ratios = sorted(x / y for x, y in zip(times[f"theirs, {count}"], times[f"{who}, {count}"]))
            print(
                f"{count} at a time: sgdml {1e3 * a:.3f} ms, mlplugins, {what}, {1e3 * b:.3f} ms, ratio "
                f"{a / b:.1f} (quartiles {ratios[len(ratios) // 4]:.1f} … {ratios[3 * len(ratios) // 4]:.1f})"
            )
    if args.train:
        compare_training(args.model, args.frames, args.train)
    return 0


def converted(directory: Path) -> dict[str, Any]:
    """The weights of a checkpoint in sgdml's format."""
    from sgdml.utils.desc import Desc

    checkpoint = native.read(directory / "checkpoint.ckpt")
    model: Any = checkpoint.potential
    n = len(model.species)
    permutations = checkpoint.details["hyperparameters"]["permutations"]
    perms = np.array(permutations if isinstance(permutations, list) else [list(range(n))])
    i, j = np.tril_indices(n, -1)  # i > j
    place = np.zeros((n, n), dtype=int)
    place[np.triu_indices(n, 1)] = np.arange(n * (n - 1) // 2)
    order = place[j, i]
    pairs = np.array([Desc.perm(p) for p in perms])
    offsets = np.arange(len(perms))[:, None] * pairs.shape[1]
    return {
        "type": "m",
        "z": model.charges[model.species].numpy().astype(int),
        "R_desc": (model.points + model.shift).numpy()[:, order].T,
        "R_d_desc_alpha": model.slopes.numpy()[:, order],
        "sig": model.sigma,
        "c": float(model.offset),
        "std": 1.0,
        "perms": perms,
        "tril_perms_lin": (pairs + offsets).flatten("F"),
    }


def potential_alone(directory: Path, frames: list[Any]) -> tuple[Any, tuple[Any, ...], tuple[Any, ...]]:
    """Energies and forces of the scripted model from given neighbour vectors: for one structure and for
    all."""
    checkpoint = native.read(directory / "checkpoint.ckpt")
    checkpoint.potential.freeze()
    scripted = torch.jit.script(checkpoint.potential.eval())
    parts = [
        batch.single(from_atoms(a), checkpoint.elements, checkpoint.potential.cutoff, 0.0, torch.float64)
        for a in frames
    ]

    def evaluate(b: batch.Batch) -> Any:
        vectors = b.vectors.detach().requires_grad_()
        with torch.jit.optimized_execution(False):
            energy = scripted(b.species, b.centers, b.neighbors, vectors, b.system, len(b.species))["energy"]
            return energy_derivatives(energy, vectors, (b.centers, b.neighbors), b.system, b.n_systems)

    return evaluate, (parts[0],), (batch.concatenate(parts),)


def predictor(model: dict[str, Any]) -> Any:
    """sgdml's predictor, without worker processes."""
    from sgdml.predict import GDMLPredict

    found = GDMLPredict(model, max_processes=1, num_workers=0)
    found._set_num_workers(0, force_reset=True)
    return found


def compare_training(directory: Path, source: str, count: int) -> None:
    """Fit the same frames with both packages."""
    from sgdml.train import GDMLTrain
    from sgdml.utils import io

    if not hasattr(np, "in1d"):
        np.in1d = np.isin  # sgdml 1.0.3 was written for numpy 1
    details = native.read(directory / "checkpoint.ckpt").details["hyperparameters"]
    frames = ase.io.read(source, index=":")
    fitted, rest = frames[:count], frames[count : count + 50]
    dataset: dict[str, Any] = {
        "type": "d",
        "name": np.array("frames"),
        "theory": np.array("frames"),
        "z": frames[0].numbers,
        "R": np.array([a.positions for a in frames[: count + 50]]),
        "F": np.array([a.get_forces() for a in frames[: count + 50]]),
        "E": np.array([a.get_potential_energy() for a in frames[: count + 50]]),
    }
    dataset["md5"] = io.dataset_md5(dataset)
    trainer = GDMLTrain(max_processes=1)
    task = trainer.create_task(
        dataset, count, dataset, 1, sig=details["sigma"], lam=1e-10, perms=np.array(details["permutations"])
    )
    task["idxs_train"] = np.arange(count)
    task["R_train"], task["F_train"] = dataset["R"][:count], dataset["F"][:count]
    task["E_train"] = dataset["E"][:count]
    start = time.process_time()
    model = trainer.train(task)
    print(f"fit of {count} frames: sgdml {time.process_time() - start:.1f} CPU-s", end=", ")
    _, theirs = predictor(model).predict(np.array([a.positions.reshape(-1) for a in rest]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        ase.io.write(path / "frames.extxyz", fitted)
        content = {
            "data": {"train": str(path / "frames.extxyz"), "validation": 0.0},
            "model": {
                "family": "sgdml",
                "sigma": details["sigma"],
                "permutations": details["permutations"],
            },
            "training": {"regularisation": 1e-10},
        }
        start = time.process_time()
        trained = solve.train(
            config.parse(yaml.safe_load(yaml.safe_dump(content)), "benchmark"), path / "out", _Silent()
        )
        print(f"mlplugins {time.process_time() - start:.1f} CPU-s (files and plots included)")
        ours = np.array([r.forces.ravel() for r in artifact.load(path / "out" / "model.pt").evaluate(rest)])
    truth = np.array([a.get_forces().ravel() for a in rest])
    print(
        f"force MAE of 50 other frames: sgdml {1e3 * np.abs(theirs - truth).mean():.3f}, "
        f"mlplugins {1e3 * np.abs(ours - truth).mean():.3f} meV/Å; largest difference between them "
        f"{1e3 * np.abs(theirs - ours).max():.1e} meV/Å; condition "
        f"{trained.metrics['solver']['condition']:.1e}"
    )


class _Silent:
    def start(self, epoch: int, epochs: int) -> None: ...
    def epoch(self, row: dict[str, float], epochs: int, best: bool) -> None: ...
    def note(self, text: str) -> None: ...


def _timed(function: Any, repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        function()
    return (time.process_time() - start) / repeats


if __name__ == "__main__":
    sys.exit(main())
