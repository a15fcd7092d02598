"""Writes the reference data of test_mace.py with the stock package: small random models with every option.

Run in an environment with mace-torch==0.3.16 (which pins e3nn==0.4.4), never with mlplugins:

    TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 python tests/regression/make_mace.py

Each `data/mace_NAME.npz` holds configuration, state and the home package's energy, forces and stress of the
structures in `data/structures.npz`. `data/mace_NAME.model.xz` is the whole model as that package saves it;
for these the outputs in the other precision are stored, too.

`data/states_mace_charge_spin.npz` (`make_mace.py states`) has the results of the whole model of that case for
several charges and spins, in float64.

Names on the command line make these cases only. The cases `elements…` know the 89 elements of SevenNet-0 and
are evaluated on the structures of `make_sevennet.py`: a molecule, a crystal, a triclinic cell, all elements.

The cases of OLD come from mace-torch==0.3.3, whose files lack what came later (heads, distance transforms,
repulsion, …), as those of the first published models do:

    PYTHONPATH=folder_with_mace_torch_0.3.3 TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 \\
        python tests/regression/make_mace.py old
"""

from __future__ import annotations

import importlib.metadata
import inspect
import lzma
import sys
import tempfile
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
NON_LINEAR = {
    "interaction_cls_first": "RealAgnosticResidualNonLinearInteractionBlock",
    "interaction_cls": "RealAgnosticResidualNonLinearInteractionBlock",
    "readout_cls": "NonLinearBiasReadoutBlock",
    "apply_cutoff": False,
    "hidden_irreps": "2x0e+2x1o",
    "radial_MLP": [4],
    "correlation": 2,
}
"""As in MH-1 and OMOL."""
CONDITIONS = {"charge": -1, "spin": 2}
"""Of the case `charge_spin`."""
STATES = ((0, 1), (2, 3), (-2, 1), (1, 2), (-1, 2))
"""Charges and spins for which its whole model is evaluated."""
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
    "last_readout_one_product": {
        "use_last_readout_only": True,
        "use_agnostic_product": True,
        "num_interactions": 3,
        "hidden_irreps": "2x0e+2x1o",
        "correlation": 2,
    },
}
NEWEST = {
    "non_linear_heads": {
        **NON_LINEAR,
        "heads": ["a", "b"],
        "energies": [[-13.1, -20.5, -10.25], [-0.5, -1.5, -2.5]],
        "scale": [0.83, 1.2],
        "shift": [-0.17, 0.4],
        "edge_irreps": "1x0e+1x1o+1x2e",
        "use_agnostic_product": True,
        "pair_repulsion": True,
    },
    "charge_spin": {
        **NON_LINEAR,
        "interaction_cls_first": "RealAgnosticResidualInteractionBlock",
        "distance_transform": "Agnesi",
        "embedding_specs": {
            "total_charge": {
                "type": "categorical",
                "per": "graph",
                "num_classes": 5,
                "emb_dim": 3,
                "offset": 2,
            },
            "total_spin": {"type": "continuous", "per": "graph", "in_dim": 1, "emb_dim": 3},
        },
        "use_embedding_readout": True,
    },
}
"""Cases of what came with the models of 2025."""
SEVENNET = FOLDER.parent / "sevennet_0_11jul2024.npz"
OLD = {"old": {"correlation": 2, "interaction_cls_first": "RealAgnosticInteractionBlock"}}
SMALLEST = {"hidden_irreps": "2x0e+2x1o", "MLP_irreps": "2x0e", "radial_MLP": [4], "correlation": 2}
ALL = {
    "elements": {},
    "elements_density_agnesi_zbl": {**DENSITY, "distance_transform": "Agnesi", "pair_repulsion": True},
    "elements_two_heads_soft": {
        "interaction_cls_first": "RealAgnosticInteractionBlock",
        "distance_transform": "Soft",
        "heads": ["a", "b"],
        "scale": [0.83, 1.2],
        "shift": [-0.17, 0.4],
    },
}
"""Cases of 89 elements: as in MP-0b and MPA-0, and all else that differs in released models."""
FILES = (
    "charge_spin",
    "density_agnesi_zbl",
    "elements_density_agnesi_zbl",
    "elements_two_heads_soft",
    "float32",
    "last_readout_one_product",
    "non_linear_heads",
    "old",
    "two_heads",
)
"""Cases of which the whole model is kept."""


def all_elements():
    """A molecule, a crystal, a triclinic cell, and a gas of 89 elements."""
    with np.load(SEVENNET) as file:
        fields = ("numbers", "positions", "cell", "pbc")
        names = ("molecule", "crystal", "triclinic", "gas")
        return [Atoms(**{field: file[f"{name}/{field}"] for field in fields}) for name in names]


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


