"""Labels without the terms that a model does not learn: core repulsion, dispersion."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ase.data import chemical_symbols

from mlplugins.checkpoints import added
from mlplugins.checkpoints.added import Term
from mlplugins.models.base import Potential, energy_derivatives
from mlplugins.quantities import QUANTITIES
from mlplugins.structures import batch
from mlplugins.structures.dataset import Structure


def without(terms: Sequence[Term], structures: list[Structure]) -> list[Structure]:
    """The structures, their energies, forces and stresses less those of `terms` (in float64).

    >>> from mlplugins.structures.dataset import read
    >>> frames = read("examples/data/li6ps5cl_pbe/test.extxyz@:1")
    >>> left = without([{"family": "zbl", "inner": 2.0, "outer": 4.0}], frames)
    >>> round(frames[0].energy - left[0].energy, 3)
    68.407

    Raises:
        BadInput: a term without parameters for an element of the structures.
    """
    elements = [chemical_symbols[z] for z in sorted({int(z) for s in structures for z in s.numbers})]
    for term in terms:
        model = added.made(term, elements)
        # one structure at a time: the lists of a far-reaching term are long
        structures = [_difference(s, model, elements) for s in structures]
    return structures


def _difference(s: Structure, model: Potential, elements: list[str]) -> Structure:
    x = batch.single(s, elements, model.cutoff, 0.0, torch.float64)
    graph = x.graph(x.vectors.requires_grad_())
    energy = model(graph)["energy"]
    forces, virial = (t.detach().numpy() for t in energy_derivatives(energy, graph, 1))
    left = {name: s.get(name) for name in QUANTITIES}
    if s.energy is not None:
        left["energy"] = s.energy - float(energy.detach().sum())
    if s.forces is not None:
        left["forces"] = s.forces - forces
    if s.stress is not None:
        left["stress"] = s.stress - virial[0] / s.volume
    return s.labelled(left)
