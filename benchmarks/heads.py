"""Accuracy of heads on small sets, each beside a trivial baseline.

    MLPLUGINS_REFERENCE_DATA=… python benchmarks/heads.py qm7x [--models 3]     about five CPU-minutes
    MLPLUGINS_REFERENCE_DATA=… python benchmarks/heads.py cocaine               about five CPU-minutes

QM7-X: dipoles and polarizabilities of 100 molecules of 7 to 11 atoms, 80/20 stratified by formula. Baselines:
zero and, for the isotropic polarizability, a constant per element; and a ridge regression that is linear in
functions of pairs, Σ_ij w(Z_i, Z_j, r_ij) times 1, r̂ and r̂r̂ᵀ − 1/3. Cocaine: isotropic shieldings of 29
crystals (GIPAW), split by crystal; baseline: the mean of the element.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read, write
from ase.units import Bohr
from numpy.typing import NDArray

import mlplugins
from mlplugins.model_file import artifact

Floats = NDArray[np.float64]
SETS = {
    "qm7x": "cookbook_demo/qm7x_reduced_100_CHNO_mu_alpha.xyz",
    "cocaine": "cookbook_demo/cocaine_GIPAW_shieldings.xyz",
}
HEADS: dict[str, dict[str, Any]] = {
    "qm7x": {"dipole": {"unit": "e*A", "key": "mu"}, "polarizability": {"unit": "Bohr^3", "key": "alpha"}},
    "cocaine": {"isotropic_shielding": {"unit": "ppm", "key": "CS"}},
}
MODELS: dict[str, dict[str, Any]] = {
    "qm7x": {"family": "nequip", "cutoff": 5.0, "num_layers": 3, "l_max": 2, "num_features": 32},
    "cocaine": {"family": "nequip", "cutoff": 4.5, "num_layers": 2, "l_max": 1, "num_features": 16},
}
TRAINING: dict[str, dict[str, Any]] = {
    "qm7x": {
        "epochs": 80,
        "batch_size": 4,
        "lr": 0.005,
        "optimizer": "adamw",
        "weight_decay": 0.1,
        "loss": {"huber": 0.1},
    },
    "cocaine": {"epochs": 40, "batch_size": 1, "lr": 0.01, "optimizer": "adamw", "weight_decay": 0.01},
}
WIDTHS = np.linspace(0.9, 6.0, 8)


def split(frames: Sequence[Atoms], seed: int) -> tuple[list[Atoms], list[Atoms]]:
    """80/20, stratified by formula."""
    random, groups = np.random.default_rng(seed), defaultdict(list)
    for k, atoms in enumerate(frames):
        groups[atoms.get_chemical_formula()].append(k)
    test: set[int] = set()
    for formula in sorted(groups):
        order = random.permutation(groups[formula]).tolist()
        test |= set(order[: max(1, round(0.2 * len(order)))])
    return [a for k, a in enumerate(frames) if k not in test], [frames[k] for k in sorted(test)]


def predictions(
    train: list[Atoms], test: list[Atoms], name: str, folder: Path, seed: int
) -> tuple[list[Any], float]:
    """Of a model trained on all of `train`, and its CPU time, s."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "train.extxyz", train)
    configuration = {
        "data": {"train": str(folder / "train.extxyz"), "validation": 0.0, "keys": {"energy": None}},
        "heads": HEADS[name],
        "model": MODELS[name],
        "training": TRAINING[name],
        "seed": seed,
    }
    start = time.process_time()
    mlplugins.train(configuration, folder / "run", restart=True)
    cpu = time.process_time() - start
    model = artifact.load(folder / "run/model.pt")
    return [model.evaluate([atoms], wanted=list(HEADS[name]))[0] for atoms in test], cpu


