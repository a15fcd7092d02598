"""Errors of predicted energies, forces and stresses against labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlplugins.structures.dataset import Structure

MILLI = 1000.0
MEDIAN = 0.6744897501960817
"""Of |z|, z normal."""
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


class Prediction(Protocol):
    """What a model gives for one structure: eV, eV/Å, eV/Å³ (ASE's sign)."""

    @property
    def energy(self) -> float: ...
    @property
    def forces(self) -> NDArray[np.float64]: ...
    @property
    def stress(self) -> NDArray[np.float64] | None: ...


Pairs = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]


def pairs(structures: Sequence[Structure], predictions: Sequence[Prediction]) -> Pairs:
    """Flat (label, prediction) arrays: `energy` eV/atom, `forces` eV/Å, `stress` eV/Å³ (6 components).

    A quantity without any label is left out.
    """
    columns: dict[str, tuple[list[Any], list[Any]]] = {
        name: ([], []) for name in ("energy", "forces", "stress")
    }
    for s, p in zip(structures, predictions, strict=True):
        if s.energy is not None:
            columns["energy"][0].append([s.energy / len(s)])
            columns["energy"][1].append([p.energy / len(s)])
        if s.forces is not None:
            columns["forces"][0].append(s.forces.ravel())
            columns["forces"][1].append(np.asarray(p.forces).ravel())
        if s.stress is not None and s.volume > 0.0 and p.stress is not None:
            columns["stress"][0].append(_voigt(s.stress))
            columns["stress"][1].append(_voigt(np.asarray(p.stress)))
    return {
        name: (np.concatenate(labels), np.concatenate(predicted))
        for name, (labels, predicted) in columns.items()
        if labels
    }


def metrics(structures: Sequence[Structure], predictions: Sequence[Prediction]) -> dict[str, Any]:
    """MAE and RMSE as `mlplugins evaluate --json` writes them; null for a quantity without labels.

    >>> from types import SimpleNamespace
    >>> from mlplugins.structures.dataset import read
    >>> frames = read("examples/data/li6ps5cl_pbe/test.extxyz@:1")
    >>> off = SimpleNamespace(energy=frames[0].energy + 0.52, forces=frames[0].forces, stress=None)
    >>> round(metrics(frames, [off])["energy"]["mae_meV_per_atom"], 6)
    10.0
    """
    result: dict[str, Any] = {"n_structures": len(structures)}
    found = pairs(structures, predictions)
    for name, unit in (("energy", "meV_per_atom"), ("forces", "meV_per_A"), ("stress", "meV_per_A3")):
        if name not in found:
            result[name] = None
            continue
        labels, predicted = found[name]
        error = (predicted - labels) * MILLI
        mae, rmse = float(np.abs(error).mean()), float(np.sqrt(np.square(error).mean()))
        result[name] = {f"mae_{unit}": mae, f"rmse_{unit}": rmse}
    return result


def z_statistics(z: NDArray[np.float64]) -> dict[str, float]:
    """Of errors over their predicted standard deviations: what a normal z gives is 0, 1, 1, 0.683, 0.954.

    `robust` is median |z| / 0.6745, which a few frames far outside do not change.

    >>> {k: round(v, 3) for k, v in z_statistics(np.array([-0.6745, 0.6745, 0.6745, -3.0])).items()}
    {'n': 4.0, 'mean': -0.581, 'rms': 1.61, 'robust': 1.0, 'within_1': 0.75, 'within_2': 0.75}
    """
    size = np.abs(z)
    return {
        "n": float(len(z)),
        "mean": float(np.mean(z)),
        "rms": float(np.sqrt(np.mean(z**2))),
        "robust": float(np.median(size)) / MEDIAN,
        "within_1": float(np.mean(size < 1)),
        "within_2": float(np.mean(size < 2)),
    }


def _voigt(tensor: NDArray[np.float64]) -> NDArray[np.float64]:
    full = tensor.reshape(3, 3) if tensor.size == 9 else None
    if full is None:
        return tensor.reshape(6)
    return np.array([full[i, j] for i, j in VOIGT])
