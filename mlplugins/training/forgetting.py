"""Forgetting: errors on a fixed base set before and after fine-tuning, and structures labelled by a model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import torch

from mlplugins.models.base import Potential
from mlplugins.models.composition import Composition
from mlplugins.quantities import QUANTITIES, Results
from mlplugins.structures.dataset import Structure
from mlplugins.structures.metrics import metrics
from mlplugins.training import data, results

RATTLE_A = 0.1
"""Standard deviation of the displacements of the probes, Å."""

STRAIN = 0.02
"""Standard deviation of their strain components."""

N_PROBES = 20
"""Largest number of probes."""


def probes(structures: Sequence[Structure], seed: int = 0) -> list[Structure]:
    """Rattled and strained copies, without labels, of up to 20 of the structures.

    >>> from mlplugins.structures.dataset import read
    >>> frames = read("examples/data/li6ps5cl_pbe/test.extxyz")
    >>> len(probes(frames)), probes(frames)[0].energy
    (9, None)
    """
    generator = np.random.default_rng(seed)
    step = -(-len(structures) // N_PROBES)
    copies = []
    for structure in structures[::step]:
        strain = generator.normal(0.0, STRAIN, (3, 3))
        deformation = np.eye(3) + 0.5 * (strain + strain.T)
        copies.append(
            replace(
                structure,
                positions=structure.positions @ deformation
                + generator.normal(0.0, RATTLE_A, structure.positions.shape),
                cell=structure.cell @ deformation,
                origin=f"rattled copy of {structure.origin}",
            ).labelled({})
        )
    return copies


def evaluate(potential: Potential, structures: Sequence[Structure], references: Composition) -> list[Results]:
    """Predictions in the potential's precision, `references` added to the energies."""
    dtype = next(chain(potential.parameters(), potential.buffers())).dtype
    graphs = data.graphs(structures, references, potential.cutoff, dtype)
    return results.predict(potential, structures, graphs, references)


def labelled(
    potential: Potential, structures: Sequence[Structure], references: Composition
) -> list[Structure]:
    """The structures with what a model predicts as their labels."""
    predicted = evaluate(potential, structures, references)
    return [
        s.labelled({name: p.get(name) for name in QUANTITIES})
        for s, p in zip(structures, predicted, strict=True)
    ]


def errors(potential: Potential, structures: Sequence[Structure], references: Composition) -> dict[str, Any]:
    """Errors against the labels of the base set, energies with the references of the base."""
    return metrics(structures, evaluate(potential, structures, references))


def double(potential: Potential) -> Potential:
    """A copy in float64."""
    return copy.deepcopy(potential).to(torch.float64).eval()