def tensors(alpha: Floats) -> tuple[Floats, Floats]:
    """Isotropic part (n,) and components xx yy zz yz xz xy of the traceless one (n, 6)."""
    iso = np.trace(alpha, axis1=1, axis2=2) / 3
    rest = alpha - iso[:, None, None] * np.eye(3)
    return iso, rest[:, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def pair_features(atoms: Atoms, kinds: list[tuple[int, int]]) -> tuple[Floats, Floats, Floats]:
    """Sums over pairs of Gaussians of the distance: scalars (f,), vectors (f, 3), tensors (f, 3, 3)."""
    f = len(kinds) * len(WIDTHS)
    scalars, vectors, seconds = np.zeros(f), np.zeros((f, 3)), np.zeros((f, 3, 3))
    for i in range(len(atoms)):
        for j in range(len(atoms)):
            kind = (int(atoms.numbers[i]), int(atoms.numbers[j]))
            if i == j:
                continue
            v = atoms.positions[j] - atoms.positions[i]
            r = float(np.linalg.norm(v))
            u = v / r
            rows = slice(kinds.index(kind) * len(WIDTHS), (kinds.index(kind) + 1) * len(WIDTHS))
            g = np.exp(-0.5 * ((r - WIDTHS) / 0.7) ** 2)
            scalars[rows] += g
            vectors[rows] += g[:, None] * u
            seconds[rows] += g[:, None, None] * (np.outer(u, u) - np.eye(3) / 3)
    return scalars, vectors, seconds


def ridge(x: Floats, y: Floats, z: Floats, strength: float = 1e-2) -> Floats:
    """Values at `z` of the regression on `x`, `y`."""
    gram = x.T @ x
    shift = strength * np.trace(gram) / len(gram) * np.eye(len(gram))
    return z @ np.linalg.solve(gram + shift, x.T @ y)


def pair_regression(train: list[Atoms], test: list[Atoms]) -> tuple[Floats, Floats, Floats]:
    """Dipoles, isotropic and traceless polarizabilities of `test`, linear in functions of pairs."""
    elements = sorted({int(z) for a in train for z in a.numbers})
    kinds = [(a, b) for a in elements for b in elements]
    x, z = ([pair_features(a, kinds) for a in frames] for frames in (train, test))

    def counts(frames: list[Atoms]) -> Floats:
        return np.array([[np.sum(a.numbers == e) for e in elements] for a in frames], dtype=float)

    mu = np.concatenate([a.info["mu"] for a in train])
    dipoles = ridge(np.concatenate([f[1].T for f in x]), mu, np.concatenate([f[1].T for f in z]), 1e-4)
    iso, traceless = tensors(np.array([a.info["alpha"].reshape(3, 3) for a in train]))
    n, m = counts(train), counts(test)
    left = iso - n @ np.linalg.lstsq(n, iso, rcond=None)[0]
    rest = ridge(np.array([f[0] for f in x]), left, np.array([f[0] for f in z]), 1e-4)
    six = [0, 4, 8, 5, 2, 1]
    rows = [np.concatenate([f[2].reshape(-1, 9)[:, six].T for f in each]) for each in (x, z)]
    anisotropic = ridge(rows[0], traceless.ravel(), rows[1], 1e-4)
    constants = m @ np.linalg.lstsq(n, iso, rcond=None)[0]
    return dipoles.reshape(-1, 3), constants + rest, anisotropic.reshape(-1, 6)


def qm7x(frames: list[Atoms], folder: Path, n_models: int, seed: int) -> dict[str, Any]:
    train, test = split(frames, seed)
    each, cpu = [], 0.0
    for k in range(n_models):
        found, seconds = predictions(train, test, "qm7x", folder / f"qm7x_{k}", k)
        each.append([(r.get("dipole"), r.get("polarizability") / Bohr**3) for r in found])
        cpu += seconds
    mu = np.array([a.info["mu"] for a in test])
    iso, traceless = tensors(np.array([a.info["alpha"].reshape(3, 3) for a in test]))
    elements = sorted({int(z) for a in frames for z in a.numbers})
    n, m = (np.array([[np.sum(a.numbers == e) for e in elements] for a in part]) for part in (train, test))
    of_train, _ = tensors(np.array([a.info["alpha"].reshape(3, 3) for a in train]))
    composition = m @ np.linalg.lstsq(n, of_train, rcond=None)[0]
    rows = {"zero, constants per element": (np.zeros_like(mu), composition, np.zeros_like(traceless))}
    rows["ridge of pairs"] = pair_regression(train, test)
    for name, models in (("one model", each[:1]), (f"mean of {n_models} models", each)):
        values = [np.mean([[row[part] for row in model] for model in models], axis=0) for part in (0, 1)]
        rows[name] = (values[0], *tensors(values[1]))
    report: dict[str, Any] = {"n_train": len(train), "n_test": len(test), "cpu_s": cpu}
    for name, predicted in rows.items():
        errors = [np.abs(p - t) for p, t in zip(predicted, (mu, iso, traceless))]
        units = ("dipole component e·Å", "isotropic bohr³", "traceless component bohr³")
        report[name] = {f"{u} MAE": round(float(e.mean()), 4) for u, e in zip(units, errors)}
        report[name]["dipole component e·Å RMSE"] = round(float(np.sqrt(np.mean(errors[0] ** 2))), 4)
    return report


def cocaine(frames: list[Atoms], folder: Path, n_models: int, seed: int) -> dict[str, Any]:
    """Split by crystal: every fifth is a test frame."""
    test, train = frames[seed % 5 :: 5], [a for k, a in enumerate(frames) if k % 5 != seed % 5]
    found, cpu = predictions(train, test, "cocaine", folder / "cocaine", seed)
    report: dict[str, Any] = {"n_train": len(train), "n_test": len(test), "cpu_s": cpu}
    for symbol in ("H", "C", "N", "O"):
        chosen = [np.array(a.symbols) == symbol for a in test]
        label = np.concatenate([a.arrays["CS"][c] for a, c in zip(test, chosen)])
        model = np.concatenate([r.get("isotropic_shielding")[c] for r, c in zip(found, chosen)])
        mean = np.mean(np.concatenate([a.arrays["CS"][np.array(a.symbols) == symbol] for a in train]))
        rmse = {"RMSE ppm": model - label, "mean of the element, RMSE ppm": mean - label}
        report[symbol] = {name: round(float(np.sqrt(np.mean(e**2))), 3) for name, e in rmse.items()}
    return report


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--models", type=int, default=1, help="QM7-X: seeds whose mean is shown as well")
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/heads"))
    args = parser.parse_args()
    folder = os.environ.get("MLPLUGINS_REFERENCE_DATA")
    if not folder:
        sys.exit("set MLPLUGINS_REFERENCE_DATA to the folder of the reference data (it holds cookbook_demo/)")
    if args.epochs is not None:
        TRAINING[args.set]["epochs"] = args.epochs
    frames = read(Path(folder) / SETS[args.set], ":")
    report = {"qm7x": qm7x, "cocaine": cocaine}[args.set](frames, args.output, args.models, args.seed)
    print(json.dumps(report, indent=1, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
