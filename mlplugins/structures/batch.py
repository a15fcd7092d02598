"""Structures as plain tensors: edges computed once, batches by concatenation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers
from torch import Tensor

from mlplugins.elements import require_known
from mlplugins.quantities import QUANTITIES
from mlplugins.structures import state as states
from mlplugins.structures.dataset import Structure
from mlplugins.structures.graph import Graph
from mlplugins.structures.neighbors import neighbor_list


@dataclass
class Batch:
    """One or more structures, N atoms, E edges, S structures.

    Attributes:
        species: (N,) int64, index into the element list.
        centers: (E,) int64, ascending.
        neighbors: (E,) int64.
        vectors: (E, 3), r_j − r_i + shift, Å.
        system: (N,) int64, structure of each atom.
        n_atoms: (S,) number of atoms.
        volume: (S,) cell volume, Å³; 0 without a full cell.
        weight: (S,) factor of the structure in the loss.
        state: (S, 2) charge, e, and spin multiplicity.
        head: (S,) int64, of which energy the labels are: 0 for the first, or the only one.
        labels: of every quantity in the table, (S, …) or (N, …) of its components; NaN where there is none.
            The composition baseline is subtracted from the energy.
    """

    species: Tensor
    centers: Tensor
    neighbors: Tensor
    vectors: Tensor
    system: Tensor
    n_atoms: Tensor
    volume: Tensor
    weight: Tensor
    state: Tensor
    head: Tensor
    labels: dict[str, Tensor]

    @property
    def n_systems(self) -> int:
        return self.n_atoms.shape[0]

    def graph(self, vectors: Tensor | None = None) -> Graph:
        """Input of a model; with `vectors` in place of the batch's own (a leaf of the differentiation)."""
        v = self.vectors if vectors is None else vectors
        n = self.species.shape[0]
        return Graph(self.species, self.centers, self.neighbors, v, self.system, n, self.state)

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device` (itself if it is there already)."""
        if self.species.device == device:
            return self

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        tensors = {name: moved(getattr(self, name)) for name in TENSORS}
        return Batch(**tensors, labels={name: moved(label) for name, label in self.labels.items()})

    def has(self, name: str) -> Tensor:
        """(S,) or (N,): whether a structure or an atom has a label of this quantity.

        >>> from mlplugins.structures.dataset import Keys, read
        >>> frames = read("examples/data/li6ps5cl_pbe/test.extxyz@:1", Keys(stress=None))
        >>> batch = single(frames[0], ["Li", "P", "S", "Cl"], 4.0, 0.0, torch.float64)
        >>> batch.has("energy").all().item(), batch.has("stress").any().item()
        (True, False)
        """
        label = self.labels[name]
        return ~torch.isnan(label.flatten(1)[:, 0] if label.dim() > 1 else label)


TENSORS = tuple(field.name for field in fields(Batch) if field.name != "labels")


def graph_of(
    atoms: Atoms, elements: Sequence[str], cutoff: float, dtype: torch.dtype = torch.float64
) -> Graph:
    """Graph of one structure.

    >>> graph = graph_of(Atoms("H2O", [[0, 0, 0], [0, 0, 0.7], [0, 0, 5]]), ["H", "O"], 2.0)
    >>> graph.centers, graph.neighbors, graph.n_centers
    (tensor([0, 1]), tensor([1, 0]), 3)

    Args:
        atoms: with elements of `elements` only.
        elements: symbols, in the order of the species index.
        cutoff: Å.
        dtype: of the vectors.
    """
    edges = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    return Graph(
        torch.tensor([elements.index(symbol) for symbol in atoms.symbols], dtype=torch.long),
        torch.from_numpy(edges.centers),
        torch.from_numpy(edges.neighbors),
        torch.from_numpy(edges.vectors).to(dtype),
        torch.zeros(len(atoms), dtype=torch.long),
        len(atoms),
        torch.tensor([states.row(atoms.info)], dtype=torch.float64),
    )


def single(
    structure: Structure,
    elements: Sequence[str],
    cutoff: float,
    baseline: float,
    dtype: torch.dtype,
    head: int = 0,
) -> Batch:
    """Batch of one structure, its neighbour list included.

    Args:
        structure: the structure; absent labels become NaN.
        elements: symbols, in the order of the species index.
        cutoff: Å.
        baseline: composition energy of the structure, eV; subtracted from the energy in float64.
        dtype: of all floating-point tensors.
        head: place of the energy that the labels are of.

    Raises:
        BadInput: an element that is not in `elements`.
    """
    n = len(structure)
    edges = neighbor_list(structure.positions, structure.cell, structure.pbc, cutoff)
    labels = {}
    for name, quantity in QUANTITIES.items():
        value = structure.get(name)
        if value is None or (quantity.per_volume and structure.volume == 0.0):
            value = np.full(quantity.full_shape(n), np.nan)
        if quantity.baseline:
            value = value - baseline
        label = torch.tensor(value, dtype=dtype)
        labels[name] = label if quantity.per == "atom" else label.unsqueeze(0)
    return Batch(
        species=torch.from_numpy(_species(structure, elements)),
        centers=torch.from_numpy(edges.centers),
        neighbors=torch.from_numpy(edges.neighbors),
        vectors=torch.tensor(edges.vectors, dtype=dtype).reshape(-1, 3),
        system=torch.zeros(n, dtype=torch.long),
        n_atoms=torch.tensor([n], dtype=dtype),
        volume=torch.tensor([structure.volume], dtype=dtype),
        weight=torch.full((1,), structure.weight, dtype=dtype),
        state=torch.tensor([states.row(structure.states)], dtype=torch.float64),
        head=torch.tensor([head]),
        labels=labels,
    )


def concatenate(batches: Sequence[Batch]) -> Batch:
    """Join batches; atoms keep their order, edges stay sorted by centre.

    >>> from mlplugins.structures.dataset import read
    >>> frames = read("examples/data/li6ps5cl_pbe/test.extxyz@:2")
    >>> parts = [single(f, ["Li", "P", "S", "Cl"], 4.0, 0.0, torch.float64) for f in frames]
    >>> concatenate(parts).system.bincount()
    tensor([52, 52])
    """
    if len(batches) == 1:
        return batches[0]
    centers, neighbors, system = [], [], []
    atoms = structures = 0
    for batch in batches:
        centers.append(batch.centers + atoms)
        neighbors.append(batch.neighbors + atoms)
        system.append(batch.system + structures)
        atoms += batch.species.shape[0]
        structures += batch.n_systems
    joined = {"centers": torch.cat(centers), "neighbors": torch.cat(neighbors), "system": torch.cat(system)}
    for name in TENSORS:
        if name not in joined:
            joined[name] = torch.cat([getattr(batch, name) for batch in batches])
    labels = {name: torch.cat([batch.labels[name] for batch in batches]) for name in batches[0].labels}
    return Batch(**joined, labels=labels)


def pack(graphs: Sequence[Batch], max_edges: int = 8192) -> list[Batch]:
    """Join structures, in order, into batches of at most `max_edges` edges (at least one structure each)."""
    packed: list[Batch] = []
    waiting: list[Batch] = []
    edges = 0
    for graph in graphs:
        n = graph.centers.shape[0]
        if waiting and edges + n > max_edges:
            packed.append(concatenate(waiting))
            waiting, edges = [], 0
        waiting.append(graph)
        edges += n
    return [*packed, concatenate(waiting)] if waiting else packed


def _species(structure: Structure, elements: Sequence[str]) -> np.ndarray:
    index_of = np.full(max(atomic_numbers.values()) + 1, -1, dtype=np.int64)
    for index, symbol in enumerate(elements):
        index_of[atomic_numbers[symbol]] = index
    species = index_of[structure.numbers]
    if (species < 0).any():
        known = f" not in the model's {', '.join(elements)}"
        require_known(structure.numbers, elements, f"{structure.origin}: element(s) ", known)
    return species
