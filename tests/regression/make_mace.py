"""Writes the reference data of test_mace.py with the stock package: small random models with every option.

Run in an environment with mace-torch==0.3.16 (which pins e3nn==0.4.4), never with mlplugins:

    TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 python tests/regression/make_mace.py

Each `data/mace_NAME.npz` holds configuration, state and the home package's energy, forces and stress of the
structures in `data/structures.npz`.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "peers"))
import mace_stock

FOLDER = Path(__file__).parent / "data"
COMMON = {
    "r_max": 4.0,
    "num_bessel": 5,
    "max_ell": 2,
    "hidden_irreps": "3x0e+3x1o",
    "MLP_irreps": "4x0e",
    "radial_MLP": [6, 7],
    "atomic_numbers": [1, 8, 16],
    "avg_num_neighbors": 7.3,
    "energies": [-13.1, -20.5, -10.25],
    "scale": 0.83,
    "shift": -0.17,
}
DENSITY = {
    "interaction_cls_first": "RealAgnosticDensityInteractionBlock",
    "interaction_cls": "RealAgnosticDensityResidualInteractionBlock",
}
CASES = {
    "plain": {"max_ell": 3, "atomic_numbers": [1, 8, 16]},
    "first_without_residual": {
        "interaction_cls_first": "RealAgnosticInteractionBlock",
        "hidden_irreps": "2x0e+2x1o+2x2e",
        "num_interactions": 3,
        "correlation": 2,
    },
    "density_agnesi_zbl": {
        **DENSITY,
        "distance_transform": "Agnesi",
        "pair_repulsion": True,
        "num_polynomial_cutoff": 6,
        "correlation": 2,
    },
    "residual_density_soft": {
        "interaction_cls_first": "RealAgnosticDensityResidualInteractionBlock",
        "interaction_cls": "RealAgnosticDensityInteractionBlock",
        "distance_transform": "Soft",
        "hidden_irreps": "3x0e",
    },
    "without_scale_one_layer": {
        "model_cls": "MACE",
        "num_interactions": 1,
        "pair_repulsion": True,
        "correlation": 1,
    },
    "two_heads": {
        "heads": ["a", "b"],
        "energies": [[-13.1, -20.5, -10.25], [-0.5, -1.5, -2.5]],
        "scale": [0.83, 1.2],
        "shift": [-0.17, 0.4],
        "correlation": 2,
    },
    "float32": {"correlation": 2},
}


def structures():
    """A crystal in a small triclinic cell, a molecule with short bonds, and one lone atom."""
    rng = np.random.default_rng(7)
    crystal = bulk("S", "fcc", a=4.3) * (2, 1, 1)
    crystal.set_cell(crystal.cell.array + rng.normal(0, 0.15, (3, 3)), scale_atoms=True)
    crystal += Atoms("OH", scaled_positions=[[0.3, 0.4, 0.2], [0.7, 0.5, 0.6]], cell=crystal.cell)
    crystal.rattle(0.1, rng=rng)
    molecule = Atoms(
        "OHHSO", [[0, 0, 0], [0.6, 0.55, 0.1], [-0.5, 0.7, 0.2], [0.3, -1.1, 0.9], [1.7, 2.0, -1.3]]
    )
    return [crystal, molecule, Atoms("O", positions=[[0.0, 0.0, 0.0]])]


def results(model, frames, dtype, head):
    from mace.calculators import MACECalculator

    calculator = MACECalculator(models=model, device="cpu", default_dtype=dtype, head=head)
    arrays = {}
    for index, atoms in enumerate(frames):
        calculator.calculate(atoms, properties=["energy", "forces", "stress"])
        arrays[f"energy/{index}"] = np.array(calculator.results["energy"], dtype=np.float64)
        arrays[f"forces/{index}"] = np.asarray(calculator.results["forces"], dtype=np.float64)
        if atoms.cell.rank == 3:
            arrays[f"stress/{index}"] = np.asarray(calculator.results["stress"], dtype=np.float64)
    return arrays


def main():
    import torch

    FOLDER.mkdir(exist_ok=True)
    frames = structures()
    fields = {}
    for index, atoms in enumerate(frames):
        fields[f"{index}/numbers"] = atoms.numbers
        fields[f"{index}/positions"] = atoms.positions
        fields[f"{index}/cell"] = atoms.cell.array
        fields[f"{index}/pbc"] = atoms.pbc
    np.savez_compressed(FOLDER / "structures.npz", **fields)
    for seed, (name, options) in enumerate(CASES.items()):
        dtype = "float32" if name == "float32" else "float64"
        model, config = mace_stock.build({**COMMON, **options}, seed=seed, dtype=dtype)
        with torch.no_grad():  # what training may have changed, away from the defaults
            model.radial_embedding.bessel_fn.bessel_weights.mul_(1.01)
            for value in getattr(model.radial_embedding, "distance_transform", torch.nn.Module()).buffers():
                if value.numel() == 1:
                    value.mul_(1.02)
        versions = {
            package: importlib.metadata.version(package) for package in ("mace-torch", "e3nn", "torch")
        }
        head = config["heads"][-1]
        arrays = results(model, frames, dtype, head)
        path = FOLDER / f"mace_{name}.npz"
        mace_stock.write(path, model, config, head=np.array(head), versions=np.array(str(versions)), **arrays)
        print(
            f"{path.name}: {path.stat().st_size / 1024:.0f} KiB, energies",
            *[arrays[f"energy/{i}"] for i in range(3)],
        )


if __name__ == "__main__":
    main()
