"""A model.pt (any metatomic model): loading it, what it says about itself, evaluating structures."""

from __future__ import annotations

import json
import math
import warnings
import zipfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from metatomic.torch import __version__ as metatomic_version
from metatomic.torch import load_atomistic_model, read_model_metadata

from mlplugins import __version__, ops
from mlplugins.engines._evaluation import (
    EdgeGradientModel,
    GeneralModel,
    NeighborCache,
    Results,
    require_finite,
    torch_state,
)
from mlplugins.engines._structure import Prepared, Structure, StructureLike, prepare
from mlplugins.errors import BadInput, RunFailed, nearest

__all__ = ["Artifact", "Committee", "NeighborCache", "Results", "Structure", "combine", "load", "load_all"]

FORMAT = 2
"""Newest `mlplugins::format` that this version reads."""


@dataclass(frozen=True)
class Artifact:
    """A loaded model file.

    Attributes:
        path: the file, absolute.
        elements: symbols that the model knows.
        cutoff: range of one layer (of the longest neighbour list for models that are not ours), Å.
        interaction_range: Å; layers × cutoff for models of ours, infinite for models of whole molecules.
        dtype: `float32` or `float64`, the precision the model runs in.
        device: where it runs, e.g. `cpu` or `cuda`.
        family: model family, None if mlplugins did not write the file.
        name: title of the model.
        record: what mlplugins stored: hyper-parameters, data hash, versions, baseline; else empty.
        versions: versions of `torch` and `metatomic` that wrote the file.
        extensions: TorchScript extensions that the file needs.
        outputs: name of each output → its unit.
        references: papers to cite, by kind.
        devices: kinds of device that the model supports.
        exchange_width: widest feature row exchanged between layers by LAMMPS' exchange mode; 0 = none.
        n_parameters: number of parameters.
        per_atom: whether the energy comes per atom.
    """

    path: Path
    elements: tuple[str, ...]
    cutoff: float
    interaction_range: float
    dtype: str
    device: str
    family: str | None
    name: str
    record: dict[str, Any]
    versions: dict[str, str]
    extensions: tuple[str, ...]
    outputs: dict[str, str]
    references: dict[str, list[str]]
    devices: tuple[str, ...]
    exchange_width: int
    n_parameters: int
    per_atom: bool
    _model: EdgeGradientModel | GeneralModel = field(repr=False)
    _known: np.ndarray = field(repr=False)
    _compositions: deque[bytes] = field(repr=False, compare=False, default_factory=lambda: deque(maxlen=4))

    @property
    def n_layers(self) -> int | None:
        """Number of message-passing layers; None for models that are not ours."""
        if self.family is None:
            return None
        return 1 if self.molecular else max(1, round(self.interaction_range / self.cutoff))

    @property
    def has_uncertainty(self) -> bool:
        """Whether it predicts the standard deviation of its energies."""
        return self.family is not None and "energy_uncertainty" in self.outputs

    @property
    def molecular(self) -> bool:
        """A model of one whole molecule: its atoms in the order of the training frames, one rank, no cell."""
        return self.family is not None and math.isinf(self.interaction_range)

    def evaluate(
        self,
        structures: Sequence[StructureLike],
        virials: bool = False,
        lists: NeighborCache | None = None,
        uncertainty: bool = False,
    ) -> list[Results]:
        """Energy, forces and stress of several structures in one model call.

        Args:
            structures: `ase.Atoms` or `Structure`s.
            virials: also give per-atom virials (models of ours only).
            lists: neighbour lists to reuse between calls; None builds them anew.
            uncertainty: also give standard deviations (models with the output `energy_uncertainty`).

        Raises:
            BadInput: an element that the model does not know, an impossible cell.
            RunFailed: positions that are not finite; the model failed, or gave NaN or infinity.

        >>> import tempfile
        >>> from mlplugins.export.metatomic import Description, save
        >>> from mlplugins.models import lennard_jones
        >>> potential = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters(epsilon=1.0, sigma=1.0))
        >>> file = tempfile.mkdtemp() + "/model.pt"
        >>> save(potential, file, Description("lennard-jones", ["Ar"], [0.0]), "float64")
        >>> from ase import Atoms
        >>> dimer = Atoms("Ar2", [[0, 0, 0], [0, 0, 2 ** (1 / 6)]])
        >>> round(load(file).evaluate([dimer])[0].energy, 12)
        -1.0
        """
        if len(structures) == 0:
            return []
        if uncertainty and not self.has_uncertainty:
            raise BadInput(
                f"'{self.path.name}' predicts no uncertainty (no output energy_uncertainty): train a family "
                "that does, such as soap-gap, or give several models, whose spread stands for it"
            )
        inputs = [prepare(structure, index) for index, structure in enumerate(structures)]
        for index, structure in enumerate(inputs):
            self._require_known_elements(structure, index)
        try:
            with torch_state():
                results = self._model.evaluate(inputs, lists or NeighborCache(), virials, uncertainty)
        except (RuntimeError, torch.jit.Error) as error:
            if isinstance(error, RunFailed):
                raise
            raise RunFailed(f"model '{self.path}' failed: {_last_line(error)}") from error
        require_finite(inputs, results, self.cutoff)
        return results

    def _require_known_elements(self, structure: Prepared, index: int) -> None:
        key = structure.numbers.tobytes()
        if key in self._compositions:  # found known before
            return
        unknown = ~self._known[structure.numbers.clip(-1, len(self._known) - 1)]  # −1 is the last, False
        if not unknown.any():
            self._compositions.append(key)
            return
        atoms = np.flatnonzero(unknown)
        symbols = sorted({_symbol(int(z)) for z in structure.numbers[atoms]})
        shown = ", ".join(map(str, atoms[:10])) + (f", … ({len(atoms)} atoms)" if len(atoms) > 10 else "")
        raise BadInput(
            f"structure {index}: the model does not know {', '.join(symbols)} (atoms {shown}); "
            f"'{self.path.name}' knows {', '.join(self.elements)}"
        )


