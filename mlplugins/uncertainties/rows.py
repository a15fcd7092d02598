"""What the posterior of a last layer is made of and tested on: features of frames, slopes, errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mlplugins.models.base import Potential
from mlplugins.structures.batch import Batch, pack

STEP = 1e-4
"""Of the central differences, Å: their error, of order STEP², is 1e-6 of a slope or less."""

EDGES_AT_ONCE = 16384


@dataclass(frozen=True)
class FeatureRows:
    """Of S frames with energies that are E_B = F_B · w + … in the weights w of the last layer.

    Attributes:
        features: (S, T), F_B = Σ_i f_i, eV.
        slopes: (S, K, T), ∂F_B/∂r · u in K random directions u of all atoms at once (each component standard
            normal), eV/Å.
        energy_errors: (S,), E_B − label, eV; NaN without a label.
        force_errors: (S, K), −(forces − label) · u, eV/Å; NaN without labels.
        n_atoms: (S,).
    """

    features: Tensor
    slopes: Tensor
    energy_errors: Tensor
    force_errors: Tensor
    n_atoms: Tensor


@torch.no_grad()
def rows(
    potential: Potential, graphs: Sequence[Batch], n_directions: int, single: bool = False
) -> FeatureRows:
    """Features and errors of frames.

    The slopes come from central differences: two evaluations for one direction give the slopes of all
    features, which by backward passes takes T. Their outer products have the mean JᵀJ, J = ∂F_B/∂r (3n, T).

    Args:
        potential: a model with the entry `feature`, in float64.
        graphs: one batch for each frame, the composition baseline subtracted from its energy.
        n_directions: K.
        single: along one random coordinate of one atom each, not all: slopes of force components.
    """
    draw = partial(_components if single else _all, generator=torch.Generator().manual_seed(0))
    found = [_rows(potential, packed, n_directions, draw) for packed in pack(graphs, EDGES_AT_ONCE)]
    columns = zip(*((r.features, r.slopes, r.energy_errors, r.force_errors, r.n_atoms) for r in found))
    return FeatureRows(*(torch.cat(column) for column in columns))


def _rows(
    potential: Potential, batch: Batch, n_directions: int, draw: Callable[[Batch], Tensor]
) -> FeatureRows:
    energies, features = _summed(potential, batch, batch.vectors)
    slopes, errors = [], []
    for _ in range(n_directions):
        u = draw(batch)
        shift = STEP * (u[batch.neighbors] - u[batch.centers])
        ahead, behind = (_summed(potential, batch, batch.vectors + sign * shift) for sign in (1.0, -1.0))
        slope, along = ((a - b) / (2 * STEP) for a, b in zip(ahead, behind))  # of the energy, of the features
        slopes.append(along)
        labelled = _by_frame((batch.labels["forces"].double() * u).sum(dim=1), batch)
        errors.append(slope + labelled)
    return FeatureRows(
        features,
        torch.stack(slopes, dim=1) if slopes else features.new_zeros(batch.n_systems, 0, features.shape[1]),
        energies - batch.labels["energy"].double(),
        torch.stack(errors, dim=1) if errors else energies.new_zeros(batch.n_systems, 0),
        batch.n_atoms.double(),
    )


def _all(batch: Batch, generator: torch.Generator) -> Tensor:
    """Standard normal displacements of all atoms, (N, 3)."""
    return torch.randn(batch.species.shape[0], 3, generator=generator, dtype=torch.float64)


def _components(batch: Batch, generator: torch.Generator) -> Tensor:
    """In every frame one Cartesian coordinate of one atom, 1; all else 0; (N, 3)."""
    random = torch.rand(batch.n_systems, generator=generator, dtype=torch.float64)
    sizes = 3 * batch.n_atoms.long()
    chosen = torch.cumsum(sizes, dim=0) - 1 - (random * sizes).long()
    u = torch.zeros(3 * batch.species.shape[0], dtype=torch.float64)
    u[chosen] = 1.0
    return u.reshape(-1, 3)


def _summed(potential: Potential, batch: Batch, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Energies (S,) and features (S, T) of the frames."""
    found = potential(batch.graph(vectors))
    return _by_frame(found["energy"], batch), _by_frame(found["feature"], batch)


def _by_frame(x: Tensor, batch: Batch) -> Tensor:
    return x.new_zeros(batch.n_systems, *x.shape[1:]).index_add(0, batch.system, x)
