"""Any family → one metatomic `AtomisticModel` file; the only place that knows metatomic's labels."""

# no postponed annotations here: metatomic compares the types of forward()
import copy
import json
import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch
from ase.data import atomic_numbers
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import (
    AtomisticModel,
    ModelCapabilities,
    ModelMetadata,
    ModelOutput,
    NeighborListOptions,
    System,
)
from torch import Tensor, nn

from mlplugins import files
from mlplugins.errors import BadInput, RunFailed
from mlplugins.models.base import Potential
from mlplugins.models.capabilities import of_whole_molecule, predicts_variance
from mlplugins.ops.build import OPS_LIBRARY
from mlplugins.structures.graph import Graph

FORMAT, ORDERED_FORMAT, MIXED_FORMAT = 1, 2, 3
"""Version of the file's `mlplugins::` entries; engines refuse a newer one. The second: of models of whole
molecules, which engines must give their atoms in the order of the training frames. The third: of models that
compute in float32 and declare float64 to metatomic."""

MANIFEST = "extra/mlplugins-checksums"
"""Entry of the archive with a line `CRC-32 size name` of every other entry."""

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Description:
    """What the file says about its model.

    Attributes:
        family: name of the model family, e.g. `nequip`.
        elements: symbols in the order of the species index.
        baseline: composition energy per atom of each element, eV.
        name: title of the model.
        details: JSON-able record (hyper-parameters, data hash, versions, …).
        references: papers to cite for the architecture.
    """

    family: str
    elements: List[str]
    baseline: List[float]
    name: str = "mlplugins model"
    details: Dict[str, Any] = field(default_factory=dict)
    references: List[str] = field(default_factory=list)


