"""Several models as one file: a committee."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mlplugins import files, training
from mlplugins.checkpoints import added
from mlplugins.checkpoints.native import Checkpoint
from mlplugins.errors import BadInput
from mlplugins.model_file.archive import layers
from mlplugins.model_file.card import RADIAL
from mlplugins.model_file.doubts import CLOSEST, closest
from mlplugins.model_file.made_for import conditions
from mlplugins.model_file.radial import DEFAULT
from mlplugins.model_file.write import save
from mlplugins.models import committee as committees
from mlplugins.observer import SILENT
from mlplugins.structures import nearest
from mlplugins.training import config
from mlplugins.workflows import _models

if TYPE_CHECKING:
    from mlplugins.training.config import Configuration
    from mlplugins.training.fit import TrainingObserver
    from mlplugins.training.run import Trained

SAME_ZERO = 20.0
"""eV per atom; baselines from isolated atoms and from a fit differ by cohesive energies, at most 10 eV."""


def committee(models: Sequence[Path | str], output: Path | str = "model.pt") -> dict[str, Any]:
    """Write the committee of several models: their mean, whose uncertainty is their spread, in one file.

    Args:
        models: two files or more: model.pt, folders of runs, or checkpoints that `convert` reads, of networks
            for the same elements, in the same precision. Two that are the same model are refused.
        output: the model.pt to write.

    Returns:
        What `mlplugins committee --json` writes.

    Raises:
        BadInput: fewer than two files, models of different elements, precision, charge, spin, predictions,
            dispersion, one that is given twice, or a file that does not hold weights.
        RunFailed: the file cannot be written.

    >>> import tempfile
    >>> from mlplugins.model_file.card import ModelCard
    >>> from mlplugins.models import lennard_jones
    >>> folder = tempfile.mkdtemp()
    >>> for k in range(2):
    ...     parameters = {"epsilon": 0.01 + 0.001 * k, "cutoff": 6.0}
    ...     potential = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters(**parameters))
    ...     card = ModelCard("lennard-jones", ["Ar"], [0.0], details={"hyperparameters": parameters})
    ...     save(potential, f"{folder}/{k}.pt", card)
    >>> record = committee([f"{folder}/0.pt", f"{folder}/1.pt"], f"{folder}/model.pt")
    >>> record["n_members"], record["elements"]
    (2, ['Ar'])
    """
    if len(models) < 2:
        raise BadInput(f"committee: expected two models or more, got {len(models)}")
    paths = [Path(model) for model in models]
    read = [files.in_folder(path, "model.pt", "checkpoint.ckpt") for path in paths]
    files.require_writable(Path(output), "output", inputs=read)
    first, kind = _models.read(paths[0])
    found, kinds = [first], [kind]
    for path in paths[1:]:
        one, other = _models.read(path)
        if set(one.elements) == set(first.elements) and one.elements != first.elements:
            one, other = _models.read(path, first.elements)
        _require_alike((paths[0], first, kind.dtype), (path, one, other.dtype))
        found, kinds = [*found, one], [*kinds, other]
    _require_different(paths, found)
    _require_one_level(paths, found)
    (potential, card), kind = _joined(paths, found), _joint(kinds)
    radial = save(potential, output, card, kind.dtype, kind.portable, kind.tables)
    return {
        "model": str(output),
        "family": "committee",
        "n_members": len(found),
        "parts": card.parts,
        "elements": card.elements,
        "cutoff_A": potential.cutoff,
        "layers": layers(potential.reach, potential.cutoff),
        "parameters": card.details["n_parameters"],
        "dtype": kind.dtype,
        "portable": kind.portable,
        RADIAL: radial and asdict(radial),
        "source": card.source,
    }


def train_committee(
    configuration: Path | str | Mapping[str, Any] | Configuration,
    n_members: int,
    directory: Path | str,
    observer: TrainingObserver = SILENT,
    restart: bool = False,
) -> tuple[list[Trained], dict[str, Any]]:
    """Train several models that differ in their seed, and write their committee.

    The seeds are those of the configuration and the following whole numbers; they choose initial weights, the
    order of the frames and, where `data.validation` is a fraction, which frames are held out.

    Args:
        configuration: as of `mlplugins.train`, of a family whose files hold weights.
        n_members: how many.
        directory: the runs are in its folders `member_1`, …; model.pt in it is the committee.
        observer, restart: as of `mlplugins.train`.

    Returns:
        The runs, and the record of `committee`.

    Raises:
        BadInput: fewer than two members, a family solved in closed form, a directory that holds the run of a
            single model, or what `mlplugins.train` refuses.
        RunFailed: training diverged, or a file could not be written.
    """
    if n_members < 2:
        raise BadInput(f"committee: expected two members or more, got {n_members}")
    if training.is_helper():
        raise BadInput("committee: several processes train one model; train the members one by one")
    settings = config.load(configuration)
    if isinstance(settings, config.ClosedFormConfiguration):
        raise BadInput(
            f"committee: '{settings.model.family}' is solved in closed form, and its file holds no weights: "
            "train with several seeds, and give engines the separate files"
        )
    if (Path(directory) / "checkpoint.ckpt").exists():
        raise BadInput(
            f"committee: '{directory}' holds the run of a single model, whose model.pt would be "
            "replaced: choose another output folder (-o)"
        )
    folders = [Path(directory) / training.MEMBER.format(k + 1) for k in range(n_members)]
    runs = []
    for k, folder in enumerate(folders):
        member = settings.model_copy(update={"seed": settings.seed + k})
        runs.append(training.train(member, folder, observer, restart))
    return runs, committee(folders, Path(directory) / "model.pt")


Read = tuple[Path, Checkpoint, str]
"""A file, its model, the precision in which it computes."""


def _require_alike(first: Read, other: Read) -> None:
    """Refuse a member that is no model of the same quantity."""
    pairs = {
        "elements": (first[1].elements, other[1].elements),
        "precision": (first[2], other[2]),
        "charge and spin": (_state(first[1]), _state(other[1])),
    }
    remedy = {
        "elements": "`mlplugins convert --elements` keeps the common ones",
        "precision": "`mlplugins convert --dtype` writes one in another",
        "charge and spin": "convert the checkpoints with the same `--charge` and `--spin`",
    }
    for what, (expected, got) in pairs.items():
        if expected != got:
            raise BadInput(
                f"committee: {other[0]} has other {what} than {first[0]}: expected {_words(expected)}, got "
                f"{_words(got)}; {remedy[what]}"
            )


def _require_one_zero(paths: Sequence[Path], found: Sequence[Checkpoint]) -> None:
    """Members of other levels of theory have energies of other atoms.

    Fits of few compositions share the energy among the elements in other ways: those of some are higher,
    those of others lower.
    """
    first = found[0].baseline
    for path, one in zip(paths[1:], found[1:]):
        apart = np.subtract(one.baseline, first)
        k = int(np.abs(apart).argmax())
        if abs(apart[k]) > SAME_ZERO and (np.sign(apart[k]) * apart).min() > -SAME_ZERO / 2:
            raise BadInput(
                f"committee: the energies of {one.elements[k]} differ by {abs(apart[k]):.4g} eV ({paths[0]} "
                f"{first[k]:.6g}, {path} {one.baseline[k]:.6g}): expected models of one level of theory, "
                "whose energies have one zero"
            )


def _require_one_level(paths: Sequence[Path], found: Sequence[Checkpoint]) -> None:
    """The spread of two tasks of one file, or of models with and without dispersion, is no uncertainty."""
    _require_one_zero(paths, found)
    for path, one in zip(paths[1:], found[1:]):
        heads = [(each.details.get("source") or {}).get("head") for each in (found[0], one)]
        hashes = [(each.details.get("source") or {}).get("sha256") for each in (found[0], one)]
        if hashes[0] == hashes[1] and heads[0] != heads[1]:
            raise BadInput(
                f"committee: {paths[0]} and {path} are '{heads[0]}' and '{heads[1]}' of one file, whose "
                "energies are not comparable: expected models of one level of theory"
            )
        terms = [_dispersion(paths[0], found[0]), _dispersion(path, one)]
        if None not in terms and terms[0] != terms[1]:
            raise BadInput(
                f"committee: the dispersion of {paths[0]} is {terms[0]}, that of {path} {terms[1]}: expected "
                "models of one level of theory; `mlplugins convert --d3` adds it to one without (of one that "
                "learned dispersion the name of the file must say so: model-d3.pt)"
            )


def _dispersion(path: Path, read: Checkpoint) -> str | None:
    """Functional and damping of the term beside a model, or none; None where it may be learned."""
    terms = [part for part in read.parts if part["family"] == "d3"]
    if terms:
        return f"{terms[0]['functional']}-{terms[0]['damping']}"
    named = {"source": {"file": path.name}}
    return None if any(map(added.learned_dispersion, (read.details, named))) else "none"


def _state(read: Checkpoint) -> dict[str, Any]:
    """What it is made for, and what it takes."""
    return {**conditions(read.details), **read.potential.inputs}


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k.removeprefix('total_')} {_shown(v)}" for k, v in value.items()) or "none stated"
    return value if isinstance(value, str) else " ".join(value)


def _shown(value: Any) -> str:
    return f"of each structure ({value[0]:g} to {value[1]:g})" if isinstance(value, tuple) else f"{value:g}"


def _require_different(paths: Sequence[Path], found: Sequence[Checkpoint]) -> None:
    """A model that is counted twice makes the others look less uncertain."""
    states = [one.potential.state_dict() for one in found]
    for k, state in enumerate(states):
        for j in range(k):
            same = found[j].hyperparameters == found[k].hyperparameters and state.keys() == states[j].keys()
            if same and all(torch.equal(state[name], states[j][name]) for name in state):
                raise BadInput(f"committee: {paths[k]} holds the same weights as {paths[j]}: leave one out")


def _joint(kinds: Sequence[_models.FileKind]) -> _models.FileKind:
    """Of the committee: portable if one is, with the first tables that are not the default, which somebody
    asked for."""
    portable = any(kind.portable for kind in kinds)
    tables = next((kind.tables for kind in kinds if kind.tables != DEFAULT), DEFAULT)
    return _models.FileKind(kinds[0].dtype, portable, tables)


def _joined(paths: Sequence[Path], found: Sequence[Checkpoint]) -> tuple[committees.Model, Checkpoint]:
    first = found[0]
    baselines = np.array([one.baseline for one in found])
    mean = baselines.mean(axis=0)
    potentials = [one.potential.double() for one in found]
    potential = committees.Model.of(potentials, torch.tensor(baselines - mean)).eval()
    members = [{"family": one.family, **one.hyperparameters} for one in found]
    source = {
        "format": "committee",
        "file": ", ".join(str(path) for path in paths),
        "sha256": [files.sha256(files.in_folder(path, "model.pt")) for path in paths],
        **conditions(first.details),
    }
    details = {
        "hyperparameters": {"members": members},
        "n_parameters": sum(p.numel() for p in potential.parameters()),
        "source": source,
    }
    if known := nearest.merged([closest(one.details) for one in found]):
        details["data"] = {CLOSEST: known}
    card = Checkpoint(
        family="committee",
        elements=first.elements,
        baseline=mean.tolist(),
        name=f"committee of {len(found)} for {'-'.join(first.elements)}",
        details=details,
        references=list(dict.fromkeys(paper for one in found for paper in one.references)),
        potential=potential,
    )
    return potential, card
