"""Prediction with the same sGDML weights: the `sgdml` package and mlplugins, taking turns in one process.

    python benchmarks/kernel_speed.py MODEL_DIR FRAMES [--rounds 15] [--train 50]

MODEL_DIR is the folder of `mlplugins train` with family sgdml; FRAMES are structures of its molecule. Needs
both packages (`pip install sgdml`). The weights are written in sgdml's own format, and the forces are
compared first. Times are medians of process CPU time for energy and forces on one thread: of the two ASE
calculators, of the two predictors with one structure at a time, and with 100 at once (ours: the batch
evaluation of `model.pt` behind `mlplugins evaluate` and i-PI); "alone" is our model without what surrounds
it. sgdml's chunk size is the fastest of several. `--train N` fits N frames with both packages, with the same
σ, λ and permutations, and compares the predictions.
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
from ase.calculators.calculator import Calculator

from mlplugins import MLCalculator
from mlplugins.checkpoints import native
from mlplugins.model_file import artifact
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
    compare_prediction(args.model, theirs, frames, args.rounds)
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


def compare_prediction(directory: Path, theirs: Any, frames: list[Any], rounds: int) -> None:
    """Times of both, in turn."""
    ours, alone = artifact.load(directory / "model.pt"), potential_alone(directory)
    positions = np.array([a.positions.reshape(-1) for a in frames])
    r = torch.from_numpy(positions.reshape(len(frames), -1, 3))
    moved = [a.copy() for a in frames]
    calculators = {"sgdml, ASE": their_calculator(theirs), "ours, ASE": MLCalculator(directory / "model.pt")}
    work: dict[str, Any] = {
        "sgdml, 1": lambda k: theirs.predict(positions[k]),
        "ours, 1": lambda k: ours.evaluate([frames[k]]),
        "alone, 1": lambda k: alone.molecules(r[k : k + 1]),
        **{name: lambda k, c=c: c.get_forces(moved[k]) for name, c in calculators.items()},
        "sgdml, 100": lambda k: theirs.predict(positions),
        "ours, 100": lambda k: ours.evaluate(frames),
        "alone, 100": lambda k: alone.molecules(r),
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    with torch.no_grad(), torch.jit.optimized_execution(False):
        for k in range(-2, rounds):
            for name, function in work.items():
                many = name.endswith("100")
                seconds = _timed(function, [0] if many else range(10 * (k + 2), 10 * (k + 3)), len(frames))
                if k >= 0:
                    times[name].append(seconds / len(frames) if many else seconds)
    for name in work:
        who, count = name.split(", ")
        if who != "sgdml":
            a, b = (statistics.median(times[n]) for n in (f"sgdml, {count}", name))
            ratios = sorted(x / y for x, y in zip(times[f"sgdml, {count}"], times[name]))
            print(
                f"{name:10}: sgdml {1e3 * a:.3f} ms, mlplugins {1e3 * b:.3f} ms a structure, "
                f"ratio {a / b:.1f} "
                f"(quartiles {ratios[len(ratios) // 4]:.1f} … {ratios[3 * len(ratios) // 4]:.1f})"
            )


def potential_alone(directory: Path) -> Any:
    """The scripted model of a checkpoint, as it is exported."""
    potential: Any = native.read(directory / "checkpoint.ckpt").potential.eval()
    potential.optimise_for_inference()
    potential.use_native_ops()
    return torch.jit.script(potential)


def predictor(model: dict[str, Any]) -> Any:
    """sgdml's predictor, without worker processes, with the chunk size that is the fastest here."""
    from sgdml.predict import GDMLPredict

    found = GDMLPredict(model, max_processes=1, num_workers=0)
    found._set_num_workers(0, force_reset=True)
    r = np.random.default_rng(0).normal(size=(1, 3 * len(model["z"])))
    n = model["R_desc"].shape[1]

    def seconds(size: int) -> float:
        found._set_chunk_size(size)
        return min(_timed(lambda _: found.predict(r), range(10), 1) for _ in range(3))

    found._set_chunk_size(min((n, *(k for k in (10, 25, 50, 100, 200, 500) if k < n)), key=seconds))
    return found


def their_calculator(predict: Any) -> Any:
    """sgdml's calculator around a predictor (it reads files only)."""
    from sgdml.intf.ase_calc import SGDMLCalculator

    calculator = SGDMLCalculator.__new__(SGDMLCalculator)
    Calculator.__init__(calculator)
    calculator.gdml_predict = predict
    calculator.E_to_eV = calculator.F_to_eV_Ang = calculator.Ang_to_R = 1.0
    return calculator


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


def _timed(function: Any, arguments: Any, count: int) -> float:
    start = time.process_time()
    for k in arguments:
        function(k % count)
    return (time.process_time() - start) / len(arguments)


if __name__ == "__main__":
    sys.exit(main())
