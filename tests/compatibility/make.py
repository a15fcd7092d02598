"""Writes `data/`: what 0.1.0 wrote, with its numbers. Run with the package of that version:

    git worktree add ../mlplugins-0.1.0 c95238e
    PYTHONPATH=../mlplugins-0.1.0 OMP_NUM_THREADS=1 python tests/compatibility/make.py

Random weights, Lennard-Jones labels; nothing here is physics.
"""

from __future__ import annotations

import io
import json
import lzma
import os
import sys
import tarfile
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.io import write
from mlplugins.engines.artifact import load
from mlplugins.export.tables import tabulated

import mlplugins
from mlplugins import models
from mlplugins.checkpoints import exported, native
from mlplugins.cli.main import main as mlp
from mlplugins.export.metatomic import Description, save
from mlplugins.models import molecular_kernel, soap_gap
from mlplugins.models.base import Potential
from mlplugins.testing.families import inputs
from mlplugins.training.solvers._soap_rows import whiten

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.compatibility.machine import machine  # noqa: E402

DATA = Path(__file__).parent / "data"
ELEMENTS = ["Ar", "Kr"]
BASELINE = [-1.25, 2.5]
MOLECULE = ["H", "C", "O"]
NEQUIP = {"cutoff": 4.5, "num_layers": 2, "num_features": 3, "num_basis": 4, "radial_mlp": [5], "zbl": True}
MACE = {
    "cutoff": 4.5,
    "num_channels": 2,
    "l_max": 1,
    "max_L": 1,
    "correlation": 2,
    "num_basis": 4,
    "radial_mlp": [5],
    "readout_mlp": 4,
}
OPTIONS = {
    "nequip": NEQUIP,
    "mace": MACE,
    "lennard-jones": {"epsilon": 0.0104, "sigma": 3.4, "cutoff": 6.0},
    "sum": {
        "terms": [{"family": "nequip", **NEQUIP, "cutoff": 3.9}, {"family": "lennard-jones", "cutoff": 5.0}]
    },
}
FILES = {
    "nequip-float64": ("nequip", "float64", False),
    "nequip-float32": ("nequip", "float32", False),
    "nequip-portable": ("nequip", "float64", True),
    "nequip-tables": ("nequip", "float64", False),
    "mace-float64": ("mace", "float64", False),
    "mace-float32": ("mace", "float32", False),
    "lennard-jones-float64": ("lennard-jones", "float64", False),
    "sum-float64": ("sum", "float64", False),
}


def structures() -> dict[str, Atoms]:
    crystal = bulk("Ar", "fcc", a=5.4, cubic=True) * (2, 1, 1)
    crystal.symbols[[0, 3, 5]] = "Kr"
    crystal.rattle(0.2, seed=1)
    triclinic = crystal.copy()
    triclinic.set_cell(crystal.cell.array @ [[1, 0, 0], [0.3, 1.1, 0], [-0.2, 0.25, 0.9]], scale_atoms=True)
    cluster = Atoms("Ar3Kr2", [[0, 0, 0], [3.7, 0, 0], [0, 3.9, 0.2], [0.1, 0.3, 4.0], [3.0, 3.1, 2.5]])
    return {"crystal": crystal, "triclinic": triclinic, "cluster": cluster}


def molecules() -> dict[str, Atoms]:
    positions = np.array([[0.1, 0.0, 0.0], [0.8, 0.6, 0.0], [-0.5, 0.7, 0.3], [0.1, -0.9, 1.0]])
    return {"free": Atoms("OH2C", positions)}


def family(name: str) -> tuple[Potential, dict]:
    module = models.family(name)
    parameters = module.Hyperparameters(**OPTIONS[name])
    torch.manual_seed(5)
    return module.Model(ELEMENTS, parameters).eval(), asdict(parameters)


