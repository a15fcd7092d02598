"""Writes the reference data of test_nequip06.py with nequip 0.6: small models, trained for an epoch.

Run in an environment of its own, never with mlplugins (nequip 0.6 needs e3nn < 0.6):

    python -m venv env && env/bin/pip install torch==2.13.0 && env/bin/pip install nequip==0.6.2 e3nn==0.4.4
    TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 env/bin/python tests/regression/make_nequip06.py

For every case NAME, in `data/`: `nequip06_NAME.tar.xz` holds `best_model.pth` and `config.yaml` as
`nequip-train` writes them, and `nequip06_NAME.npz` what the package's own ASE calculator makes of the
structures in `structures.npz` (from `make_mace.py`; it refuses the lone atom), and for `elements` of those of
`make_sevennet.py`. `nequip06_deployed.pth.xz` is what `nequip-deploy` writes.
"""

from __future__ import annotations

import lzma
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import ase.io
import numpy as np
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

FOLDER = Path(__file__).parent / "data"
COMMON = {
    "root": "runs",
    "run_name": "run",
    "seed": 3,
    "dataset_seed": 1,
    "default_dtype": "float64",
    "model_dtype": "float64",
    "r_max": 4.0,
    "num_layers": 3,
    "l_max": 2,
    "nonlinearity_type": "gate",
    "nonlinearity_scalars": {"e": "silu", "o": "tanh"},
    "nonlinearity_gates": {"e": "silu", "o": "tanh"},
    "num_basis": 5,
    "BesselBasis_trainable": True,
    "PolynomialCutoff_p": 6,
    "invariant_layers": 2,
    "invariant_neurons": 6,
    "use_sc": True,
    "dataset": "ase",
    "dataset_file_name": "frames.xyz",
    "chemical_symbols": ["H", "O", "S"],
    "wandb": False,
    "verbose": "error",
    "n_train": 4,
    "n_val": 2,
    "learning_rate": 0.01,
    "batch_size": 2,
    "max_epochs": 1,
    "loss_coeffs": {"forces": 1.0, "total_energy": 1.0},
    "optimizer_name": "Adam",
}
CASES = {
    "parity": {"parity": True, "num_features": 4, "per_species_rescale_scales_trainable": False},
    "even": {
        "parity": False,
        "num_features": 4,
        "avg_num_neighbors": 7.3,
        "PolynomialCutoff_p": 5,
        "invariant_layers": 1,
        "per_species_rescale_scales": [0.8, 0.9, 1.3],
        "per_species_rescale_shifts": [-13.1, -20.5, -10.25],
        "per_species_rescale_shifts_trainable": True,
    },
    "irreps": {
        "chemical_embedding_irreps_out": "5x0e",
        "feature_irreps_hidden": "6x0e+4x1o+3x2e",
        "irreps_edge_sh": "0e+1o+2e",
        "conv_to_output_hidden_irreps_out": "3x0e",
        "use_ema": True,
        "ema_decay": 0.9,
        "global_rescale_scale": 1.7,
    },
    "elements": {"parity": False, "num_features": 2, "l_max": 1, "invariant_neurons": 4, "r_max": 4.5},
}


def frames(rng):
    """Labels are noise: the weights only have to move."""
    for _ in range(6):
        atoms = Atoms("OHHSO", positions=rng.uniform(0, 4, (5, 3)), cell=[5, 5, 5], pbc=True)
        forces = rng.normal(size=(5, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=float(rng.normal()), forces=forces)
        yield atoms


def structures(name):
    """A triclinic crystal and a molecule; or a molecule, a crystal, a triclinic cell and 89 elements."""
    path, indices = FOLDER / "structures.npz", ["0", "1"]
    if name == "elements":
        path = FOLDER.parent / "sevennet_0_11jul2024.npz"
        indices = ["molecule", "crystal", "triclinic", "gas"]
    with np.load(path) as file:
        fields = ("numbers", "positions", "cell", "pbc")
        return [Atoms(**{field: file[f"{index}/{field}"] for field in fields}) for index in indices]


def results(path, frames, symbols):
    from nequip.ase import NequIPCalculator

    names = {symbol: symbol for symbol in symbols}
    calculator = NequIPCalculator.from_deployed_model(path, device="cpu", species_to_type_name=names)
    arrays = {}
    for index, atoms in enumerate(frames):
        calculator.calculate(atoms)
        for quantity in ("energy", "forces", "stress"):
            if quantity != "stress" or atoms.cell.rank == 3:
                arrays[f"{quantity}/{index}"] = np.asarray(calculator.results[quantity], dtype=np.float64)
    return arrays


def main():
    for name, options in CASES.items():
        with tempfile.TemporaryDirectory() as text:
            folder = Path(text)
            ase.io.write(folder / "frames.xyz", list(frames(np.random.default_rng(0))))
            builders = ["SimpleIrrepsConfig"] * ("l_max" in {**COMMON, **options} and name != "irreps")
            builders += ["EnergyModel", "PerSpeciesRescale", "StressForceOutput", "RescaleEnergyEtc"]
            config = {**COMMON, **options, "model_builders": builders}
            if name == "elements":
                config["chemical_symbols"] = sorted(set(structures(name)[-1].symbols))
            if name == "irreps":
                del config["l_max"]
            (folder / "c.yaml").write_text(yaml.safe_dump(config))
            command = [sys.executable, "-W", "ignore", "-m"]
            subprocess.run([*command, "nequip.scripts.train", "c.yaml"], check=True, cwd=folder)
            run = folder / "runs" / "run"
            build = ["nequip.scripts.deploy", "build", "--train-dir", str(run), "deployed.pth"]
            subprocess.run([*command, *build], check=True, cwd=folder)
            arrays = results(folder / "deployed.pth", structures(name), config["chemical_symbols"])
            with tarfile.open(FOLDER / f"nequip06_{name}.tar.xz", "w:xz") as archive:
                for file in ("best_model.pth", "config.yaml"):
                    archive.add(run / file, file)
            if name == "even":
                packed = lzma.compress((folder / "deployed.pth").read_bytes())
                (FOLDER / "nequip06_deployed.pth.xz").write_bytes(packed)
        np.savez_compressed(FOLDER / f"nequip06_{name}.npz", **arrays)
        print(name, *[value for key, value in arrays.items() if key.startswith("energy")])


if __name__ == "__main__":
    main()