@dataclass(frozen=True)
class Committee:
    """Mean and spread of several models on one structure.

    Attributes:
        mean: mean of energies, forces, stress, …
        members: results of each model.
        energy_spread: sample standard deviation (M − 1) of the energy over the M models, eV; 0 for one model.
        forces_spread: the same of each force component, (N, 3), eV/Å.
    """

    mean: Results
    members: tuple[Results, ...]
    energy_spread: float
    forces_spread: np.ndarray


def load(path: str | Path, device: str = "cpu", output: str | None = None) -> Artifact:
    """Load a model file.

    Args:
        path: a model.pt of mlplugins, or any other metatomic model.
        device: `cpu`, `cuda`, `cuda:1`, …
        output: the energy output of a model that has several (`energy/pbe`, …); None means `energy`.

    Raises:
        BadInput: missing, truncated or foreign file, a file of a newer format, a device that is absent or
            that the model does not support, no such output.
    """
    path = Path(path).absolute()
    versions, extensions = _read_archive(path)
    extra = _check_format(path)
    ops.load()
    target = _device(device)
    loaded = _open(path, versions)
    capabilities = loaded.capabilities()
    if target.type not in capabilities.supported_devices:
        supported = ", ".join(capabilities.supported_devices)
        raise BadInput(f"device '{device}': '{path.name}' supports {supported}")
    energy = _energy_output(path, list(capabilities.outputs), output)
    loaded = loaded.to(target)
    dtype = getattr(torch, capabilities.dtype)
    lists = loaded.requested_neighbor_lists()
    ours = "mlplugins::format" in extra and energy == "energy"
    cutoffs = [options.engine_cutoff("angstrom") for options in lists]
    if not ours:
        _require_plain_inputs(path, loaded)
    return Artifact(
        path=path,
        elements=tuple(_symbol(z) for z in capabilities.atomic_types),
        cutoff=float(extra["mlplugins::cutoff"]) if ours else max(cutoffs, default=0.0),
        interaction_range=capabilities.engine_interaction_range("angstrom"),
        dtype=capabilities.dtype,
        device=str(target),
        family=extra.get("mlplugins::family"),
        name=loaded.metadata().name,
        record=json.loads(extra.get("mlplugins::metadata", "{}")),
        versions=versions,
        extensions=extensions,
        outputs={key: value.unit for key, value in capabilities.outputs.items()},
        references=dict(loaded.metadata().references),
        devices=tuple(capabilities.supported_devices),
        exchange_width=int(extra.get("mlplugins::exchange_width", "0")),
        n_parameters=sum(p.numel() for p in loaded.parameters()),
        per_atom=ours or capabilities.outputs[energy].sample_kind == "atom",
        _model=EdgeGradientModel(loaded.module, lists[0], dtype, target)
        if ours
        else GeneralModel(loaded, energy, dtype, target),
        _known=np.isin(np.arange(max(capabilities.atomic_types) + 2), capabilities.atomic_types),
    )


def load_all(paths: str | Path | Sequence[str | Path], device: str = "cpu") -> tuple[Artifact, ...]:
    """Load one model or the members of a committee."""
    several = [paths] if isinstance(paths, str | Path) else list(paths)
    if len(several) == 0:
        raise BadInput("expected at least one model file, got an empty list")
    return tuple(load(path, device) for path in several)