def gap() -> tuple[Potential, dict]:
    parameters = soap_gap.Hyperparameters(cutoff=4.0, n_max=3, l_max=2, two_body=4)
    potential = soap_gap.Model(ELEMENTS, parameters)
    x = inputs(structures()["crystal"], ELEMENTS, 4.0)
    p = potential.features(x.species, x.centers, x.neighbors, x.vectors, x.n_centers).detach()
    generator = torch.Generator().manual_seed(0)
    points = [p[x.species == k] for k in range(2)]
    potential.set_sparse(points)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    with torch.no_grad():
        potential.weights.copy_(random(len(p)))
        potential.pair_weights.copy_(random(*potential.pair_weights.shape))
    blocks = [whiten(potential.kernel(each, each), 1.0) for each in points]
    potential.whitening = torch.block_diag(*blocks)
    potential.posterior = 0.1 * random(len(p), 5)
    potential.pair_posterior = 0.1 * random(potential.pair_weights.numel(), 5)
    potential.prior_variance = torch.ones((), dtype=torch.float64)
    potential.has_uncertainty = True
    return potential, asdict(parameters)


def kernel(name: str, **options: object) -> tuple[Potential, dict]:
    parameters = molecular_kernel.Hyperparameters(sigma=1.0, cutoff=8.0, **options)
    potential = models.family(name).Model(MOLECULE, parameters)
    generator = torch.Generator().manual_seed(0)
    potential.species = torch.tensor([2, 0, 0, 1])
    potential.scale, potential.shift = torch.ones(6).double(), torch.zeros(6).double()
    potential.pairs = torch.arange(6)[None]
    potential.points = torch.rand(5, 6, dtype=torch.float64, generator=generator)
    potential.values = torch.randn(5, dtype=torch.float64, generator=generator)
    potential.slopes = torch.randn(5, 6, dtype=torch.float64, generator=generator)
    potential.prepare()
    return potential, asdict(parameters)


def plain(atoms: Atoms) -> dict:
    return {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
        "pbc": atoms.pbc.tolist(),
    }


def numbers(path: Path, frames: dict[str, Atoms]) -> dict:
    artifact = load(path)
    found = {}
    for name, atoms in frames.items():
        [result] = artifact.evaluate([atoms], uncertainty=artifact.has_uncertainty)
        found[name] = {
            "structure": plain(atoms),
            "energy": result.energy,
            "energies": result.energies.tolist(),
            "forces": result.forces.tolist(),
            "stress": None if result.stress is None else result.stress.tolist(),
            "uncertainty": result.uncertainty,
        }
    return found


def read_again(path: Path, frames: dict[str, Atoms]) -> dict:
    """Energies of what fine-tuning starts from, in float64."""
    read = exported.read(path)
    potential = read.potential.double()
    return {
        name: float(potential(*inputs(atoms, read.elements, potential.cutoff))["energy"].detach().sum())
        for name, atoms in frames.items()
    }


def pack(path: Path, name: str) -> None:
    (DATA / f"{name}.xz").write_bytes(lzma.compress(path.read_bytes(), preset=9))


def model_files(folder: Path, record: dict) -> None:
    for name, (kind, dtype, portable) in FILES.items():
        potential, parameters = family(kind)
        if name == "nequip-tables":
            potential, _ = tabulated(potential, ELEMENTS, 33, list(structures().values()))
        details = {"hyperparameters": parameters, "n_parameters": 1}
        path = folder / f"{name}.pt"
        save(potential, path, Description(kind, ELEMENTS, BASELINE, name, details), dtype, portable)
        record[name] = {"dtype": dtype, "family": kind, "numbers": numbers(path, structures())}
        if name != "nequip-tables":
            record[name]["read"] = read_again(path, structures())
    inverse = {"descriptor": "inverse"}
    for name, kind, (potential, parameters), elements, frames in (
        ("soap-gap-float64", "soap-gap", gap(), ELEMENTS, structures()),
        ("kreg-float64", "kreg", kernel("kreg", descriptor="relative-inverse"), MOLECULE, molecules()),
        ("sgdml-float64", "sgdml", kernel("sgdml", **inverse, kernel="matern52"), MOLECULE, molecules()),
    ):
        path = folder / f"{name}.pt"
        details = {"hyperparameters": parameters}
        save(potential, path, Description(kind, elements, [0.5] * len(elements), name, details), "float64")
        record[name] = {"dtype": "float64", "family": kind, "numbers": numbers(path, frames)}
    for name in record:
        pack(folder / f"{name}.pt", f"{name}.pt")


