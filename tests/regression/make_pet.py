"""Writes the reference data of test_pet.py: small PET models, trained by metatrain for a few epochs.

Run in an environment of its own, never with mlplugins:

    python -m venv env && env/bin/pip install torch==2.13.0 && env/bin/pip install metatrain==2026.4.1
    env/bin/python tests/regression/make_pet.py [pet] [pet_elements]

`data/pet.pt.xz` is the file of `mtt train`, `data/pet.npz` what metatomic's own ASE calculator makes of it in
that environment; `data/pet_elements.*` likewise, of a model that knows 89 elements.
"""

from __future__ import annotations

import importlib.metadata
import lzma
import subprocess
import sys
import tempfile
from pathlib import Path

import ase.io
import numpy as np
import yaml
from ase import Atoms
from ase.calculators.lj import LennardJones

HERE = Path(__file__).parent
TRAIN = HERE.parents[1] / "examples" / "data" / "li6ps5cl_pbe" / "train.extxyz"
OPTIONS = {
    "architecture": {
        "name": "pet",
        "model": {
            "cutoff": 4.0,
            "d_pet": 8,
            "d_node": 8,
            "d_head": 8,
            "d_feedforward": 8,
            "num_heads": 2,
            "num_gnn_layers": 2,
            "num_attention_layers": 1,
        },
        "training": {"batch_size": 4, "num_epochs": 60, "learning_rate": 0.003},
    },
    "seed": 1,
    "base_precision": 64,
    "device": "cpu",
    "training_set": {
        "systems": {"read_from": "train.xyz", "length_unit": "angstrom"},
        "targets": {"energy": {"key": "energy", "unit": "eV", "forces": True, "stress": True}},
    },
    "validation_set": 0.2,
    "test_set": 0.0,
}


def structures() -> list[Atoms]:
    """A crystal of the data, a molecule, and a triclinic cell."""
    crystal = ase.io.read(TRAIN, 0)
    crystal.calc = None
    corners = [[0, 0, 0], [1.2, 1.2, 1.2], [-1.2, -1.2, 1.2], [1.2, -1.2, -1.2], [-1.2, 1.2, -1.2]]
    molecule = Atoms("PS4", positions=np.array(corners))
    cell = [[5.1, 0, 0], [1.2, 5.6, 0], [-0.9, 1.4, 6.3]]
    scaled = [[0.1, 0.1, 0.1], [0.6, 0.2, 0.1], [0.2, 0.7, 0.3], [0.7, 0.6, 0.6], [0.2, 0.2, 0.7]]
    return [crystal, molecule, Atoms("Li2PSCl", scaled_positions=scaled, cell=cell, pbc=True)]


def structures_of_elements() -> list[Atoms]:
    """A molecule, a crystal, a triclinic cell, and a gas of 89 elements."""
    with np.load(HERE / "sevennet_0_11jul2024.npz") as file:
        return [
            Atoms(**{field: file[f"{index}/{field}"] for field in ("numbers", "positions", "cell", "pbc")})
            for index in ("molecule", "crystal", "triclinic", "gas")
        ]


def frames_of_elements() -> list[Atoms]:
    """Rattled copies of a gas of 89 elements with the labels of a Lennard-Jones potential."""
    gas = structures_of_elements()[3]
    frames = []
    for seed in range(8):
        frame = gas.copy()
        frame.rattle(0.1, seed=seed)
        frame.calc = LennardJones(sigma=2.0, epsilon=0.1, rc=4.0)
        frame.get_stress()
        frames.append(frame)
    return frames


def make(name: str, frames: list[Atoms], tests: list[Atoms], epochs: int) -> None:
    """Train on `frames`, evaluate `tests`."""
    from metatomic_ase import MetatomicCalculator

    arrays = {"versions": np.array([importlib.metadata.version(p) for p in ("metatrain", "torch")])}
    OPTIONS["architecture"]["training"]["num_epochs"] = epochs
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for atoms in frames:  # under the names that metatrain looks for
            energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(False)
            atoms.calc = None
            atoms.info = {"energy": energy, "stress": stress}
            atoms.arrays["forces"] = forces
        ase.io.write(folder / "train.xyz", frames)
        (folder / "options.yaml").write_text(yaml.safe_dump(OPTIONS))
        command = [str(Path(sys.executable).parent / "mtt"), "train", "options.yaml", "-o", "model.pt"]
        subprocess.run(command, cwd=folder, check=True)
        calculator = MetatomicCalculator(folder / "model.pt", device="cpu")
        for index, atoms in enumerate(tests):
            atoms.calc = calculator
            for field in ("numbers", "positions", "cell", "pbc"):
                arrays[f"{index}/{field}"] = np.asarray(getattr(atoms, field))
            arrays[f"{index}/energy"] = np.array(atoms.get_potential_energy())
            arrays[f"{index}/forces"] = atoms.get_forces()
            if atoms.pbc.all():
                arrays[f"{index}/stress"] = atoms.get_stress()
        (HERE / "data" / f"{name}.pt.xz").write_bytes(lzma.compress((folder / "model.pt").read_bytes()))
    np.savez_compressed(HERE / "data" / f"{name}.npz", **arrays)


def main() -> None:
    cases = {
        "pet": lambda: (ase.io.read(TRAIN, ":"), structures(), 60),
        "pet_elements": lambda: (frames_of_elements(), structures_of_elements(), 3),
    }
    for name in sys.argv[1:] or cases:
        make(name, *cases[name]())


if __name__ == "__main__":
    main()
