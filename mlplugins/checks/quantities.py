"""What further quantities must obey beyond their symmetries: derivatives, charges, direct forces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlplugins.checks.result import FORCE_UNIT, Check, Limits
from mlplugins.model_file.artifact import Artifact, Results

Array = NDArray[np.float64]
Row = Callable[..., Check]
Evaluate = Callable[[Sequence[Atoms]], list[Results]]

STEP_A = {"float64": 1e-3, "float32": 2e-2}
MOVED = 4
"""Atoms that are moved for a part of the Jacobian of the forces."""


def born(atoms: Atoms, reference: Results, model: Artifact, evaluate: Evaluate, row: Row) -> list[Check]:
    """Z_iab = ∂μ_a/∂r_ib along one direction in which all atoms move, and Σ_i Z_i, which is zero: the dipole
    does not change when the structure moves."""
    charges = reference.get("born_effective_charges")
    if charges is None:
        return []
    step = STEP_A[model.dtype]
    direction = np.random.default_rng(0).normal(size=(len(atoms), 3))
    direction /= np.linalg.norm(direction)
    one, other = (r.get("dipole") for r in evaluate([_moved(atoms, s * step * direction) for s in (1, -1)]))
    expected = np.einsum("iab,ib->a", charges, direction)
    scale = max(float(np.abs(charges).max()), 0.1)
    off = float(np.abs((one - other) / (2 * step) - expected).max()) / scale
    limit = 1e-4 if model.dtype == "float64" else 2e-2
    sums = float(np.abs(charges.sum(axis=0)).max())
    rounding = (1e-12 if model.dtype == "float64" else 1e-5) * scale * len(atoms)
    return [
        row("born_effective_charges = dμ/dr", off, limit, "relative"),
        row("acoustic sum rule: born_effective_charges", sums, rounding, "e"),
    ]


def charges(atoms: Atoms, reference: Results, model: Artifact, row: Row) -> list[Check]:
    """Charges of atoms add up to that of the structure."""
    found = reference.get("charges")
    if found is None:
        return []
    total = float(atoms.info.get("charge", 0.0)) if "charge" in model.inputs else 0.0
    # files round each charge to the precision of the model
    limit = (1e-12 if model.dtype == "float64" else 1e-6) * max(1.0, float(np.abs(found).sum()))
    ours = model.family is not None
    note = "" if ours else "of a model of others: reported"
    return [row("charges add up", abs(float(found.sum()) - total), limit if ours else np.inf, "e", note=note)]


def direct_forces(
    atoms: Atoms, reference: Results, model: Artifact, evaluate: Evaluate, row: Row, limits: Limits
) -> list[Check]:
    """Direct forces: they add up to zero; how far they are from gradients is said, not judged."""
    direct = reference.get("direct_forces")
    if direct is None:
        return []
    size = max(float(np.sqrt(np.mean(direct**2))), 1e-12)
    net = float(np.linalg.norm(direct.sum(axis=0)))
    allowed = limits.force * len(atoms) if model.family is not None else np.inf
    apart = float(np.sqrt(np.mean((direct - reference.forces) ** 2)))
    note = f"RMS of a component {size:.3g} {FORCE_UNIT}"
    rows = [row("direct forces: net force", net, allowed, FORCE_UNIT)]
    if not atoms.pbc.any():
        arms = atoms.positions - atoms.positions.mean(axis=0)
        torque = float(np.linalg.norm(np.cross(arms, direct).sum(axis=0)))
        rows.append(row("direct forces: net torque", torque, np.inf, "eV", note="zero with vectors: false"))
    rows.append(row("direct forces: RMS from gradients", apart, np.inf, FORCE_UNIT, note=note))
    asymmetry = _asymmetry(atoms, model, evaluate)
    text = "|J − Jᵀ| / 2|J| of some atoms; of gradients 0: dynamics with these forces alone drifts"
    return [*rows, row("direct forces: asymmetry of the Jacobian", asymmetry, np.inf, "relative", note=text)]


def _asymmetry(atoms: Atoms, model: Artifact, evaluate: Evaluate) -> float:
    """Of the Jacobian ∂f/∂r of the atoms nearest to the first one."""
    step = STEP_A[model.dtype]
    chosen = np.argsort(np.linalg.norm(atoms.positions - atoms.positions[0], axis=1))[:MOVED]
    moved = []
    for i in chosen:
        for axis in range(3):
            for sign in (1, -1):
                shift = np.zeros((len(atoms), 3))
                shift[i, axis] = sign * step
                moved.append(_moved(atoms, shift))
    forces: Any = np.array([r.get("direct_forces")[chosen].ravel() for r in evaluate(moved)])
    jacobian = (forces[0::2] - forces[1::2]) / (2 * step)
    return float(np.linalg.norm(jacobian - jacobian.T) / (2 * np.linalg.norm(jacobian)))


def _moved(atoms: Atoms, shift: Array) -> Atoms:
    moved = atoms.copy()
    moved.positions = moved.positions + shift
    return moved
