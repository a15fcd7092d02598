"""Energy references of a base model, fitted anew to other labels: e_z → e_z + δ_z.

δ is the least-squares solution of Σ_z n_z δ_z = E_label − E_base, with the weights and the rank check of
`mlplugins.models.composition`: labels of another level of theory differ from the base by such a sum first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlplugins.elements import require_known
from mlplugins.models import composition
from mlplugins.models.composition import Composition
from mlplugins.quantities import MILLI
from mlplugins.structures.dataset import Structure
from mlplugins.training.data import symbols

LARGE_OFFSET = 1.0
"""Mean change of the energy per atom above which it is pointed out, eV."""

CLEAR_OFFSET = 1e-3
"""Mean residual per atom below which nothing is said of it, eV."""

LARGE_RESIDUAL = 0.1
"""RMS per atom that new references leave, above which they are called doubtful, eV."""


@dataclass(frozen=True)
class References:
    """New energy references.

    Attributes:
        composition: energies of all elements of the base; those without data keep the base's.
        report: old and new energies per element, residuals before and after, for metrics.json.
        warnings: what makes them doubtful, with numbers.
    """

    composition: Composition
    report: dict[str, Any]
    warnings: list[str]


def refit(
    structures: Sequence[Structure],
    predicted: Sequence[float],
    base: Composition,
    given: dict[str, float] | None = None,
) -> References:
    """References that fit the labels best on top of a base model.

    Args:
        structures: labelled training structures.
        predicted: (S,) energies of the base with its own references, eV.
        base: its references, for all its elements.
        given: energies per element to use instead of a fit, eV.

    Raises:
        BadInput: a given energy of an element that the base lacks.
    """
    require_known(
        given or {}, base.elements, "data.baseline: ", f" not among the base's {', '.join(base.elements)}"
    )
    known = [k for k, s in enumerate(structures) if s.energy is not None]
    if not known:
        same = {
            z: {"base_eV": e, "finetuned_eV": e, "change_eV": None}
            for z, e in zip(base.elements, base.energies)
        }
        return References(base, {"elements": same, "fitted": False}, [])
    structures, predicted = [structures[k] for k in known], [predicted[k] for k in known]
    labels = np.array([s.energy or 0.0 for s in structures])
    n_atoms = np.array([len(s) for s in structures], dtype=np.float64)
    difference = labels - np.asarray(predicted, dtype=np.float64)
    present = [z for z in base.elements if any(z in symbols(s) for s in structures)]
    counts = np.array([[Counter(symbols(s))[z] for z in present] for s in structures], dtype=np.float64)
    if given is None:
        change = composition.fit(counts, difference, present)
    else:
        old = dict(zip(base.elements, base.energies))
        change = Composition(present, [given.get(z, old[z]) - old[z] for z in present], len(present))
    changes = dict(zip(present, change.energies))
    new = [energy + changes.get(z, 0.0) for z, energy in zip(base.elements, base.energies)]
    before = difference / n_atoms
    after = (difference - counts @ np.array(change.energies)) / n_atoms
    report = {
        "elements": {
            z: {"base_eV": old_energy, "finetuned_eV": energy, "change_eV": changes.get(z)}
            for z, old_energy, energy in zip(base.elements, base.energies, new)
        },
        "fitted": given is None,
        "rank": change.rank,
        "n_elements": len(present),
        "mean_change_eV_per_atom": float((before - after).mean()),
        "rms_before_meV_per_atom": MILLI * _rms(before),
        "rms_after_meV_per_atom": MILLI * _rms(after),
    }
    return References(Composition(base.elements, new, change.rank), report, _warnings(report))


def settle(
    structures: Sequence[Structure], predicted: Sequence[float], baseline: Composition
) -> tuple[Composition, str | None]:
    """The baseline that fits the labels best beneath a trained model, and a note if it moved by much.

    A model that was stopped early, or trained on forces mostly, is a constant per element away from its
    labels. That constant is no error of the surface it learned, but it would be the whole spread
    of a committee.

    Args:
        structures: labelled training structures.
        predicted: (S,) energies of the model with `baseline`, eV.
        baseline: what it was trained with.

    >>> frames = [Structure(np.array([3]), np.zeros((1, 3)), np.eye(3), np.ones(3, bool), energy=-1.0)]
    >>> settle(frames, [-0.5], Composition(["Li"], [-0.7], 1))[0].energies
    [-1.2]
    """
    known = [k for k, s in enumerate(structures) if s.energy is not None]
    if not known:
        return baseline, None
    structures, predicted = [structures[k] for k in known], [predicted[k] for k in known]
    n_atoms = np.array([len(s) for s in structures], dtype=np.float64)
    difference = np.array([s.energy or 0.0 for s in structures]) - np.asarray(predicted, dtype=np.float64)
    present = [z for z in baseline.elements if any(z in symbols(s) for s in structures)]
    counts = np.array([[Counter(symbols(s))[z] for z in present] for s in structures], dtype=np.float64)
    change = composition.fit(counts, difference, present)
    changes = dict(zip(present, change.energies))
    energies = [e + changes.get(z, 0.0) for z, e in zip(baseline.elements, baseline.energies)]
    before = difference / n_atoms
    after = (difference - counts @ np.array(change.energies)) / n_atoms
    settled = Composition(baseline.elements, energies, baseline.rank)
    return settled, offset_note(before, after, "it went into the composition baseline")


def settle_each(
    structures: Sequence[Structure], predicted: Sequence[float], baseline: Composition, coupled: bool
) -> tuple[Composition, list[str]]:
    """As `settle`, the baseline of every energy by its own frames; one for all if they are `coupled`."""
    parts, notes = {}, []
    if coupled:
        one, note = settle(structures, predicted, baseline.of_head(""))
        return Composition.joined(dict.fromkeys(baseline.heads, one)), [note] if note else []
    for head in baseline.heads:
        rows = [k for k, s in enumerate(structures) if s.head == head]
        own = [structures[k] for k in rows], [predicted[k] for k in rows]
        parts[head], note = settle(*own, baseline.of_head(head))
        notes += [f"{head}: {note}" if head else note] if note else []
    return Composition.joined(parts), notes


def offset_note(before: np.ndarray, after: np.ndarray, done: str) -> str | None:
    """Note about residuals per atom (eV) that are a constant rather than a spread.

    Args:
        before: label minus model.
        after: what is left without the constant per element.
        done: what became of the constant.
    """
    if abs(before.mean()) < max(CLEAR_OFFSET, _rms(after)):
        return None
    return (
        f"the energies of the model were {MILLI * before.mean():+.3g} meV/atom from the labels on average, "
        f"more than the {MILLI * _rms(after):.3g} meV/atom (RMS) around that: {done}"
    )


def _warnings(report: dict[str, Any]) -> list[str]:
    rank, n, offset = report["rank"], report["n_elements"], report["mean_change_eV_per_atom"]
    after, before = report["rms_after_meV_per_atom"], report["rms_before_meV_per_atom"]
    warnings = []
    if rank < n:
        warnings.append(
            f"energy references: {rank} independent composition(s) for {n} elements, so the changes per "
            f"element are not unique: their mean, {offset:+.4f} eV/atom, is shared equally, the rest has "
            "minimum norm. Energies of other compositions (reactions, vacancies) are not meaningful"
        )
    if abs(offset) > LARGE_OFFSET:
        warnings.append(
            f"energy references: labels and base differ by {offset:+.3f} eV/atom on average (limit "
            f"{LARGE_OFFSET:g}): another code, pseudopotential or level of theory; {after:.1f} meV/atom "
            "(RMS) remain with the new references"
        )
    if after > MILLI * LARGE_RESIDUAL:
        warnings.append(
            f"energy references: {after:.1f} meV/atom (RMS) remain with new references, {before:.1f} without "
            f"(limit {MILLI * LARGE_RESIDUAL:g}): the labels are not those of the base plus a constant per "
            "element; check units and keys"
        )
    if after > before:
        warnings.append(
            f"energy references: {after:.1f} meV/atom (RMS) with the given energies, {before:.1f} with the "
            "base's: leave data.baseline out to have them fitted"
        )
    return warnings


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
