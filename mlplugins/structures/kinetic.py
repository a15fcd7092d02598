"""Stress labels that hold what momenta add in molecular dynamics, which no potential can learn.

Codes print the pressure of a run with and without it (CP2K, i-PI and LAMMPS with it, VASP in two lines). With
it the labels are Vσ − Σ p⊗p/m. Two witnesses: momenta in the frames, whose fluctuations the labels then
follow with slope −1 though nothing else does (momenta and positions are independent), and energies of close
frames of different volume, between which the labels do the work N k T ln(V_b/V_a) too little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mlplugins import units
from mlplugins.structures import close_frames, pair_fit
from mlplugins.structures.close_frames import ClosePairs
from mlplugins.structures.dataset import Keys, Structure

Array = NDArray[np.float64]

FEWEST = 20
"""Frames with momenta below which nothing is said."""
SURE, NEAR = 5.0, 0.5
"""Standard errors that a slope is from 0, and how far it may be from 1."""
HOT = (50.0, 10_000.0)
"""Temperatures (K) of molecular dynamics of what is labelled."""
LEAST_STRAIN = 1e-4
LEFT = 0.5
"""Part of the differences that the kinetic work may leave."""
DIRECTIONS = np.array(
    [[[0, 0, 0], [0, 0, 1], [0, 1, 0]], [[0, 0, 1], [0, 0, 0], [1, 0, 0]], [[0, 1, 0], [1, 0, 0], [0, 0, 0]],
     [[1, 0, 0], [0, -1, 0], [0, 0, 0]], [[1, 0, 0], [0, 1, 0], [0, 0, -2]]]
) / np.sqrt([2, 2, 2, 2, 6])[:, None, None]  # fmt: skip
"""The traceless symmetric tensors, orthonormal."""


def check(structures: Sequence[Structure], keys: Keys) -> list[str]:
    """A warning about labels with a kinetic part; nothing where nobody can tell."""
    able = [s for s in structures if s.stress is not None and s.volume > 0 and len(s) > 1]
    label = "virial" if any(keys.virial in s.taken for s in able) else "stress"
    found = _by_momenta(able) or _by_work(close_frames.pairs(able))
    return [f"{label} (key '{getattr(keys, label)}'): {found}"] if found else []


def _by_momenta(structures: Sequence[Structure]) -> str:
    frames = [s for s in structures if s.kinetic is not None and s.kinetic.any()]
    if len(frames) < FEWEST:
        return ""
    slopes = [_slope(frames, None)]
    fit = pair_fit.implied([replace(s) for s in frames])
    if fit is not None and len(fit.structures) >= FEWEST:
        slopes.append(_slope(fit.structures, fit.virial))
    slope, error = min(slopes, key=lambda pair: pair[1])
    if slope < SURE * error or abs(slope - 1) > NEAR:
        return ""
    n = sum(map(len, frames))
    kelvin = sum(float(np.trace(s.kinetic)) for s in frames if s.kinetic is not None)
    kelvin /= 3 * n * units.BOLTZMANN_EV_K
    return (
        f"the labels follow the momenta in the frames (slope {slope:.2f} ± {error:.2f}, expected 0; "
        f"{len(frames)} frames of {kelvin:.0f} K): they hold the kinetic part of molecular dynamics, which "
        "no potential can learn: give the stress without it (add Σ p⊗p/m to V·stress), or set it to null in "
        "data.keys"
    )


def _slope(frames: Sequence[Structure], implied: Array | None) -> tuple[float, float]:
    """Of V·stress against −Σ p⊗p/m, and its standard error; `implied` is taken out beforehand."""
    labels = _parts([s.volume * s.stress for s in frames if s.stress is not None])
    momenta = _parts([-s.kinetic for s in frames if s.kinetic is not None])
    columns = [momenta] if implied is None else [momenta, _parts(list(implied))]
    matrix = np.stack([column.ravel() for column in columns], axis=1)
    solution, _, rank, _ = np.linalg.lstsq(matrix, labels.ravel(), rcond=1e-9)
    if rank < len(columns):
        return 0.0, np.inf
    left = labels.ravel() - matrix @ solution
    freedom = labels.size - len(DIRECTIONS) - len(columns)
    covariance = np.linalg.inv(matrix.T @ matrix) * float(left @ left) / freedom
    return float(solution[0]), float(np.sqrt(covariance[0, 0]))


def _parts(tensors: Sequence[Array]) -> Array:
    """Traceless components less their means, (frames, 5): means and traces have other reasons to agree."""
    parts = np.einsum("dab,kab->kd", DIRECTIONS, np.stack(tensors))
    return np.asarray(parts - parts.mean(axis=0))


def _by_work(found: ClosePairs) -> str:
    """Between close frames of different volume the work of the labels lacks that of an ideal gas, beside what
    large strains leave by themselves, in third order."""
    volumes = [np.array([s.volume for s in part]) for part in (found.first, found.second)]
    sizes = np.array([len(s) for s in found.first])
    gas = sizes * 2 * (volumes[1] - volumes[0]) / (volumes[0] + volumes[1]) if len(sizes) else sizes
    strained = np.abs(gas) > LEAST_STRAIN * sizes
    if strained.sum() < close_frames.MIN_PAIRS:
        return ""
    lacking = (found.change - found.work - found.strain_work)[strained]
    gas, sizes = gas[strained], sizes[strained]
    matrix = np.stack([gas, gas**3 / sizes**2], axis=1)  # third order: scans of the volume
    solution, _, rank, _ = np.linalg.lstsq(matrix, lacking, rcond=1e-9)
    if rank < 2 or len(gas) < 3:
        return ""
    thermal = float(solution[0])
    left = lacking - matrix @ solution
    error = np.sqrt(float(left @ left) / (len(gas) - 2) * np.linalg.inv(matrix.T @ matrix)[0, 0])
    kelvin = thermal / units.BOLTZMANN_EV_K
    part = left + thermal * gas
    explained = float(left @ left) < LEFT**2 * float(part @ part)
    if not (HOT[0] < kelvin < HOT[1] and thermal > SURE * error and explained):
        return ""
    return (
        f"between {len(gas)} pairs of close frames of different volume the work of the labels lacks that of "
        f"an ideal gas of {kelvin:.0f} K beside the energies: they hold the kinetic part of molecular "
        "dynamics (−N kT/V), or the Pulay stress of a small basis; give the stress that is the derivative of "
        "the energy, or set it to null in data.keys"
    )
