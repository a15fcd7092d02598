"""Adding an uncertainty to a model of a network: the posterior of its last layer."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from mlplugins import elements, errors, files
from mlplugins.checkpoints.native import Checkpoint
from mlplugins.errors import BadInput
from mlplugins.model_file.card import RADIAL
from mlplugins.model_file.made_for import contradiction
from mlplugins.model_file.write import save
from mlplugins.models import composition
from mlplugins.models.capabilities import HasLastLayer
from mlplugins.observer import SILENT, Observer
from mlplugins.quantities import MILLI
from mlplugins.structures import batch as batches
from mlplugins.structures import labelled, validation
from mlplugins.structures import state as states
from mlplugins.structures.dataset import Structure
from mlplugins.structures.explanation import scale_of_energies
from mlplugins.uncertainties import llpr
from mlplugins.uncertainties.llpr import Scales, WeightPosterior
from mlplugins.uncertainties.quality import quality
from mlplugins.uncertainties.rows import FeatureRows, rows
from mlplugins.workflows import _models

WHERE = "keys (--keys)"
LEFT = 0.25
"""Of the energy errors without a constant per element: less, and another reference is what they are."""
OTHER_ZERO = 10
"""Mean error of the held-out energies over the RMS error on the data: more is another zero of energy."""
PATH = 1.0
"""Å, as far as atoms of hot frames are from those that the model knows."""
DIRECTIONS = 8
"""Random directions in which the slopes of every frame enter the posterior."""
FEWEST = 2
"""Frames that calibrate."""
COORDINATES = 300
"""Force components that calibrate, over all held-out frames, if there are so many."""


@dataclass(frozen=True)
class FrameSets:
    """The frames of the posterior and those of its calibration."""

    data: list[Structure]
    held_out: list[Structure]
    notes: list[str]


def uncertainty(
    model: Path | str,
    data: Path | str | Sequence[Path | str] | Sequence[Atoms],
    output: Path | str,
    held_out: Path | str | Sequence[Path | str] | Sequence[Atoms] | float = 0.2,
    keys: Mapping[str, str] | None = None,
    plot: Path | str | None = None,
    observer: Observer = SILENT,
) -> dict[str, Any]:
    """Write the model with a predicted uncertainty of its energies (LLPR); energies and forces stay the same.

    The posterior of the readout's weights comes from `data`, the frames that the model was trained on (for a
    foreign model: frames of the application); its scale from `held_out`, which must not be among them.

    Args:
        model: model.pt or checkpoint of ours, or a foreign checkpoint, of a network (nequip, mace).
        data: labelled frames, files that ASE reads.
        output: the model.pt to write.
        held_out: frames that the model was not trained on, or the fraction of `data` to hold out, for a model
            that was not trained on `data`.
        keys: names of the labels in the files.
        plot: picture of coverage and sparsification to write.
        observer: told what is odd about the data.

    Returns:
        What `mlplugins uncertainty --json` writes.

    Raises:
        BadInput: a family without a last layer, frames of the training among those held out, no labels.
    """
    _require_outputs(Path(output), plot, [files.in_folder(model, "model.pt"), data, held_out])
    found, kind = _models.read(Path(model))
    layer = _last_layer(found)
    frames = _frames(found, data, held_out, keys or {})
    potential = copy.deepcopy(found.potential).double().eval()
    potential.use_native_ops()
    of_data = rows(potential, _graphs(found, frames.data), DIRECTIONS)
    each = max(1, COORDINATES // len(frames.held_out))
    of_held = rows(potential, _graphs(found, frames.held_out), each, single=True)
    of_data, of_held, note = _same_reference(found, frames, of_data, of_held)
    for text in [*frames.notes, *([note] if note else [])]:
        observer.note(text)
    posterior = llpr.posterior(of_data)
    calibration = llpr.calibrate(posterior, of_held)
    record = _record(frames, posterior, calibration, of_held)
    for text in _doubts(record):
        observer.note(text)
    chosen = calibration.energy or replace(_known(calibration.forces), floor=0.0)
    forces = calibration.forces
    of_forces = () if forces is None else (forces.scale / chosen.scale, forces.floor)
    layer.set(chosen.scale * llpr.rotated(posterior.factor), chosen.floor, *of_forces)
    name = f"{found.family} for {'-'.join(found.elements)}"
    card = replace(found, name=name, details={**found.details, "uncertainty": record})
    radial = save(found.potential, output, card, kind.dtype, kind.portable, kind.tables)
    if plot is not None:
        from mlplugins.uncertainties import plots

        plots.quality(_values(posterior, calibration, of_held), Path(plot))
    written = {"model": str(output), "family": found.family, "elements": found.elements}
    return {**written, RADIAL: radial and asdict(radial), **record}


def _require_outputs(output: Path, plot: Path | str | None, inputs: Any) -> None:
    """Refuse what would fail after the work, or replace an input."""
    files.require_writable(output, "output", inputs=inputs)
    if plot is not None:
        with errors.needed("plot (--plot)", "analysis"):
            from mlplugins import plotting
        plotting.require_writable(Path(plot), "plot")


def _last_layer(found: Checkpoint) -> Any:
    """The last layer of the one part of the model that has one."""
    layers = [part for part in found.potential.parts() if isinstance(part, HasLastLayer)]
    if len(layers) != 1:
        has = "no part" if not layers else f"{len(layers)} parts"
        raise BadInput(
            f"uncertainty: {found.family} has {has} with a last layer, expected one (nequip, mace); soap-gap "
            "predicts its uncertainty itself, and several models as a committee have that of their spread"
        )
    if layers[0].coupled:
        raise BadInput(
            "uncertainty: coupled energies are eigenvalues, not linear in the last layer: train "
            "several models, and give engines the separate files"
        )
    return layers[0].last_layer


def _frames(found: Checkpoint, data: Any, held_out: Any, keys: Mapping[str, str]) -> FrameSets:
    """The frames of both sets, no frame in both."""
    names = labelled.keys_of(keys, WHERE)
    train = [s for part in labelled.read(data, names, WHERE).values() for s in part]
    data_ = found.details.get("data", {})
    trained_on, marks = data_.get("sha256", {}).get("train"), data_.get("train_frames", "")
    if isinstance(held_out, float):
        if not 0 < held_out < 1:
            raise BadInput(f"held_out: expected files or a fraction between 0 and 1, got {held_out:g}")
        if validation.data_hash(validation.unique(train)[0]) == trained_on:
            raise BadInput(
                "held_out: the model was trained on all of these frames, so their errors do not calibrate: "
                "name labelled frames that it was not trained on (--held-out FILE)"
            )
        order = np.random.default_rng(0).permutation(len(train))
        count = max(round(held_out * len(train)), FEWEST)
        held = [train[k] for k in sorted(order[:count])]
        train = [train[k] for k in sorted(order[count:])]
    else:
        held = [s for part in labelled.read(held_out, names, WHERE).values() for s in part]
        if trained_on is not None and validation.data_hash(held) == trained_on:
            raise BadInput("held_out: these are the frames that the model was trained on; name others")
    if len(held) < FEWEST or not train:
        raise BadInput(
            f"uncertainty: {len(train)} frames for the posterior and {len(held)} held out, expected one and "
            f"{FEWEST} or more: give more labelled frames"
        )
    seen = validation.marked(held, marks)
    if seen:
        raise BadInput(
            f"held_out: the model was trained on {len(seen)} of the {len(held)} held-out frames, e.g. "
            f"{seen[0].origin}: their errors do not calibrate; name frames that it was not trained on"
        )
    notes = validation.check_disjoint(train, held, "held-out") + _of_differences(found)
    for s in [*train, *held]:
        known = f"; it knows {', '.join(found.elements)}"
        elements.require_known(s.numbers, found.elements, f"{s.origin}: the model does not know ", known)
        said = contradiction(found.details, s.states)
        if said := said or states.outside(states.of(s.states, s.origin), found.potential.inputs):
            raise BadInput(f"{s.origin}: {said}")
    return FrameSets(train, held, notes)


def _of_differences(found: Checkpoint) -> list[str]:
    """A note where the model was trained on labels from which something was subtracted."""
    section = found.details.get("configuration", {}).get("data", {})
    named = [f"data.{key}" for key in ("subtract", "prior") if section.get(key)]
    if not named:
        return []
    return [
        f"the model was trained on differences ({', '.join(named)}): the labels here must be such "
        "differences, too, or all that was subtracted counts as error"
    ]


def _graphs(found: Checkpoint, structures: Sequence[Structure]) -> list[batches.Batch]:
    """One graph each, energies without the baseline of the model."""
    cutoff, baseline = found.potential.cutoff, found.composition
    first = found.potential.energy_name
    for s in structures:
        if first and (head := str(s.states.get("head", first))) != first:
            raise BadInput(
                f"{s.origin}: head '{head}', but the uncertainty is one of '{first}', the first of several "
                "energies: leave the frame out"
            )
    return [
        batches.single(
            s, found.elements, cutoff, baseline.predict(s.to_atoms().get_chemical_symbols()), torch.float64
        )
        for s in structures
    ]


def _same_reference(
    found: Checkpoint, frames: FrameSets, of_data: FeatureRows, of_held: FeatureRows
) -> tuple[FeatureRows, FeatureRows, str | None]:
    """Energy errors without a constant per element, if that is what most of them are: another reference.

    Raises:
        BadInput: energies in another unit, or per atom; another reference in one of the sets only.
    """
    known = (~torch.isnan(of_data.energy_errors)).numpy()
    held, data = (_counts(found.elements, part) for part in (frames.held_out, frames.data))
    n = of_data.n_atoms.numpy()[known]
    errors_, counts = of_data.energy_errors.numpy()[known], data[known]
    labelled_ = [s for s in frames.data if s.energy is not None]
    predicted = [float(s.energy or 0.0) + error for s, error in zip(labelled_, errors_)]
    if labelled_ and (said := scale_of_energies(labelled_, predicted)) is not None:
        raise BadInput(f"{said}: such errors calibrate nothing; convert the files")
    shift, _, rank, _ = np.linalg.lstsq(counts / n[:, None], errors_ / n, rcond=composition.RANK_TOLERANCE)
    before, after = errors_ / n, (errors_ - counts @ shift) / n
    free = len(n) - rank
    if free < FEWEST or np.sqrt(np.sum(after**2) / free) > LEFT * np.sqrt(np.mean(before**2)):
        off = of_held.energy_errors.nanmean() / of_held.n_atoms.mean()
        limit = (
            max(OTHER_ZERO * np.sqrt(np.mean(before**2)), _from_forces(of_held)) if len(before) else np.inf
        )
        if abs(off) > limit:
            raise BadInput(
                f"the energies of the held-out frames are {MILLI * off:+.4g} meV/atom off, those of DATA are "
                "not: label both sets by the same method, with the same zero of energy"
            )
        return of_data, of_held, None
    note = (
        "the energies differ from the labels by a constant of each element, "
        f"{MILLI * before.mean():+.4g} meV/atom in the mean (another reference): it is no error of the "
        "surface, and the calibration leaves it out"
    )
    without = [r.energy_errors - torch.from_numpy(c @ shift) for r, c in ((of_data, data), (of_held, held))]
    if without[1].nanmean().abs() > of_held.energy_errors.nanmean().abs():
        raise BadInput(
            f"{note.partition(' (another')[0]} in DATA, but not in the held-out frames: label both sets "
            "by the same method, with the same zero of energy"
        )
    return replace(of_data, energy_errors=without[0]), replace(of_held, energy_errors=without[1]), note


def _from_forces(held: FeatureRows) -> float:
    """Error of the energies, eV/atom, that errors of the forces over `PATH` amount to: where the model fails,
    its energies are off without another zero."""
    found = float(held.force_errors.square().nanmean().sqrt())  # of components
    return PATH * found if np.isfinite(found) else 0.0


def _counts(symbols: Sequence[str], structures: Sequence[Structure]) -> np.ndarray:
    """(S, elements), numbers of atoms."""
    atoms = [s.to_atoms().get_chemical_symbols() for s in structures]
    return np.array([[float(each.count(symbol)) for symbol in symbols] for each in atoms])


Values = dict[str, tuple[np.ndarray, np.ndarray]]


def _values(posterior: WeightPosterior, calibration: Scales, held: FeatureRows) -> Values:
    """Errors and predicted standard deviations of the held-out values; energies per atom."""
    found: Values = {}
    n = held.n_atoms.numpy()
    if calibration.energy is not None:
        errors_ = held.energy_errors.numpy()
        deviations = calibration.energy.deviations(posterior.energy_variances(held), n)
        known = ~np.isnan(errors_)
        found["energy"] = (errors_ / n)[known], (deviations / n)[known]
    if calibration.forces is not None:
        errors_ = held.force_errors.numpy()
        variances = posterior.force_variances(held)
        deviations = calibration.forces.deviations(variances)
        known = llpr.is_determined(errors_, variances)
        found["forces"] = errors_[known], deviations[known]
    return found


def _record(
    frames: FrameSets, posterior: WeightPosterior, calibration: Scales, held: FeatureRows
) -> dict[str, Any]:
    values = _values(posterior, calibration, held)
    return {
        "method": "llpr",
        "features": posterior.factor.shape[0],
        "n_frames": len(frames.data),
        "n_values": posterior.n_rows,
        "n_held_out": len(frames.held_out),
        "calibration": {name: scale and asdict(scale) for name, scale in vars(calibration).items()},
        "held_out_sha256": validation.data_hash(frames.held_out),
        "quality": {name: quality(*pair) for name, pair in values.items()},
    }


def _doubts(record: Mapping[str, Any]) -> list[str]:
    """What makes the result weak, in words."""
    notes = []
    if record["n_values"] < 2 * record["features"]:
        notes.append(
            f"{record['n_values']} labels for {record['features']} features: the uncertainty is mostly the "
            "prior's; give more frames, or forces"
        )
    if record["n_held_out"] < 10:
        notes.append(
            f"{record['n_held_out']} held-out frames calibrate: the scale of the energies is uncertain by "
            f"about {100 / (2 * record['n_held_out']) ** 0.5:.0f} %"
        )
    return notes


def _known(scale: llpr.Scale | None) -> llpr.Scale:
    if scale is None:
        raise BadInput("held_out: no frame has energies or forces: give labelled frames")
    return scale