def combine(members: Sequence[Results]) -> Committee:
    """Mean and sample standard deviation over the models, for one structure."""
    first = members[0]
    if len(members) == 1:
        return Committee(first, tuple(members), 0.0, np.zeros_like(first.forces))
    energies = np.array([member.energy for member in members])
    forces = np.stack([member.forces for member in members])
    mean = Results(
        float(energies.mean()),
        forces.mean(axis=0),
        np.mean([member.virial for member in members], axis=0),
        _mean([member.stress for member in members]),
        _mean([member.energies for member in members]),
        _mean([member.virials for member in members]),
    )
    return Committee(mean, tuple(members), float(energies.std(ddof=1)), forces.std(axis=0, ddof=1))


def _mean(arrays: list[Any]) -> Any:
    return None if any(array is None for array in arrays) else np.mean(arrays, axis=0)


def _read_archive(path: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Versions that wrote the file and the extensions it needs, without torch."""
    if not path.is_file():
        raise BadInput(f"no such model file: '{path}'")
    try:
        with zipfile.ZipFile(path) as archive:
            extra = {
                name.split("/extra/", 1)[1]: archive.read(name).decode("utf-8", "replace")
                for name in archive.namelist()
                if "/extra/" in name
            }
    except zipfile.BadZipFile as error:
        raise BadInput(
            f"'{path}' is not a model file, or it is truncated ({path.stat().st_size} bytes): expected the "
            "model.pt that `mlplugins train`, `convert` or `export` writes, or another metatomic model"
        ) from error
    if "metatomic-version" not in extra:
        raise BadInput(
            f"'{path}' is an archive but not a metatomic model: expected a model.pt, got perhaps a "
            "checkpoint; `mlplugins convert` or `mlplugins export` turn one into a model.pt"
        )
    versions = {"torch": extra.get("torch-version", "?"), "metatomic": extra["metatomic-version"]}
    extensions = tuple(item["name"] for item in json.loads(extra.get("extensions", "[]")))
    return versions, extensions


def _check_format(path: Path) -> dict[str, str]:
    extra = dict(read_model_metadata(str(path)).extra)
    number = extra.get("mlplugins::format", str(FORMAT))
    if not number.isdigit() or int(number) > FORMAT:
        record = json.loads(extra.get("mlplugins::metadata", "{}"))
        writer = record.get("versions", {}).get("mlplugins", "newer")
        raise BadInput(
            f"'{path}' has format {number} (written by mlplugins {writer}), but mlplugins {__version__} "
            f"reads up to format {FORMAT}: `pip install --upgrade mlplugins`, or export the model again here"
        )
    return extra


def _open(path: Path, versions: dict[str, str]) -> Any:
    try:
        with warnings.catch_warnings(), torch_state():
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # torch.jit is metatomic's format
            warnings.filterwarnings("ignore", category=FutureWarning)
            return load_atomistic_model(str(path))
    except Exception as error:
        raise BadInput(
            f"'{path}' does not load: {_last_line(error)}. It was written with torch {versions['torch']} and "
            f"metatomic {versions['metatomic']}; here are torch {torch.__version__} and metatomic "
            f"{metatomic_version}: install the file's versions (or newer), or export the model again"
        ) from error


def _device(device: str) -> torch.device:
    try:
        target = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise BadInput(f"device: expected cpu, cuda or cuda:N, got '{device}'") from error
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise BadInput(f"device '{device}': torch sees {count} CUDA device(s) here; use device='cpu'")
    return target


def _energy_output(path: Path, outputs: list[str], wanted: str | None) -> str:
    energies = [name for name in outputs if name == "energy" or name.startswith("energy/")]
    name = wanted or ("energy" if "energy" in energies or len(energies) != 1 else energies[0])
    if name not in energies:
        text = nearest(name, energies) if energies else f"it has {', '.join(outputs) or 'no outputs'}"
        raise BadInput(f"'{path.name}' has no output '{name}': {text}")
    return name


def _require_plain_inputs(path: Path, model: Any) -> None:
    wanted = list(model.requested_inputs(use_new_names=True))
    if wanted:
        raise BadInput(
            f"'{path.name}' needs more than positions, elements and cell ({', '.join(wanted)}), which "
            "mlplugins does not supply"
        )


def _symbol(number: int) -> str:
    return chemical_symbols[number] if 0 <= number < len(chemical_symbols) else f"type {number}"


def _last_line(error: BaseException) -> str:
    # the last line of a TorchScript error is the reason, the lines before are the interpreter's trace
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