def training(folder: Path, record: dict) -> None:
    """Checkpoints of gradient and closed-form training, with the model.pt that `export` makes of them."""
    lj = LennardJones(epsilon=0.0104, sigma=3.4, rc=6.0, smooth=True)
    for name, n, seed in (("train", 8, 0), ("test", 2, 100)):
        frames = []
        for k in range(n):
            atoms = bulk("Ar", "fcc", a=5.2 + 0.05 * k, cubic=True)
            atoms.rattle(0.2, seed=seed + k)
            atoms.calc = lj
            atoms.get_stress()
            frames.append(atoms)
        write(folder / f"{name}.extxyz", frames)
    data = "data: {train: train.extxyz, validation: 0.25, test: test.extxyz}\n"
    gradient = "training: {epochs: 2, batch_size: 3, devices: 1, dtype: float64}\nseed: 1\n"
    small = "cutoff: 4.5, num_layers: 2, num_features: 2, num_basis: 4, radial_mlp: [4]"
    sparse = "training: {n_sparse: 10}\nseed: 1\n"
    nequip = f"model: {{family: nequip, {small}}}\n"
    tune = "base: {checkpoint: nequip/checkpoint.ckpt}\nfinetune: {strategy: %s}\n"
    configurations = {
        "nequip": ("train", data + nequip + gradient),
        "soap-gap": (
            "train",
            data + "model: {family: soap-gap, cutoff: 4.5, n_max: 3, l_max: 2}\n" + sparse,
        ),
        "lora": ("finetune", tune % "lora, rank: 1" + data + gradient),
        "delta": ("finetune", tune % "delta" + data + nequip + gradient),
    }
    frames = structures()
    for atoms in frames.values():
        atoms.symbols = ["Ar"] * len(atoms)
    found = {}
    for name, (verb, text) in configurations.items():
        (folder / f"{name}.yaml").write_text(text)
        if mlp([verb, f"{name}.yaml", "-o", name]) != 0:
            raise SystemExit(name)
        read = native.read(Path(name, "checkpoint.ckpt"))
        potential = read.potential.double()
        found[name] = {
            "family": read.family,
            "baseline": read.baseline,
            "energy": {
                key: float(potential(*inputs(atoms, read.elements, potential.cutoff))["energy"].sum())
                for key, atoms in frames.items()
            },
            "model": numbers(folder / name / "model.pt", frames),
        }
        pack(folder / name / "checkpoint.ckpt", f"{name}-checkpoint.ckpt")
    pack(folder / "nequip" / "model.pt", "nequip-trained.pt")
    for file in (*(f"{name}.yaml" for name in configurations), "train.extxyz", "test.extxyz"):
        (DATA / file).write_text((folder / file).read_text())
    record["runs"] = found


def campaigns(folder: Path, record: dict) -> None:
    """A finished campaign of each engine, as folders in one archive."""
    potential, parameters = family("lennard-jones")
    description = Description("lennard-jones", ELEMENTS, [0.0, 0.0], details={"hyperparameters": parameters})
    save(potential, folder / "argon.pt", description, "float64")
    atoms = bulk("Ar", "fcc", a=5.7, cubic=True) * (2, 2, 1)
    atoms.rattle(0.05, seed=1)
    write(folder / "argon.extxyz", atoms)
    text = (
        "model: argon.pt\nstructure: argon.extxyz\ntemperatures: [100]\ntimestep: 4.0\n"
        "equilibration: {steps: 20}\nsteps: 60\ndump_interval: 5\nlog_interval: 10\nrestart_interval: 20\n"
        "mobile: {species: Ar, charge: 1}\n"
    )
    (folder / "md.yaml").write_text(text)
    names = ["argon.pt", "argon.extxyz", "md.yaml"]
    for engine in ("ase", "lammps", "ipi"):
        if mlp(["simulate", "md.yaml", "--engine", engine, "-o", engine]) != 0:
            raise SystemExit(engine)
        names.append(engine)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            archive.add(folder / name, name)
    (DATA / "campaigns.tar.xz").write_bytes(lzma.compress(buffer.getvalue(), preset=9))


def main() -> None:
    DATA.mkdir(exist_ok=True)
    record: dict = {}
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        folder = Path(name)
        model_files(folder, record)
        if "--models" not in sys.argv:
            training(folder, record)
            campaigns(folder, record)
    record["machine"] = machine()
    (DATA / "numbers.json").write_text(json.dumps(record, separators=(",", ":")) + "\n")
    print(mlplugins.__version__, sum(p.stat().st_size for p in DATA.iterdir()), "bytes")


if __name__ == "__main__":
    main()
