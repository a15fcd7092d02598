"""Contents of a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlplugins import elements
from mlplugins.model_file.archive import layers
from mlplugins.model_file.card import RADIAL, parts
from mlplugins.model_file.made_for import MADE_FOR, conditions
from mlplugins.structures import state as states
from mlplugins.workflows import _contents


def info(model: Path | str) -> dict[str, Any]:
    """What is in a model.pt, read without running the program inside; any metatomic model.

    Returns:
        What `mlplugins info --json` writes: elements, cutoff, errors, data, date, licence, precision,
        outputs, baseline, training record, versions; units in the names of the keys, None for what the file
        does not say.

    Raises:
        BadInput: missing, damaged, or not a metatomic model.

    >>> import tempfile
    >>> from mlplugins.model_file.card import ModelCard
    >>> from mlplugins.model_file.write import save
    >>> from mlplugins.models import lennard_jones
    >>> potential = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters(cutoff=6.0))
    >>> file = tempfile.mkdtemp() + "/model.pt"
    >>> save(potential, file, ModelCard("lennard-jones", ["Ar"], [-0.1]))
    >>> info(file)["cutoff_A"], info(file)["baseline_eV"]
    (6.0, {'Ar': -0.1})
    """
    return _described(_contents.read(Path(model).absolute()))


def _described(model: _contents.Contents) -> dict[str, Any]:
    archive, capabilities = model.archive, model.capabilities
    entries = archive.entries
    record = dict(entries.record) if entries else {}
    stored = record.pop("elements", None)
    baseline = record.pop("baseline_eV", None)
    others = record.pop("baselines_eV", None)
    ours = entries if model.ours else None
    stated = _section(_section(record, "configuration"), "export")
    outputs = capabilities["outputs"]
    energies = {key: value for key, value in outputs.items() if key.partition("/")[0] == "energy"}
    energy = energies.get("energy") or next(iter(energies.values()), {"sample_kind": None})
    return {
        "errors": record.get("errors"),
        "data": _data(record),
        "date": archive.date,
        "authors": list(archive.authors),
        "licence": stated.get("licence"),
        "file": str(archive.path),
        "bytes": archive.path.stat().st_size,
        "name": archive.name,
        "family": ours.family if ours else None,
        "parts": parts(ours and ours.family, _section(record, "hyperparameters")),
        "wraps": entries.family if entries and not ours else None,
        "format": entries.format if entries else None,
        "elements": [elements.symbol(number) for number in capabilities["atomic_types"]],
        "baseline_eV": None if baseline is None else dict(zip(stored or [], baseline)),
        "energies": [key.partition("/")[2] for key in energies if "/" in key],
        "baselines_eV": {name: dict(zip(stored or [], row)) for name, row in (others or {}).items()},
        "cutoff_A": ours.cutoff if ours else model.cutoff,
        "layers": layers(model.interaction_range, model.cutoff) if ours else None,
        "interaction_range_A": model.interaction_range,
        "inputs": states.ranges(ours.inputs) if ours else {},
        "made_for": _made_for(record) if ours else {},
        "dtype": (ours and ours.dtype) or capabilities["dtype"],
        "devices": list(capabilities["supported_devices"]),
        "parameters": record.get("n_parameters", 0) if RADIAL in record else model.n_parameters,
        "energy_per_atom": energy["sample_kind"] == "atom",
        "outputs": {key: value["unit"] for key, value in outputs.items()},
        "lammps_exchange": ours is not None and ours.exchange_width > 0,
        "extensions": [library.name for library in archive.extensions],
        "written_with": dict(archive.versions),
        "references": {kind: items for kind, items in archive.references.items() if items},
        "record": record,
    }


def _made_for(record: dict[str, Any]) -> dict[str, Any]:
    """Which of the models in a foreign file it is: head or task, charge, spin."""
    head = (_section(record, "source") or _section(_section(record, "finetune"), "base")).get("head")
    fixed = {MADE_FOR[name]: value for name, value in conditions(record).items()}
    return ({"head": head} if head else {}) | fixed


def _parts(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The terms of a sum, each with its `family`."""
    terms = _section(record, "hyperparameters").get("terms")
    return [term for term in terms if isinstance(term, dict)] if isinstance(terms, list) else []


def _data(record: dict[str, Any]) -> dict[str, Any] | None:
    """What the model was trained on: files as they were named, numbers of frames; what it was before."""
    named = _section(_section(record, "configuration"), "data")
    counts = {key: value for key, value in _section(record, "data").items() if key.startswith("n_")}
    found = {name: named[name] for name in ("train", "validation", "test") if named.get(name) is not None}
    source = _section(record, "source") or _section(_section(record, "finetune"), "base")
    return {"files": found, **counts, "source": source or None} if found or counts or source else None


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    """A part of a record; empty if it is not there, or is something else."""
    found = values.get(name)
    return found if isinstance(found, dict) else {}
