"""Writes the reference data of test_nequip.py with the stock package: small models, trained for an epoch.

Run in an environment with nequip==0.19.1, never with mlplugins:

    python tests/regression/make_nequip.py

Names on the command line make these cases only. For every case NAME, in `data/`: `nequip_NAME.ckpt.xz` is
the checkpoint as `nequip-train` writes it, `nequip_NAME.nequip.zip.xz` what `nequip-package build` makes of
it, less the source code inside, and `nequip_NAME.npz` what the package's own ASE calculator makes of the
structures in `structures.npz` (from `make_mace.py`), for `elements` of those of `make_sevennet.py`.
"""

from __future__ import annotations

import lzma
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import ase.io
import numpy as np
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

FOLDER = Path(__file__).parent / "data"
TYPES = ["H", "O", "S"]
COMMON = {
    "_target_": "nequip.model.NequIPGNNModel",
    "seed": 3,
    "model_dtype": "float64",
    "r_max": 4.0,
    "num_layers": 3,
    "l_max": 2,
    "num_bessels": 5,
    "avg_num_neighbors": 7.3,
    "per_type_energy_scales": {"H": 0.8, "O": 0.9, "S": 1.3},
    "per_type_energy_shifts": {"H": -13.1, "O": -20.5, "S": -10.25},
}
CASES = {
    "average": {
        "parity": False,
        "num_features": [4, 3, 2],
        "type_embed_num_features": 5,
        "radial_mlp_depth": 2,
        "radial_mlp_width": 6,
        "bessel_trainable": True,
        "polynomial_cutoff_p": 5,
    },
    "parity": {
        "parity": True,
        "num_features": 3,
        "radial_mlp_width": 6,
        "readout_mlp_hidden_layers_depth": 1,
        "readout_mlp_hidden_layers_width": 5,
        "per_type_energy_shifts_trainable": True,
    },
    "degree_four": {
        "parity": True,
        "l_max": 4,
        "num_features": 2,
        "num_layers": 3,
        "radial_mlp_width": 3,
        "avg_num_neighbors": 1.5,
        "per_type_energy_scales": 5.0,
    },
    "pairs": {
        "parity": False,
        "l_max": 1,
        "num_layers": 2,
        "num_features": 2,
        "radial_mlp_width": 4,
        "avg_num_neighbors": {"H": 3.0, "O": 5.0, "S": 8.0},
        "per_edge_type_cutoff": {"H": 2.5, "O": {"H": 3.0, "O": 3.5, "S": 4.0}},
        "pair_potential": {
            "_target_": "nequip.nn.pair_potential.ZBL",
            "units": "metal",
            "chemical_species": TYPES,
            "polynomial_cutoff_p": 5,
        },
    },
    "elements": {
        "parity": False,
        "num_layers": 2,
        "num_features": 2,
        "radial_mlp_width": 4,
        "per_type_energy_scales": 1.1,
        "per_type_energy_shifts": -3.5,
    },
}
"""`average` and `pairs` are trained with averaged (EMA) weights, the others without."""


def configuration(name, options, kind, frames):
    types = types_of(name)
    transforms = [
        {"_target_": "nequip.data.transforms.NeighborListTransform", "r_max": COMMON["r_max"]},
        {
            "_target_": "nequip.data.transforms.ChemicalSpeciesToAtomTypeMapper",
            "model_type_names": types,
        },
    ]
    if "per_edge_type_cutoff" in options:
        transforms[0].update(per_edge_type_cutoff=options["per_edge_type_cutoff"], type_names=types)
        transforms.reverse()
    loader = {"_target_": "torch.utils.data.DataLoader", "batch_size": 2}
    return {
        "run": ["train"],
        "data": {
            "_target_": "nequip.data.datamodule.ASEDataModule",
            "seed": 1,
            "train_file_path": frames,
            "val_file_path": frames,
            "transforms": transforms,
            "train_dataloader": loader,
            "val_dataloader": loader,
        },
        "trainer": {
            "_target_": "lightning.Trainer",
            "max_epochs": 1,
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "callbacks": [
                {
                    "_target_": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "dirpath": ".",
                    "filename": "best",
                }
            ],
        },
        "training_module": {
            "_target_": f"nequip.train.{kind}",
            "loss": {
                "_target_": "nequip.train.EnergyForceLoss",
                "per_atom_energy": True,
                "coeffs": {"total_energy": 1.0, "forces": 1.0},
            },
            "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.01},
            "val_metrics": {
                "_target_": "nequip.train.EnergyForceMetrics",
                "coeffs": {"total_energy_mae": 1.0, "forces_mae": 1.0},
            },
            "model": {**COMMON, **options, "type_names": types},
        },
    }


