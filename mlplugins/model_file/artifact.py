"""A model.pt (any metatomic model): loading it, its metadata, evaluating structures."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlplugins import ops
from mlplugins.elements import symbol
from mlplugins.errors import BadInput, RunFailed
from mlplugins.model_file import loading as parts
from mlplugins.model_file import runtime
from mlplugins.model_file.archive import layers, read_archive
from mlplugins.model_file.card import repels
from mlplugins.model_file.committee import Committee, combine
from mlplugins.model_file.evaluate import (
    EdgeGradientModel,
    NeighborCache,
    Results,
    require_finite,
)
from mlplugins.model_file.general import GeneralModel
from mlplugins.model_file.heat_flux import HeatFlux
from mlplugins.model_file.made_for import MADE_FOR, conditions, contradiction
from mlplugins.model_file.structure import Array, PlainStructure, Prepared, StructureLike, prepare
from mlplugins.quantities import QUANTITIES
from mlplugins.structures import state as states
from mlplugins.structures.state import ElectronicState

__all__ = [
    "Artifact",
    "Committee",
    "NeighborCache",
    "Results",
    "PlainStructure",
    "combine",
    "evaluate_together",
    "load",
    "load_all",
    "sources",
]


@dataclass(frozen=True)
class Artifact:
    """A loaded model file.

    Attributes:
        path: the file, absolute.
        elements: symbols that the model knows.
        cutoff: range of one layer (of the longest neighbour list for models that are not ours), Å.
        interaction_range: Å; layers × cutoff, or less, for models of ours; that of the farthest-reaching
            term for a sum; infinite for models of whole molecules.
        dtype: `float32` or `float64`, the precision the model runs in (energies are summed in float64).
        device: where it runs, e.g. `cpu` or `cuda`.
        family: model family; None for models of others, and for wrappers (D3, …) around one of ours.
        name: title of the model.
        record: what mlplugins stored: hyper-parameters, data hash, versions, baseline; else empty.
        versions: versions of `torch` and `metatomic` that wrote the file.
        extensions: TorchScript extensions that the file needs.
        outputs: name of each output → its unit.
        inputs: what it takes of a structure as a whole (`charge`, `spin_multiplicity`), with the lowest and
            the highest value that it knows.
        more: names of the quantities that it predicts beside the energy and its derivatives.
        energies: outputs of a model of ours with several energies, the default first; else empty.
        references: papers to cite, by kind.
        devices: kinds of device that the model supports.
        exchange_width: widest feature row exchanged between layers by LAMMPS' exchange mode; 0 = none.
        n_parameters: number of parameters.
        energy_output: the output that is evaluated, `energy` or `energy/variant`.
        per_atom: whether the energy comes per atom.
        non_conservative: forces and stress are predicted directly, not derivatives of the energy.
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
    inputs: dict[str, tuple[float, float]]
    more: tuple[str, ...]
    energies: tuple[str, ...]
    references: dict[str, list[str]]
    devices: tuple[str, ...]
    exchange_width: int
    n_parameters: int
    energy_output: str
    per_atom: bool
    non_conservative: bool
    _model: EdgeGradientModel | GeneralModel = field(repr=False)
    _known: np.ndarray = field(repr=False)
    _compositions: deque[bytes] = field(repr=False, compare=False, default_factory=lambda: deque(maxlen=4))

    @property
    def n_layers(self) -> int | None:
        """Number of layers, each of the whole cutoff, that the range takes; None for models of others."""
        return None if self.family is None else layers(self.interaction_range, self.cutoff)

    @property
    def has_uncertainty(self) -> bool:
        """Whether it predicts the standard deviation of its energies."""
        first = self.family is not None and self.energy_output in ("energy", *self.energies[:1])
        return first and "energy_uncertainty" in self.outputs

    @property
    def has_force_uncertainty(self) -> bool:
        """Whether it predicts the standard deviation of its forces; a committee has that of its spread."""
        own = self.has_uncertainty and not self.non_conservative and self.n_members == 1
        return own and isinstance(self._model, EdgeGradientModel) and self._model.has_force_uncertainty

    @property
    def without_force_uncertainty(self) -> str:
        """Why there is none, and what to do."""
        if "energy_uncertainty" in self.outputs and self.energies and not self.has_uncertainty:
            return f"it has that of '{self.energies[0]}', not '{self.energy_output}': leave the variant out"
        if self.has_uncertainty and self.non_conservative:
            return "direct forces have none: leave non_conservative out"
        if self.n_members > 1:
            return "a committee has the spread of its members (`forces_uncertainty` of MLCalculator)"
        if self.has_uncertainty and (self.record.get("uncertainty") or {}).get("method") == "llpr":
            return "its file has none for forces: run `mlplugins uncertainty` again, with force labels"
        if self.has_uncertainty:
            return f"{self.family} has one of atomic energies only"
        return "add one with `mlplugins uncertainty` (networks), or join models with `mlplugins committee`"

    @property
    def repels(self) -> bool:
        """Whether it holds a screened nuclear repulsion, for atoms closer than in any training frame."""
        return self.family == "zbl" or repels(self.record.get("hyperparameters") or {})

    @property
    def unused(self) -> tuple[str, ...]:
        """Outputs of the file that no engine of mlplugins passes on."""
        used = {self.energy_output, *self.energies, *(QUANTITIES[name].output or "" for name in self.more)}
        used |= {"energy"} if self.energies else set()
        used |= {"energy_uncertainty"} if self.has_uncertainty else set()
        used |= {"non_conservative_forces"} if "direct_forces" in self.more else set()  # another spelling
        if self.family is not None:  # for programs, not for dynamics; metatomic adds the older name
            used |= {"feature", "features"}
        return tuple(sorted(name for name in self.outputs if name not in used))

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
        wanted: Collection[str] | None = None,
        probes: int | None = None,
    ) -> list[Results]:
        """Energy, forces and stress of several structures in one model call.

        Args:
            structures: of `ase.Atoms` or `PlainStructure`.
            virials: also give per-atom virials (models of ours only).
            lists: neighbour lists to reuse between calls; None builds them anew.
            uncertainty: also give standard deviations (models with the output `energy_uncertainty`).
            wanted: which quantities of `more` are computed, and which of `energies`; None: all of `more`.
            probes: also give standard deviations of the components of forces (`has_force_uncertainty`), from
                that many random probes, a backward pass each; 0: exactly, of as many as there are features.

        Raises:
            BadInput: an element that the model does not know, an impossible cell, a charge or spin in `info`
                that the model does not know, or is not made for.
            RunFailed: positions that are not finite; the model failed, or gave NaN or infinity.

        >>> import tempfile
        >>> from mlplugins.model_file.card import ModelCard
        >>> from mlplugins.model_file.write import save
        >>> from mlplugins.models import lennard_jones
        >>> potential = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters(epsilon=1.0, sigma=1.0))
        >>> file = tempfile.mkdtemp() + "/model.pt"
        >>> save(potential, file, ModelCard("lennard-jones", ["Ar"], [0.0]), "float64")
        >>> from ase import Atoms
        >>> dimer = Atoms("Ar2", [[0, 0, 0], [0, 0, 2 ** (1 / 6)]])
        >>> round(load(file).evaluate([dimer])[0].energy, 12)
        -1.0
        """
        if uncertainty and not self.has_uncertainty:
            raise BadInput(f"'{self.path.name}' predicts no uncertainty: {self.without_force_uncertainty}")
        if probes is not None:
            self._require_probes(probes)
        asked = lists or NeighborCache(), virials, uncertainty, wanted, probes
        return self._evaluated(structures, lambda inputs: [self._model.evaluate(inputs, *asked)])[0]

    def _require_probes(self, probes: int) -> None:
        """Refuse probes of a model without an uncertainty of forces."""
        if not self.has_force_uncertainty:
            raise BadInput(
                f"'{self.path.name}' predicts no uncertainty of its forces: {self.without_force_uncertainty}"
            )
        if probes < 0:
            raise BadInput(f"probes: expected their number, or 0 for the exact uncertainty, got {probes}")

    def of_energy(self, output: str) -> Artifact:
        """The same loaded model with another of its `energies` as the energy.

        Raises:
            BadInput: it has no such energy.
        """
        if output not in self.energies or not isinstance(self._model, EdgeGradientModel):
            known = ", ".join(self.energies) or self.energy_output
            raise BadInput(f"'{self.path.name}' has no output '{output}', expected one of {known}")
        if self.non_conservative:
            raise BadInput(f"'{self.path.name}': direct forces are those of one energy")
        return replace(self, energy_output=output, _model=self._model.of_energy(output))

    @property
    def n_members(self) -> int:
        """Members of a committee in one file; 1 of other models."""
        return self._model.n_members if isinstance(self._model, EdgeGradientModel) else 1

    def members(
        self,
        structures: Sequence[StructureLike],
        virials: bool = False,
        lists: NeighborCache | None = None,
        wanted: Collection[str] | None = None,
    ) -> list[list[Results]]:
        """Results of every member of a committee in one file, the first index; of another model its own.

        Arguments and errors as of `evaluate`.
        """
        model, cache = self._model, lists or NeighborCache()
        if self.n_members == 1 or not isinstance(model, EdgeGradientModel):
            return [self.evaluate(structures, virials, lists, wanted=wanted)]
        if self.non_conservative:
            raise BadInput(
                f"'{self.path.name}' is a committee, whose direct forces are those of its mean only: give "
                "the files of its members for direct forces"
            )
        each = self._evaluated(structures, lambda inputs: model.members(inputs, cache, virials))
        if not (set(self.more) if wanted is None else {*self.more} & {*wanted}):
            return each
        means = self.evaluate(structures, lists=cache, wanted=wanted)  # what heads predict: of the mean only
        return [[replace(r, more=m.more) for r, m in zip(results, means)] for results in each]

    def _evaluated(
        self,
        structures: Sequence[StructureLike],
        model: Callable[[list[Prepared]], list[list[Results]]],
    ) -> list[list[Results]]:
        """What `model` says of the structures, which are checked before, and its results after."""
        if len(structures) == 0:
            return [[] for _ in range(self.n_members)]
        inputs = self._prepared(structures)
        with self._running():
            found = model(inputs)
        for results in found:
            require_finite(inputs, results, self.cutoff)
        return found

    def heat_flux(
        self,
        structure: StructureLike,
        velocities: Array,
        masses: Array,
        baseline: bool = False,
        lists: NeighborCache | None = None,
    ) -> HeatFlux:
        """Exact heat flux of one structure, of any number of layers (`mlplugins.model_file.heat_flux`).

        Args:
            structure: an `ase.Atoms` or `PlainStructure`; bonds may cross periodic boundaries.
            velocities: (N, 3), in ASE's unit √(eV/u), which J then has: eV Å √(eV/u)/Å.
            masses: (N,), u.
            baseline: whether U_i includes the composition energies. They move with their atoms and carry no
                heat: of a solid, κ is the same without them and the noise is less.
            lists: neighbour lists to reuse between calls.

        Raises:
            BadInput: a model without energies of atoms that depend on vectors of edges (of others, of whole
                molecules, portable files of several layers), velocities or masses of another shape, and as
                `evaluate`.
            RunFailed: as `evaluate`.
        """
        model = self._edge_model("heat flux")
        (prepared,) = self._prepared([structure])
        n = len(prepared.numbers)
        v, m = np.array(velocities, dtype=np.float64), np.array(masses, dtype=np.float64)
        for name, values, shape in (("velocities", v, (n, 3)), ("masses", m, (n,))):
            if values.shape != shape or not np.isfinite(values).all():
                raise BadInput(f"heat flux: expected finite {name} {shape}, got {values.shape}")
        with self._running():
            messages = self.exchange_width > 0
            energies, composition, flux = model.heat_flux(prepared, v, lists or NeighborCache(), messages)
        energies = energies + composition if baseline else energies
        convective = (0.5 * m * np.square(v).sum(axis=1) + energies) @ v
        if not np.isfinite(flux.sum() + convective.sum()):
            raise RunFailed(f"heat flux: the model '{self.path.name}' gave NaN or infinity")
        return HeatFlux(flux, convective)

    def hessian(self, structure: StructureLike, lists: NeighborCache | None = None) -> Array:
        """∂²E/∂r_ia ∂r_jb of one structure, (3N, 3N), eV/Å² (`mlplugins.model_file.hessian`).

        Raises:
            BadInput: a model whose energy is no function of vectors of edges (of others, of whole molecules),
                and as `evaluate`.
            RunFailed: a family without second derivatives, and as `evaluate`.
        """
        model = self._edge_model("Hessian", messages=False)
        (prepared,) = self._prepared([structure])
        with self._running():
            found = model.hessian(prepared, lists or NeighborCache())
        if not np.isfinite(found).all():
            raise RunFailed(f"Hessian: the model '{self.path.name}' gave NaN or infinity")
        return found

    def _edge_model(self, what: str, messages: bool = True) -> EdgeGradientModel:
        """The model, if its energy is a sum over atoms of functions of vectors of edges; with `messages`, if
        those between its layers can be followed."""
        why = ""
        if not isinstance(self._model, EdgeGradientModel):
            why = (
                "mlplugins did not write this model (or a wrapper changes it), so its energy cannot be split"
            )
        elif self.non_conservative:
            why = "its direct forces are no derivatives of the energy: leave non_conservative out"
        elif self.molecular:
            why = "its energy is one of the whole molecule, without energies of atoms"
        elif messages and (self.n_layers or 1) > 1 and self.exchange_width == 0:
            why = "this portable file hides its messages: export it again without --portable"
        if why or not isinstance(self._model, EdgeGradientModel):
            raise BadInput(f"{what} of '{self.path.name}': {why}")
        return self._model

    def _prepared(self, structures: Sequence[StructureLike]) -> list[Prepared]:
        inputs = []
        for index, given in enumerate(structures):
            state = self.state(getattr(given, "info", {}), f"structure {index}")
            inputs.append(prepare(given, index)._replace(state=state))
            self._require_known_elements(inputs[-1], index)
        return inputs

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Failures of the program named."""
        try:
            with runtime.running():
                yield
        except runtime.FAILURES as error:
            if isinstance(error, RunFailed):
                raise
            raise RunFailed(f"model '{self.path}' failed: {runtime.reason(error)}") from error

    def state(self, info: Mapping[str, Any], where: str) -> ElectronicState:
        """Charge and spin multiplicity that the model is given of a structure with this `info`: 0 and 1 if it
        says nothing; `where` names the structure in messages.

        Raises:
            BadInput: the model does not know them, or is made for others.
        """
        if not info:
            return ElectronicState()
        state = states.of(info, where) if self.inputs else ElectronicState()
        if said := contradiction(self.record, info) or states.outside(state, self.inputs):
            raise BadInput(f"{where}: {said} ('{self.path.name}')")
        return state

    def require_input(self, name: str, option: str) -> None:
        """Refuse the option of an input that the model does not take.

        Raises:
            BadInput: naming the option.
        """
        if name not in self.inputs and name not in {MADE_FOR[key] for key in conditions(self.record)}:
            raise BadInput(f"{option}: '{self.path.name}' takes no {option} of a structure; leave it out")

    def _require_known_elements(self, structure: Prepared, index: int) -> None:
        key = structure.numbers.tobytes()
        if key in self._compositions:  # found known before
            return
        unknown = ~np.isin(structure.numbers, self._known)
        if not unknown.any():
            self._compositions.append(key)
            return
        atoms = np.flatnonzero(unknown)
        symbols = sorted({symbol(int(z)) for z in structure.numbers[atoms]})
        shown = ", ".join(map(str, atoms[:10])) + (f", … ({len(atoms)} atoms)" if len(atoms) > 10 else "")
        raise BadInput(
            f"structure {index}: the model does not know {', '.join(symbols)} (atoms {shown}); "
            f"'{self.path.name}' knows {', '.join(self.elements)}"
        )


def load(
    path: str | Path,
    device: str = "cpu",
    output: str | None = None,
    extensions: str | Path | None = None,
    baseline: bool = True,
    non_conservative: bool = False,
) -> Artifact:
    """Load a model file. It is a program, and this runs it: load only files from people you trust.

    Args:
        path: a model.pt of mlplugins, or the folder of a run with one, or any other metatomic model.
        device: `cpu`, `cuda`, `cuda:1`, …
        output: which of several energies (`energy/pbe`, or `pbe`); None: `energy`, or the only one there is.
        extensions: directory of TorchScript extensions, beside `MLPLUGINS_EXTENSIONS`; no others are loaded.
        baseline, non_conservative: as of `MLCalculator`.

    Raises:
        BadInput: a missing, damaged, foreign or newer file, an absent or unsupported device, no such output.
    """
    archive = read_archive(Path(path).absolute())
    path = archive.path
    ops.load()
    target = runtime.device(device)
    loaded = runtime.load(archive, extensions)
    capabilities = loaded.capabilities()
    parts.require_supported(device, target, path, capabilities.supported_devices)
    energy = parts.energy_output(path, list(capabilities.outputs), output)
    loaded = loaded.to(target)
    ours = parts.ours(archive, loaded, energy)
    if not baseline:
        parts.leave_out_composition(path, loaded, ours)
    dtype = (ours and ours.dtype) or capabilities.dtype
    asked = parts.asked(path, loaded, non_conservative, ours is not None, energy)
    return Artifact(
        path=path,
        elements=tuple(symbol(z) for z in capabilities.atomic_types),
        cutoff=ours.cutoff if ours else parts.longest_list(loaded),
        interaction_range=capabilities.engine_interaction_range("angstrom"),
        dtype=dtype,
        device=str(target),
        family=ours.family if ours else None,
        name=archive.name,
        record=archive.entries.record if archive.entries else {},
        versions=archive.versions,
        extensions=tuple(library.name for library in archive.extensions),
        outputs={key: value.unit for key, value in capabilities.outputs.items()},
        inputs=parts.inputs(path, loaded) if ours is None else ours.inputs,
        more=tuple(asked.more),
        energies=tuple(asked.energies),
        references=archive.references,
        devices=tuple(capabilities.supported_devices),
        exchange_width=ours.exchange_width if ours else 0,
        n_parameters=sum(p.numel() for p in loaded.parameters()),
        energy_output=energy,
        per_atom=ours is not None or capabilities.outputs[energy].sample_kind == "atom",
        non_conservative=non_conservative,
        _model=parts.evaluator(loaded, ours, energy, asked, (getattr(torch, dtype), target)),
        _known=np.array(capabilities.atomic_types),
    )


def load_all(
    paths: str | Path | Sequence[str | Path],
    device: str = "cpu",
    output: str | None = None,
    extensions: str | Path | None = None,
    baseline: bool = True,
    non_conservative: bool = False,
) -> tuple[Artifact, ...]:
    """Load one model or the members of a committee."""
    several = [paths] if isinstance(paths, str | Path) else list(paths)
    if len(several) == 0:
        raise BadInput("expected at least one model file, got an empty list")
    return tuple(load(path, device, output, extensions, baseline, non_conservative) for path in several)


def evaluate_together(
    models: Sequence[Artifact],
    structures: Sequence[StructureLike],
    virials: bool = False,
    lists: NeighborCache | None = None,
    wanted: Collection[str] | None = None,
) -> list[Committee]:
    """What all models, and the members of committees among them, say of each structure.

    Arguments and errors as of `Artifact.evaluate`.
    """
    by_member = [each for model in models for each in model.members(structures, virials, lists, wanted)]
    return [combine(members) for members in zip(*by_member)]


def sources(models: Sequence[Artifact]) -> list[Path]:
    """The file of every member of `evaluate_together`."""
    return [model.path for model in models for _ in range(model.n_members)]
