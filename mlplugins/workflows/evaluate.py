"""Errors of a model on labelled structures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms

from mlplugins import elements, errors, files, quantities
from mlplugins.errors import BadInput
from mlplugins.model_file import artifact
from mlplugins.model_file.artifact import Artifact
from mlplugins.model_file.card import has_no_energy
from mlplugins.observer import SILENT, Observer
from mlplugins.quantities import ENERGY, Results
from mlplugins.structures import dipoles, labelled, labels
from mlplugins.structures.dataset import Keys, Structure
from mlplugins.structures.explanation import explain
from mlplugins.structures.metrics import (
    by_config_type,
    by_element,
    metrics,
    of_energies,
    pairs_of_energies,
)
from mlplugins.uncertainties.llpr import is_determined
from mlplugins.uncertainties.quality import quality

ATOMS_PER_CALL = 512

WHERE = "keys (--keys)"

FRAMES_OF_FORCES, PROBES = 50, 32
"""Frames, spread over all, whose forces have their uncertainty judged, and its random probes: with 32 of
them rms z is 3 % too large at most, with as many as there are features not at all."""

OFFSET_EV = 5e-3
"""Errors of the energy per atom (eV) above which what explains them is pointed out."""


def evaluate(
    model: Path | str | Artifact,
    data: Path | str | Sequence[Path | str] | Sequence[Atoms],
    keys: Mapping[str, str] | None = None,
    device: str = "cpu",
    plot: Path | str | None = None,
    observer: Observer = SILENT,
    predictions: Path | str | None = None,
) -> dict[str, Any]:
    """Errors of energy, forces and stress of a model on labelled structures.

    Args:
        model: model.pt, any metatomic model; or one that is loaded. Of several energies that which the `head`
            in the `info` of each frame names, else the first; of one loaded with an `output` that one.
        data: files that ASE reads (`file@:100` takes the first 100 frames), or frames.
        keys: names of the labels in the files, e.g. `{"energy": "energy_xtb"}`.
        device: `cpu` or `cuda`, where a file is loaded.
        plot: picture to write, parity plots, of several energies a row each; .png, .pdf or .svg.
        observer: told of the progress, and of what is odd about the data.
        predictions: extended XYZ file to write: the frames with their labels as `REF_energy`, `REF_forces`, …
            and the predictions as `predicted_energy`, `predicted_forces`, …

    Returns:
        What `mlplugins evaluate --json` writes: `n_structures`, MAE and RMSE of `energy` (meV/atom), `forces`
        (meV/Å) and `stress` (meV/Å³), None without labels; also of several `files`, `elements` and kinds;
        of several `energies` each; how good an `uncertainty` is (`mlplugins.uncertainties.quality`).

    Raises:
        BadInput: no such file, absent or wrong labels, an element that the model does not know.
        RunFailed: the model failed.

    >>> import tempfile
    >>> from ase.calculators.singlepoint import SinglePointCalculator
    >>> from mlplugins.model_file.card import ModelCard
    >>> from mlplugins.model_file.write import save
    >>> from mlplugins.models import lennard_jones
    >>> potential = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters(epsilon=1.0, sigma=1.0))
    >>> file = tempfile.mkdtemp() + "/model.pt"
    >>> save(potential, file, ModelCard("lennard-jones", ["Ar"], [0.0]), "float64")
    >>> dimer = Atoms("Ar2", [[0, 0, 0], [0, 0, 2 ** (1 / 6)]])
    >>> dimer.calc = SinglePointCalculator(dimer, energy=-1.002)
    >>> round(evaluate(file, dimer)["energy"]["mae_meV_per_atom"], 6)
    1.0
    """
    _require_outputs(plot, predictions, [data, model])
    names = labelled.keys_of(keys or {}, WHERE)
    parts = labelled.read(data, names, WHERE)
    loaded = _loaded(model, device, names, WHERE)
    parts = {name: _placed(part, loaded) for name, part in parts.items()}
    structures = [s for part in parts.values() for s in part]
    predicted = _predict(loaded, structures, observer, predictions is not None)
    result = {**metrics(structures, predicted), **_grouped(parts, predicted, loaded)}
    result |= _quality(structures, predicted, loaded) if loaded.has_uncertainty else {}
    for note in _notes(structures, names, predicted, loaded):
        observer.note(note)
    if plot is not None:
        _plot(structures, predicted, Path(plot), loaded)
    if predictions is not None:
        _write(structures, predicted, Path(predictions))
    return result


def _placed(structures: list[Structure], model: Artifact) -> list[Structure]:
    """The frames, each with the energy that its `info` names, unless one is chosen."""
    if not model.energies or model.energy_output != "energy":
        return structures
    names = [name.removeprefix(ENERGY) for name in model.energies]
    found = []
    for s in structures:
        head = str(s.states.get("head", names[0]))
        if head not in names:
            raise BadInput(
                f"{s.origin}: head '{head}': '{model.path.name}' has the energies {', '.join(names)}: leave "
                "the frame out, or say which one its labels are of (--variant)"
            )
        found.append(replace(s, head="" if head == names[0] else head))
    return found


def _notes(
    structures: Sequence[Structure], names: Keys, predicted: Sequence[Results], loaded: Artifact
) -> list[str]:
    """What is odd about the data."""
    seen = [*loaded.inputs, *(["head"] if loaded.energies else [])]
    found = [*labels.notes(structures, names), *labels.unseen_states(structures, seen)]
    if loaded.energies:
        found.append(_of_which(structures, loaded))
    found += [
        *dipoles.check(structures, names),
        dipoles.of_charged(structures),
        *labels.indefinite(structures),
    ]
    explained = explain(structures, predicted, OFFSET_EV)
    if has_no_energy(loaded.record):
        explained = [text for text in explained if not text.startswith(("energy:", "forces:", "stress:"))]
        if any(s.energy is not None for s in structures):
            found.append(
                f"{loaded.path.name} learned no energies: its energies and forces are zero, and their errors "
                "those of nothing"
            )
    return [note for note in [*found, *explained] if note]


def _of_which(structures: Sequence[Structure], model: Artifact) -> str:
    """With which energies labels are compared."""
    first = model.energy_output if model.energy_output != "energy" else model.energies[0]
    counts = Counter(ENERGY + s.head if s.head else first for s in structures)
    said = ", ".join(f"{count} frame(s) with {name}" for name, count in counts.items())
    return f"of the energies {', '.join(model.energies)} labels are compared: {said}"


def _plot(structures: Sequence[Structure], predicted: Sequence[Results], path: Path, model: Artifact) -> None:
    from mlplugins.training import plots

    found = pairs_of_energies(structures, predicted, _first(model))
    plots.parity(found, path, f"{model.path.name}, {len(structures)} structures")


def _first(model: Artifact) -> str:
    """Name of the first of several energies; "" of one."""
    return "".join(model.energies[:1]).removeprefix(ENERGY)


def _require_outputs(plot: Path | str | None, predictions: Path | str | None, inputs: Any) -> None:
    """Refuse what would fail after the work, or replace an input."""
    if plot is not None:
        with errors.needed("plot (--plot)", "analysis"):
            from mlplugins import plotting
        plotting.require_writable(Path(plot), "plot")
    if predictions is not None:
        files.require_writable(Path(predictions), "predictions", inputs=inputs)


def _grouped(
    parts: Mapping[str, list[Structure]], predicted: Sequence[Results], model: Artifact
) -> dict[str, Any]:
    """Errors of every file, energy and element where there are several, and of every config_type."""
    structures, one_by_one = [s for part in parts.values() for s in part], iter(predicted)
    files_ = {name: metrics(part, [next(one_by_one) for _ in part]) for name, part in parts.items()}
    kinds, symbols = by_config_type(structures, predicted), by_element(structures, predicted)
    found: dict[str, Any] = {"files": files_} if len(parts) > 1 else {}
    found |= {"config_types": kinds} if kinds else {}
    found |= of_energies(structures, predicted, _first(model))
    return found | ({"elements": symbols} if len(symbols) > 1 else {})


def _quality(
    structures: Sequence[Structure], predicted: Sequence[Results], model: Artifact
) -> dict[str, Any]:
    """Of the predicted uncertainty of the energies per atom (eV), and of the force components (eV/Å), by the
    errors of these frames."""
    pairs_ = [
        ((p.energy - s.energy) / len(s), p.uncertainty / len(s))
        for s, p in zip(structures, predicted)
        if s.energy is not None and p.uncertainty
    ]
    found = {"energy": quality(*np.array(pairs_).T)} if pairs_ else {}
    if model.has_force_uncertainty and (of_forces := _force_errors(structures, model)) is not None:
        found["forces"] = quality(*of_forces)
    return {"uncertainty": found} if found else {}


def _force_errors(structures: Sequence[Structure], model: Artifact) -> np.ndarray | None:
    """Errors of force components and their predicted standard deviations, (2, n), of some of the frames.
    Components that symmetry makes zero, in any model and in the labels, are left out."""
    labelled_ = [s for s in structures if s.forces is not None and not s.head]  # it is of the first energy
    if not labelled_:
        return None
    places = np.unique(np.linspace(0, len(labelled_) - 1, FRAMES_OF_FORCES).round().astype(int))
    columns = []
    for chunk in _chunks([labelled_[k] for k in places]):
        results = model.evaluate([s.to_atoms() for s in chunk], wanted=(), probes=PROBES)
        for s, p in zip(chunk, results):
            sigma: Any = p.forces_uncertainty
            columns.append(np.stack([np.subtract(p.forces, np.asarray(s.forces)).ravel(), np.ravel(sigma)]))
    found: np.ndarray = np.concatenate(columns, axis=1)
    found = found[:, np.isfinite(found).all(axis=0) & (found[1] > 0)]
    floor = model.record["uncertainty"]["calibration"]["forces"]["floor"]
    found = found[:, is_determined(found[0], found[1] ** 2 - floor**2)]
    return found if found.shape[1] else None


def _write(structures: Sequence[Structure], predicted: Sequence[Results], path: Path) -> None:
    """Labels and predictions under names that no reader takes for one another."""
    frames = []
    for s, p in zip(structures, predicted):
        atoms = Atoms(numbers=s.numbers, positions=s.positions, cell=s.cell, pbc=s.pbc)
        if s.config_type is not None:
            atoms.info["config_type"] = s.config_type
        for name, quantity in quantities.QUANTITIES.items():
            for prefix, value in (("REF", s.get(name)), ("predicted", p.get(name))):
                if value is not None and (quantity.learns is None or prefix == "predicted"):
                    place = atoms.arrays if quantity.per == "atom" else atoms.info
                    tensors = quantity.per == "atom" and len(quantity.shape) > 1  # nine columns, row by row
                    place[f"{prefix}_{name}"] = np.reshape(value, (len(s), -1)) if tensors else value
        frames.append(atoms)
    with files.replacing(path) as temporary:
        ase.io.write(temporary, frames, format="extxyz")


def _loaded(given: Path | str | Artifact, device: str, keys: Keys, where: str) -> Artifact:
    """The model, unless the user named labels of a quantity that it does not predict."""
    model = given if isinstance(given, Artifact) else artifact.load(given, device)
    known = quantities.with_derivatives(("energy", *model.more))
    for name, quantity in quantities.QUANTITIES.items():
        named = [label.option for label in quantity.labels if keys.is_named(label.option)]
        if named and name not in known:
            raise BadInput(
                f"{where}: {named[0]}: '{model.path.name}' does not predict '{name}', it predicts "
                f"{', '.join(known)}: leave this label out, or name a model that predicts it"
            )
    return model


def _predict(
    model: Artifact, structures: Sequence[Structure], observer: Observer, predictions: bool
) -> list[Results]:
    """Predictions, a few structures per call so that memory stays bounded: of all quantities, or of those
    with labels."""
    for structure in structures:
        elements.require_known(
            structure.numbers,
            model.elements,
            f"{structure.origin}: the model does not know ",
            f"; it knows {', '.join(model.elements)}",
        )
        model.state(structure.states, structure.origin)
    results: list[Results] = []
    observer.start(0, len(structures))
    models = {s.head: model.of_energy(ENERGY + s.head) if s.head else model for s in structures}
    for chunk in _chunks(structures):
        atoms = [s.to_atoms() for s in chunk]
        wanted = {name for name in model.more if predictions or any(s.get(name) is not None for s in chunk)}
        own = models[chunk[0].head]
        results.extend(own.evaluate(atoms, uncertainty=own.has_uncertainty, wanted=wanted))
        observer.step(len(results), len(structures))
    return results


def _chunks(structures: Iterable[Structure]) -> Iterator[list[Structure]]:
    waiting: list[Structure] = []
    atoms = 0
    for structure in structures:
        other = waiting and waiting[0].head != structure.head
        if other or (waiting and atoms + len(structure) > ATOMS_PER_CALL):
            yield waiting
            waiting, atoms = [], 0
        waiting.append(structure)
        atoms += len(structure)
    if waiting:
        yield waiting
