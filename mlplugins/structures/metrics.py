"""Errors of predictions against labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from mlplugins.quantities import QUANTITIES, VOIGT, Quantity, Results
from mlplugins.quantity import TensorPart
from mlplugins.structures.dataset import Structure

MEDIAN = 0.6744897501960817
"""Of |z|, z normal."""

Pairs = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]


def pairs(structures: Sequence[Structure], predictions: Sequence[Results]) -> Pairs:
    """Flat (label, prediction) arrays: `energy` eV/atom, `forces` eV/Å, `stress` eV/Å³ (6 components), and
    every other quantity of the table in its `compared_unit`; of tensors that heads predict each part as well
    (`polarizability isotropic`).

    A quantity without any label is left out.
    """
    columns: dict[str, tuple[list[Any], list[Any]]] = defaultdict(lambda: ([], []))
    for s, p in zip(structures, predictions, strict=True):
        for name, quantity in QUANTITIES.items():
            label, predicted = s.get(name), p.get(name)
            if label is None or predicted is None or (quantity.per_volume and not s.volume > 0.0):
                continue
            for column, value in enumerate((label, predicted)):
                columns[name][column].append(_compared(quantity, value, len(s)))
                for part in quantity.parts:
                    columns[f"{name} {part.name}"][column].append(_part(quantity, part, value, len(s)))
    return {
        name: (np.concatenate(labels), np.concatenate(predicted))
        for name, (labels, predicted) in columns.items()
    }


def pairs_of_energies(
    structures: Sequence[Structure], predictions: Sequence[Results], first: str
) -> dict[str, Pairs]:
    """`pairs` of the frames of each of several energies, by its name; arguments as of `of_energies`."""
    return {name: pairs(*own) for name, own in _by_energy(structures, predictions, first).items()}


def of_energies(
    structures: Sequence[Structure], predictions: Sequence[Results], first: str
) -> dict[str, Any]:
    """`metrics` of the frames of each of several energies, as the entry `energies`; of one nothing.

    Args:
        structures: frames, whose labels are of the energy `head`.
        predictions: of these energies.
        first: name of the first energy; "" if it has none.
    """
    if not first or not any(s.head for s in structures):
        return {}
    of_each = _by_energy(structures, predictions, first)
    return {"energies": {name: metrics(*own) for name, own in of_each.items()}}


def _by_energy(
    structures: Sequence[Structure], predictions: Sequence[Results], first: str
) -> dict[str, tuple[list[Structure], list[Results]]]:
    """Frames and predictions of each energy, in the order in which these come first."""
    found: dict[str, tuple[list[Structure], list[Results]]] = {}
    for s, p in zip(structures, predictions, strict=True):
        frames, predicted = found.setdefault(s.head or first, ([], []))
        frames.append(s)
        predicted.append(p)
    return found


def metrics(structures: Sequence[Structure], predictions: Sequence[Results]) -> dict[str, Any]:
    """MAE and RMSE as `mlplugins evaluate --json` writes them; null for a quantity without labels. Of tensors
    also those of each part, e.g. `isotropic`, with the root mean square of its labels.

    >>> from mlplugins.structures.dataset import read
    >>> frames = read("examples/data/li6ps5cl_pbe/test.extxyz@:1")
    >>> off = Results(energy=frames[0].energy + 0.52, forces=frames[0].forces)
    >>> round(metrics(frames, [off])["energy"]["mae_meV_per_atom"], 6)
    10.0
    """
    result: dict[str, Any] = {"n_structures": len(structures)}
    found = pairs(structures, predictions)
    for name, quantity in QUANTITIES.items():
        if name not in found:
            if not (quantity.learns or quantity.made or quantity.file_units):  # what every model has
                result[name] = None
            continue
        labels, predicted = found[name]
        result[name] = _errors(quantity, predicted - labels)
        for part in quantity.parts:
            labels, predicted = found[f"{name} {part.name}"]
            size = float(np.sqrt(np.mean((quantity.error_scale * labels) ** 2)))
            of_part = {**_errors(quantity, predicted - labels), quantity.error_key("label_rms"): size}
            result[name][part.name] = of_part
    return result


def by_element(structures: Sequence[Structure], predictions: Sequence[Results]) -> dict[str, Any]:
    """Errors of the quantities that every atom has (forces, …) for each element, by chemical symbol.

    >>> from mlplugins.structures.dataset import read
    >>> frames = read("examples/data/li6ps5cl_pbe/test.extxyz@:1")
    >>> off = frames[0].forces + 0.01 * (frames[0].numbers == 3)[:, None]
    >>> found = by_element(frames, [Results(energy=0.0, forces=off)])
    >>> {symbol: round(errors["forces"]["mae_meV_per_A"], 6) for symbol, errors in found.items()}
    {'Li': 10.0, 'P': 0.0, 'S': 0.0, 'Cl': 0.0}
    """
    result: dict[str, Any] = {}
    for z in sorted({int(z) for s in structures for z in s.numbers}):
        found: dict[str, Any] = {"n_atoms": sum(int((s.numbers == z).sum()) for s in structures)}
        for name, quantity in QUANTITIES.items():
            errors = [
                np.asarray(p.get(name))[s.numbers == z] - s.get(name)[s.numbers == z]
                for s, p in zip(structures, predictions, strict=True)
                if quantity.per == "atom" and s.get(name) is not None and p.get(name) is not None
            ]
            if errors:
                found[name] = _errors(quantity, np.concatenate(errors))
        result[chemical_symbols[z]] = found
    return result


def by_config_type(structures: Sequence[Structure], predictions: Sequence[Results]) -> dict[str, Any]:
    """As `metrics`, of the frames of each `config_type`; empty if no frame has one."""
    kinds = sorted({s.config_type for s in structures if s.config_type is not None})
    result = {}
    for kind in [*kinds, None]:
        chosen = [(s, p) for s, p in zip(structures, predictions, strict=True) if s.config_type == kind]
        if kinds and chosen:
            result[kind or "no config_type"] = metrics(*zip(*chosen))
    return result


def _errors(quantity: Quantity, difference: NDArray[np.float64]) -> dict[str, float]:
    error = difference * quantity.error_scale
    mae, rmse = float(np.abs(error).mean()), float(np.sqrt(np.square(error).mean()))
    return {quantity.error_key("mae"): mae, quantity.error_key("rmse"): rmse}


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


def _part(quantity: Quantity, part: TensorPart, value: Any, n_atoms: int) -> NDArray[np.float64]:
    """The components of a part of a tensor, or of one for each atom, in `compared_unit`."""
    flat = np.asarray(value, dtype=np.float64).reshape(-1, 9) @ part.projector
    return (flat[:, part.shown] / (n_atoms if quantity.extensive else 1)).ravel()


def _compared(quantity: Quantity, value: Any, n_atoms: int) -> NDArray[np.float64]:
    """The numbers whose errors count, in `compared_unit`."""
    array = np.asarray(value, dtype=np.float64)
    if quantity.extensive:
        array = array / n_atoms
    if quantity.symmetric and array.size == 9:
        array = np.array([array.reshape(3, 3)[component] for component in VOIGT])
    return array.ravel()
