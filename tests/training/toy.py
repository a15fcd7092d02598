"""A tiny base model of two elements, frames labelled by it, and an observer that can break a run off."""

from dataclasses import asdict, replace

import numpy as np
import torch
from ase import Atoms

from mlplugins.checkpoints.native import Checkpoint
from mlplugins.models import nequip
from mlplugins.models.base import Potential
from mlplugins.models.composition import Composition
from mlplugins.structures.dataset import Structure, from_atoms
from mlplugins.training import forgetting

ELEMENTS = ["Ne", "Ar"]
OLD = Composition(ELEMENTS, [-1.5, 2.25], 2)


def base(seed: int = 0) -> Checkpoint:
    """Two layers, 4 channels, random weights."""
    parameters = nequip.Hyperparameters(cutoff=4.0, num_layers=2, num_features=4, num_basis=4, radial_mlp=[8])
    torch.manual_seed(seed)
    model = nequip.Model(ELEMENTS, parameters)
    model.average_neighbors.fill_(10.0)
    source = {"format": "mlplugins", "file": "base.ckpt", "sha256": "0" * 64}
    details = {"hyperparameters": asdict(parameters), "source": source}
    return Checkpoint(
        family="nequip",
        elements=ELEMENTS,
        baseline=OLD.energies,
        details=details,
        potential=model.eval(),
    )


def frames(n: int, seed: int, spread: float = 3.0, single_composition: bool = False) -> list[Structure]:
    """Random periodic structures of 6 atoms."""
    rng = np.random.default_rng(seed)
    found = []
    while len(found) < n:
        n_ne = 3 if single_composition else int(rng.integers(1, 6))
        cell = np.eye(3) * spread * 2 + rng.normal(0, 0.2, (3, 3))
        atoms = Atoms("Ne" * n_ne + "Ar" * (6 - n_ne), cell=cell, pbc=True)
        grid = np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1], [0, 0, 1]]) / 2
        atoms.positions = grid @ cell + rng.normal(0, 0.25, (6, 3))
        found.append(from_atoms(atoms, origin=f"frame {len(found)} of seed {seed}"))
    return found


def labelled(potential: Potential, structures: list[Structure], references: Composition = OLD):
    """Labels of a potential in float64."""
    return forgetting.labelled(forgetting.double(potential), structures, references)


def shifted(structures: list[Structure], offsets: dict[str, float]) -> list[Structure]:
    """Constant energies per element added."""
    return [
        replace(s, energy=s.energy + sum(offsets[symbol] for symbol in s.to_atoms().symbols))
        for s in structures
    ]


def other_theory(structures: list[Structure], factor: float = 1.2) -> list[Structure]:
    """All labels of the interaction scaled (energies counted from `OLD`)."""
    found = []
    for s in structures:
        offset = OLD.predict(list(s.to_atoms().symbols))
        energy = offset + factor * (s.energy - offset)
        found.append(replace(s, energy=energy, forces=factor * s.forces, stress=factor * s.stress))
    return found


class Broken(Exception):
    """What a killed process is here."""


class Quiet:
    """Observer that keeps the notes, and breaks off after an epoch if told so."""

    def __init__(self, break_after: int | None = None) -> None:
        self.notes: list[str] = []
        self.break_after = break_after

    def start(self, epoch: int, epochs: int) -> None:
        pass

    def epoch(self, row: dict[str, float], epochs: int, best: bool) -> None:
        if row["epoch"] == self.break_after:
            raise Broken

    def note(self, text: str) -> None:
        self.notes.append(text)