def states():
    """Of the whole model, for several charges and spins."""
    arrays = {"states": np.array(STATES)}
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "charge_spin.model"
        whole.write_bytes(lzma.decompress((FOLDER / "mace_charge_spin.model.xz").read_bytes()))
        for index, (charge, spin) in enumerate(STATES):
            found = results(whole, structures(), "float64", None, {"charge": charge, "spin": spin})
            arrays.update({f"{index}/{key}": value for key, value in found.items()})
    np.savez_compressed(FOLDER / "states_mace_charge_spin.npz", **arrays)


def results(path, frames, dtype, head, conditions=CONDITIONS):
    import torch
    from mace.calculators import MACECalculator

    torch.set_default_dtype(getattr(torch, dtype))  # the mask of several heads takes it
    options = {} if head is None else {"head": head}
    calculator = MACECalculator(model_paths=str(path), device="cpu", default_dtype=dtype, **options)
    arrays = {}
    for index, atoms in enumerate(frames):
        atoms = atoms.copy()
        atoms.info.update(conditions)  # a model without embeddings does not look at them
        calculator.calculate(atoms, properties=["energy", "forces", "stress"])
        arrays[f"energy/{index}"] = np.array(calculator.results["energy"], dtype=np.float64)
        arrays[f"forces/{index}"] = np.asarray(calculator.results["forces"], dtype=np.float64)
        if atoms.cell.rank == 3:
            arrays[f"stress/{index}"] = np.asarray(calculator.results["stress"], dtype=np.float64)
    return arrays


def main():
    import torch
    from mace.modules.models import MACE

    known = inspect.signature(MACE).parameters
    for name in [name for name in mace_stock.DEFAULTS if name not in known and name != "model_cls"]:
        del mace_stock.DEFAULTS[name]
    FOLDER.mkdir(exist_ok=True)
    frames = structures()
    fields = {}
    for index, atoms in enumerate(frames):
        fields[f"{index}/numbers"] = atoms.numbers
        fields[f"{index}/positions"] = atoms.positions
        fields[f"{index}/cell"] = atoms.cell.array
        fields[f"{index}/pbc"] = atoms.pbc
    wanted = sys.argv[1:]
    if not wanted:
        np.savez_compressed(FOLDER / "structures.npz", **fields)
    numbers = sorted(set(all_elements()[-1].numbers.tolist()))
    energies = np.random.default_rng(5).normal(-5, 2, len(numbers)).tolist()
    for name, options in ALL.items():
        rows = [energies, energies[::-1]] if "heads" in options else energies
        CASES[name] = {**SMALLEST, "atomic_numbers": numbers, "energies": rows, **options}
    CASES.update(NEWEST)
    for seed, (name, options) in enumerate((OLD if wanted == ["old"] else CASES).items()):
        if wanted and name not in wanted:
            continue
        evaluated = all_elements() if name in ALL else frames
        dtype = "float32" if name == "float32" else "float64"
        model, config = mace_stock.build({**COMMON, **options}, seed=seed, dtype=dtype)
        with torch.no_grad():  # what training may have changed, away from the defaults
            model.radial_embedding.bessel_fn.bessel_weights.mul_(1.01)
            for value in getattr(model.radial_embedding, "distance_transform", torch.nn.Module()).buffers():
                if value.numel() == 1:
                    value.mul_(1.02)
            for key, value in model.named_parameters():
                if key.endswith(("bias", "beta", "source_embedding.weight", "target_embedding.weight")):
                    value.add_(0.3 * torch.randn_like(value))
        versions = {
            package: importlib.metadata.version(package) for package in ("mace-torch", "e3nn", "torch")
        }
        head = config.get("heads", ["Default"])[-1]
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / f"mace_{name}.model"
            torch.save(model, whole)
            head_or_none = head if "heads" in config else None
            arrays = results(whole, evaluated, dtype, head_or_none)
            if name in FILES:
                other = "float64" if dtype == "float32" else "float32"
                more = results(whole, evaluated, other, head_or_none)
                arrays.update({f"{other}/{key}": value for key, value in more.items()})
                (FOLDER / f"{whole.name}.xz").write_bytes(lzma.compress(whole.read_bytes()))
        path = FOLDER / f"mace_{name}.npz"
        mace_stock.write(path, model, config, head=np.array(head), versions=np.array(str(versions)), **arrays)
        print(
            f"{path.name}: {path.stat().st_size / 1024:.0f} KiB, energies",
            *[value for key, value in arrays.items() if key.startswith("energy/")],
        )


if __name__ == "__main__":
    states() if sys.argv[1:] == ["states"] else main()