class MetatomicModel(nn.Module):
    """Adapts a family (plain tensors) to metatomic (systems, labels); TorchScript-able."""

    species_of_number: Tensor
    baseline: Tensor
    precision: Tensor

    def __init__(
        self, potential: Potential, elements: List[str], baseline: Tensor, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.potential = potential
        self.cutoff = potential.cutoff
        self.predicts_variance = predicts_variance(potential)
        species_of_number = torch.full((len(atomic_numbers) + 1,), -1, dtype=torch.long)
        for index, symbol in enumerate(elements):
            species_of_number[atomic_numbers[symbol]] = index
        self.register_buffer("species_of_number", species_of_number)
        self.register_buffer("baseline", baseline.to(torch.float64))
        self.register_buffer("precision", torch.zeros(0, dtype=dtype))  # of the potential
        self.options = NeighborListOptions(cutoff=potential.cutoff, full_list=True, strict=True)

    @torch.jit.export  # metatomic's wrappers ask the module of a loaded file, too
    def requested_neighbor_lists(self) -> List[NeighborListOptions]:
        return [self.options]

    def forward(
        self,
        systems: List[System],
        outputs: Dict[str, ModelOutput],
        selected_atoms: Optional[Labels] = None,
    ) -> Dict[str, TensorMap]:
        results: Dict[str, TensorMap] = {}
        uncertain = self.predicts_variance and "energy_uncertainty" in outputs
        if not ("energy" in outputs or uncertain) or len(systems) == 0:
            return results
        dtype = systems[0].positions.dtype  # of the results, as metatomic wants
        centers, neighbors, vectors = self._edges(systems)
        vectors = vectors.to(self.precision.dtype)
        species, system, atom = self._nodes(systems)
        n_centers = species.shape[0]
        if len(systems) == 1 and "mlplugins::n_centers" in systems[0].known_data():
            n_centers = int(systems[0].get_data("mlplugins::n_centers").block(0).values[0, 0].item())

        if selected_atoms is not None:
            first = _first_atoms(systems)
            chosen = selected_atoms.values.to(torch.long)
            rows = first.index_select(0, chosen[:, 0]) + chosen[:, 1]
        else:
            rows = torch.arange(n_centers, device=species.device)
        samples = [system[rows], atom[rows]]
        graph = Graph(species, centers, neighbors, vectors, system, n_centers)
        if "energy" in outputs:
            energy = self.potential(graph)["energy"]
            energy = energy.to(torch.float64) + self.baseline.index_select(0, species[:n_centers])
            per_atom = outputs["energy"].sample_kind == "atom"
            values = energy[rows] if per_atom else _by_system(energy[rows], samples[0], len(systems))
            results["energy"] = _energy_map(values, samples, per_atom, dtype)
        if uncertain:
            # of the energy alone: no gradient is asked for
            still = Graph(species, centers, neighbors, vectors.detach(), system, n_centers)
            residual, features = self.potential.posterior_features(still)
            residual, features = residual[rows], features[rows]
            per_atom = outputs["energy_uncertainty"].sample_kind == "atom"
            if not per_atom:
                residual = _by_system(residual, samples[0], len(systems))
                features = _by_system(features, samples[0], len(systems))
            deviation = torch.sqrt(residual + features.square().sum(dim=1))
            results["energy_uncertainty"] = _energy_map(deviation, samples, per_atom, dtype)
        return results

    def _edges(self, systems: List[System]) -> List[Tensor]:
        """Edges of all systems, sorted by centre: centers (E,), neighbors (E,), vectors (E, 3)."""
        centers: List[Tensor] = []
        neighbors: List[Tensor] = []
        vectors: List[Tensor] = []
        offset = 0
        for system in systems:
            pairs = system.get_neighbor_list(self.options)
            samples = pairs.samples.values
            centers.append(samples[:, 0].to(torch.long) + offset)
            neighbors.append(samples[:, 1].to(torch.long) + offset)
            vectors.append(pairs.values.reshape(-1, 3))
            offset += len(system)
        i, j, v = torch.cat(centers), torch.cat(neighbors), torch.cat(vectors)
        if bool((i[1:] < i[:-1]).any()):
            order = torch.argsort(i, stable=True)
            i, j, v = i[order], j[order], v[order]
        return [i, j, v]

    def _nodes(self, systems: List[System]) -> List[Tensor]:
        """Species index, system index and atom index of every node, each (N,)."""
        types: List[Tensor] = []
        system_index: List[Tensor] = []
        atom_index: List[Tensor] = []
        for index, system in enumerate(systems):
            n = len(system)
            types.append(system.types.to(torch.long))
            system_index.append(torch.full((n,), index, dtype=torch.long, device=system.device))
            atom_index.append(torch.arange(n, device=system.device))
        species = self.species_of_number.index_select(0, torch.cat(types))
        return [species, torch.cat(system_index), torch.cat(atom_index)]


def _first_atoms(systems: List[System]) -> Tensor:
    first: List[int] = []
    total = 0
    for system in systems:
        first.append(total)
        total += len(system)
    return torch.tensor(first, dtype=torch.long, device=systems[0].device)


def _by_system(values: Tensor, system: Tensor, n_systems: int) -> Tensor:
    shape = [n_systems] + list(values.shape[1:])
    return torch.zeros(shape, dtype=values.dtype, device=values.device).index_add(0, system, values)


def _energy_map(values: Tensor, atoms: List[Tensor], per_atom: bool, dtype: torch.dtype) -> TensorMap:
    """Values of atoms, whose systems and indices are `atoms`, or of all systems."""
    device = values.device
    if per_atom:
        samples = Labels(["system", "atom"], torch.stack(atoms, dim=1).to(torch.int32))
    else:
        index = torch.arange(values.shape[0], device=device, dtype=torch.int32)
        samples = Labels(["system"], index.reshape(-1, 1))
    block = TensorBlock(
        values=values.to(dtype).reshape(-1, 1),
        samples=samples,
        components=torch.jit.annotate(List[Labels], []),
        properties=Labels("energy", torch.zeros(1, 1, dtype=torch.int32, device=device)),
    )
    return TensorMap(Labels("_", torch.zeros(1, 1, dtype=torch.int32, device=device)), [block])


def save(
    potential: Potential,
    path: Path | str,
    description: Description,
    dtype: str = "float32",
    portable: bool = False,
) -> None:
    """Write `potential` as a metatomic model file (atomically: an existing file survives a failure).

    Args:
        potential: a trained family, in any dtype; it is copied, not changed.
        path: file to write.
        description: elements, baseline and record stored in the file.
        dtype: `float32` or `float64`, the precision the model computes in; energies are float64 either way.
        portable: write a file free of our ops, for engines that know nothing of mlplugins; LAMMPS then has no
            exchange mode.

    Raises:
        BadInput: unknown dtype, or a baseline that does not match the elements.
    """
    if dtype not in DTYPES:
        raise BadInput(f"dtype: expected float32 or float64, got '{dtype}'")
    if of_whole_molecule(potential) and dtype != "float64":
        raise BadInput(
            f"dtype: the weights of a {description.family} cancel over many digits, expected float64"
        )
    if len(description.baseline) != len(description.elements):
        raise BadInput(
            f"baseline: expected {len(description.elements)} values, one per element, "
            f"got {len(description.baseline)}"
        )
    model = _wrap(potential, description, dtype, portable)
    try:
        with files.replacing(Path(path)) as temporary:
            with warnings.catch_warnings(), _recorded_extensions(portable):
                # torch.jit is metatomic's format
                warnings.filterwarnings("ignore", category=DeprecationWarning)
                model.save(str(temporary))
            _seal(str(temporary))
    except OSError as error:
        raise RunFailed(f"cannot write {path}: {error.strerror or error}") from error


def _seal(path: str) -> None:
    """Add the checksums of all entries, which the engines compare when they load the file."""
    with zipfile.ZipFile(path, "a") as archive:
        entries = [(entry, entry.filename.partition("/")) for entry in archive.infolist()]
        lines = [f"{entry.CRC:08x} {entry.file_size} {name}\n" for entry, (_, _, name) in entries]
        archive.writestr(f"{entries[0][1][0]}/{MANIFEST}", "".join(lines))


@contextmanager
def _recorded_extensions(portable: bool) -> Iterator[None]:
    """metatomic records every library the process happens to have loaded; the file needs at most our ops."""
    loaded = torch.ops.loaded_libraries
    # a newer build may have replaced ours under a long training
    ours = {path for path in loaded if path.endswith(OPS_LIBRARY) and os.path.exists(path) and not portable}
    others = set(loaded) - ours
    loaded.difference_update(others)
    try:
        yield
    finally:
        loaded.update(others)


def for_inference(potential: Potential, dtype: str, portable: bool = False) -> Potential:
    """A copy as files hold it: folded, in float32 or float64, with the native ops unless it is portable."""
    potential = copy.deepcopy(potential).to(dtype=torch.float64).eval().requires_grad_(False)
    potential.optimise_for_inference()  # before the weights are rounded
    potential.to(dtype=DTYPES[dtype])
    if not portable:
        potential.use_native_ops()
    return potential


def _wrap(potential: Potential, description: Description, dtype: str, portable: bool) -> AtomisticModel:
    potential = for_inference(potential, dtype, portable)
    whole = of_whole_molecule(potential)
    exchange_width = 0 if portable else potential.exchange_width
    baseline = torch.tensor(description.baseline, dtype=torch.float64)
    module = MetatomicModel(potential, description.elements, baseline, DTYPES[dtype])
    outputs = {"energy": ModelOutput(unit="eV", sample_kind="atom", description="potential energy")}
    if predicts_variance(potential):
        outputs["energy_uncertainty"] = ModelOutput(
            unit="eV", sample_kind="atom", description="standard deviation of the predicted energy"
        )
    capabilities = ModelCapabilities(
        outputs=outputs,
        atomic_types=[atomic_numbers[symbol] for symbol in description.elements],
        interaction_range=float("inf") if whole else potential.n_layers * potential.cutoff,
        length_unit="angstrom",
        supported_devices=["cpu", "cuda"],
        # of inputs and outputs: metatomic knows one for both, and a total energy needs more than seven digits
        dtype="float64",
    )
    versions = ORDERED_FORMAT if whole else FORMAT if dtype == "float64" else MIXED_FORMAT
    metadata = ModelMetadata(
        name=description.name,
        references={"architecture": description.references, "implementation": ["mlplugins"]},
        extra={
            "mlplugins::format": str(versions),
            "mlplugins::family": description.family,
            "mlplugins::cutoff": repr(potential.cutoff),
            "mlplugins::exchange_width": str(exchange_width),
            "mlplugins::dtype": dtype,
            **({"mlplugins::atom_order": "tag"} if whole else {}),
            "mlplugins::metadata": json.dumps(
                {
                    "elements": description.elements,
                    "baseline_eV": description.baseline,
                    "portable": portable,
                    **description.details,
                }
            ),
        },
    )
    return AtomisticModel(module.eval(), metadata, capabilities)
