"""Small argon data labelled by the Lennard-Jones family, and the configuration that learns it in seconds."""

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from mlplugins.models import lennard_jones
from mlplugins.models.base import energy_derivatives
from mlplugins.structures import batch
from mlplugins.structures.dataset import from_atoms

REFERENCE = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters(epsilon=0.05, sigma=3.4, cutoff=5.5))


def label(atoms: Atoms) -> Atoms:
    """Energy, forces and stress of the Lennard-Jones reference."""
    b = batch.single(from_atoms(atoms), ["Ar"], 5.5, 0.0, torch.float64)
    graph = b.graph(b.vectors.requires_grad_())
    energy = REFERENCE(graph)["energy"].sum()
    forces, virial = energy_derivatives(energy, graph, 1)
    s = virial[0].detach().numpy() / atoms.get_volume()
    atoms.calc = SinglePointCalculator(
        atoms,
        energy=energy.item(),
        forces=forces.detach().numpy(),
        stress=s.reshape(9)[[0, 4, 8, 5, 2, 1]],
    )
    return atoms


def argon(n: int, seed: int) -> list[Atoms]:
    """Rattled fcc argon of 4 atoms at several densities."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        atoms = bulk("Ar", "fcc", a=rng.uniform(5.2, 5.6), cubic=True)
        atoms.positions += rng.normal(0.0, 0.15, (len(atoms), 3))
        frames.append(label(atoms))
    return frames


CONFIG = """
data: {{train: train.extxyz, validation: 0.25, test: test.extxyz}}
model: {{family: nequip, cutoff: 5.5, num_layers: 1, num_features: 4, num_basis: 4, radial_mlp: [8]}}
training: {{epochs: {epochs}, batch_size: 3, lr: 0.02, dtype: float64, devices: 1, {more}}}
seed: 3
"""