def frames(rng):
    """Labels are noise: the weights only have to move."""
    for _ in range(6):
        atoms = Atoms("OHHSO", positions=rng.uniform(0, 4, (5, 3)), cell=[5, 5, 5], pbc=True)
        forces = rng.normal(size=(5, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=float(rng.normal()), forces=forces)
        yield atoms


def structures(name):
    """Three small ones; or a molecule, a crystal, a triclinic cell, and a gas of 89 elements."""
    path, indices = FOLDER / "structures.npz", ["0", "1", "2"]
    if name == "elements":
        path = FOLDER.parent / "sevennet_0_11jul2024.npz"
        indices = ["molecule", "crystal", "triclinic", "gas"]
    with np.load(path) as file:
        fields = ("numbers", "positions", "cell", "pbc")
        return [Atoms(**{field: file[f"{index}/{field}"] for field in fields}) for index in indices]


def types_of(name):
    return sorted(set(structures(name)[-1].symbols)) if name == "elements" else TYPES


def results(path, frames):
    from nequip.integrations.ase import NequIPCalculator

    calculator = NequIPCalculator._from_saved_model(
        str(path), device="cpu", chemical_species_to_atom_type_map=True
    )
    arrays = {}
    for index, atoms in enumerate(frames):
        calculator.calculate(atoms)
        for quantity in ("energy", "forces", "stress"):
            if quantity != "stress" or atoms.cell.rank == 3:
                arrays[f"{quantity}/{index}"] = np.asarray(calculator.results[quantity], dtype=np.float64)
    return arrays


def without_code(package, target):
    """The package without the sources and the second, equal network."""
    with zipfile.ZipFile(package) as source, zipfile.ZipFile(target, "w") as small:
        for entry in source.namelist():
            if not entry.endswith((".py", "compile_model.pkl", "example_data.pkl")):
                small.writestr(zipfile.ZipInfo(entry), source.read(entry))


def main():
    for name, options in CASES.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        kind = "EMALightningModule" if name in ("average", "pairs") else "NequIPLightningModule"
        with tempfile.TemporaryDirectory() as text:
            folder = Path(text)
            ase.io.write(folder / "frames.xyz", list(frames(np.random.default_rng(0))))
            config = configuration(name, options, kind, "frames.xyz")
            (folder / "c.yaml").write_text(yaml.safe_dump(config))
            command = [sys.executable, "-W", "ignore", "-m", "nequip.scripts.train"]
            command += ["-cp", text, "-cn", "c", f"hydra.run.dir={text}/log"]
            subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
            packed = lzma.compress((folder / "best.ckpt").read_bytes())
            package = folder / "best.nequip.zip"
            command = [sys.executable, "-W", "ignore", "-m", "nequip.scripts.package", "build"]
            subprocess.run([*command, "best.ckpt", package], check=True, cwd=folder)
            arrays = results(package, structures(name))
            without_code(package, folder / "small.zip")
            (FOLDER / f"nequip_{name}.nequip.zip.xz").write_bytes(
                lzma.compress((folder / "small.zip").read_bytes())
            )
            again = results(folder / "best.ckpt", structures(name))
            assert all(np.allclose(arrays[key], again[key], rtol=0, atol=1e-12) for key in arrays)
        (FOLDER / f"nequip_{name}.ckpt.xz").write_bytes(packed)
        np.savez_compressed(FOLDER / f"nequip_{name}.npz", **arrays)
        print(name, len(packed) // 1024, "KiB", *[arrays[key] for key in arrays if key[0] == "e"])


if __name__ == "__main__":
    main()
