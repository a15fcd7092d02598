"""Reference outputs of the package sevenn, for `test_sevennet.py`. Needs an environment of its own:

    python -m venv env && env/bin/pip install torch sevenn==0.13.0
    env/bin/python make_sevennet.py released OUTPUT      # the checkpoints inside the wheel
    env/bin/python make_sevennet.py small OUTPUT         # random models (all of SMALL, or those named)

The old order of weights and the old sign convention of e3nn come from an older pair of packages:

    env_old/bin/pip install torch sevenn==0.10.4 e3nn==0.4.4
    TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 env_old/bin/python make_sevennet.py small OUTPUT

float64 outputs are those of the same model cast to double, with its Clebsch–Gordan buffers, which sevenn
stores in float32, refreshed to full precision (sign kept).
"""

from __future__ import annotations

import sys
from pathlib import Path

import e3nn
import numpy as np
import sevenn
import sevenn._const as const
import sevenn._keys as KEY
import torch
from ase import Atoms
from ase.build import bulk, molecule
from e3nn import o3
from sevenn.atom_graph_data import AtomGraphData
from sevenn.calculator import SevenNetCalculator
from sevenn.model_build import build_E3_equivariant_model
from sevenn.train.dataload import unlabeled_atoms_to_graph
from sevenn.train.trainer import Trainer

RELEASED = {
    "sevennet_0_11jul2024": "SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth",
    "sevennet_0_22may2024": "SevenNet_0__22May2024/checkpoint_sevennet_0.pth",
    "sevennet_l3i5": "SevenNet_l3i5/checkpoint_l3i5.pth",
    "sevennet_mf_0": "SevenNet_MF_0/checkpoint_sevennet_mf_0.pth",
}
ELEMENTS = ["H", "C", "O", "Na", "Cl", "Li", "P", "S"]
SMALL = {
    "even": {  # the options of SevenNet-0
        "irreps_manual": ["8x0e", *["8x0e+4x1e+3x2e"] * 2, "8x0e"],
        "lmax": 2,
        "is_parity": False,
        "cutoff_function": {"cutoff_function_name": "XPLOR", "cutoff_on": 4.0},
        "self_connection_type": "linear",
    },
    "l3": {  # the options of l3i5
        "irreps_manual": ["6x0e", *["6x0e+4x1e+3x2e+2x3e"] * 2, "6x0e"],
        "lmax": 3,
        "is_parity": False,
        "cutoff_function": {"cutoff_function_name": "poly_cut", "poly_cut_p_value": 6},
        "self_connection_type": "linear",
    },
    "solid": {  # the harmonics of the SevenNet-0 of May 2024
        "irreps_manual": ["4x0e", "4x0e+3x1e+2x2e", "4x0e"],
        "num_convolution_layer": 2,
        "lmax": 2,
        "is_parity": False,
        "_normalize_sph": False,
    },
    "parity": {  # sevenn's defaults, deep enough for odd scalars
        "channel": 4,
        "lmax": 2,
        "num_convolution_layer": 4,
        "is_parity": True,
        "self_connection_type": "nequip",
    },
    "tasks": {  # everything that can depend on the fidelity
        "channel": 4,
        "lmax": 2,
        "is_parity": True,
        "self_connection_type": "nequip",
        "use_modality": True,
        "_number_of_modalities": 3,
        "_modal_map": {"PBE": 1, "r2SCAN": 0, "wB97": 2},
        "use_modal_node_embedding": True,
        "use_modal_self_inter_intro": True,
        "use_modal_self_inter_outro": True,
        "use_modal_output_block": True,
        "use_modal_wise_shift": True,
        "use_modal_wise_scale": True,
    },
}


def structures(elements: list[str]) -> dict[str, Atoms]:
    """A molecule, a crystal, a triclinic cell, and a gas of all elements."""
    random = np.random.default_rng(7)
    ethanol = molecule("CH3CH2OH")
    ethanol.rattle(0.05, seed=1)
    salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    salt.rattle(0.2, seed=2)
    cell = [[5.1, 0, 0], [1.2, 5.6, 0], [-0.9, 1.4, 6.3]]
    scaled = [
        [0.1, 0.1, 0.1],
        [0.6, 0.2, 0.1],
        [0.2, 0.7, 0.3],
        [0.7, 0.6, 0.6],
        [0.2, 0.2, 0.7],
        [0.6, 0.1, 0.6],
    ]
    triclinic = Atoms("Li2PS2Cl", scaled_positions=scaled, cell=cell, pbc=True)
    n = len(elements)
    side = int(np.ceil(n ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[:n]
    gas = Atoms(elements, 2.9 * grid + random.uniform(-0.4, 0.4, (n, 3)), cell=[2.9 * side] * 3, pbc=True)
    return {"molecule": ethanol, "crystal": salt, "triclinic": triclinic, "gas": gas}


def stock(calculator: SevenNetCalculator, atoms: Atoms) -> dict[str, np.ndarray]:
    """Energy, forces, stress (Voigt) of sevenn's own calculator, float32."""
    atoms = atoms.copy()
    atoms.calc = calculator
    result = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    result["stress"] = atoms.get_stress() if atoms.pbc.all() else np.full(6, np.nan)
    return {name: np.asarray(value, dtype=np.float64) for name, value in result.items()}


def double(calculator: SevenNetCalculator, atoms: Atoms) -> dict[str, np.ndarray]:
    """The same of the model in double precision."""
    model = calculator.model.double()
    data = AtomGraphData.from_numpy_dict(unlabeled_atoms_to_graph(atoms, calculator.cutoff))
    vectors = unlabeled_atoms_to_graph(atoms, calculator.cutoff)[KEY.EDGE_VEC]  # still in float64
    data[KEY.EDGE_VEC] = torch.tensor(vectors, dtype=torch.float64)
    if calculator.modal:
        data[KEY.DATA_MODALITY] = calculator.modal
    data[KEY.CELL_VOLUME] = torch.tensor(abs(np.linalg.det(atoms.cell.array)), dtype=torch.float64)
    output = model(data)
    # the sum of the energies in float64, without the total's rounding
    result = {"energy": output[KEY.ATOMIC_ENERGY].sum(), "forces": output[KEY.PRED_FORCE]}
    result["stress"] = -output[KEY.PRED_STRESS][[0, 1, 2, 4, 5, 3]]
    if not atoms.pbc.all():
        result["stress"] = torch.full((6,), torch.nan)
    return {name: value.detach().numpy() for name, value in result.items()}


def refresh_couplings(model: torch.nn.Module) -> None:
    """Clebsch–Gordan buffers in float64, with the sign they have."""
    for name, buffer in model.named_buffers():
        if "_w3j_" in name:
            degrees = [int(text) for text in name.rsplit("_w3j_")[1].split("_")]
            exact = o3.wigner_3j(*degrees, dtype=torch.float64)
            sign = torch.sign((exact * buffer).sum())
            buffer.copy_(sign * exact)


def evaluate(checkpoint: str, elements: list[str], precision: int, task: str | None) -> dict[str, np.ndarray]:
    """Outputs for all structures, as `structure/quantity32` or `structure/quantity64`."""
    calculator = SevenNetCalculator(checkpoint, device="cpu", **({"modal": task} if task else {}))
    function = stock
    original = torch.Tensor.float
    if precision == 64:
        function = double
        calculator.model.double()
        with torch.no_grad():
            refresh_couplings(calculator.model)
        torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign,assignment]  # of the one-hot
    arrays = {}
    for name, atoms in structures(elements).items():
        arrays |= {f"{name}/{key}{precision}": value for key, value in function(calculator, atoms).items()}
    torch.Tensor.float = original  # type: ignore[method-assign]
    return arrays


def outputs(checkpoint: Path, elements: list[str], task: str | None = None) -> dict[str, np.ndarray]:
    """All reference arrays of one checkpoint, with the structures."""
    versions = [sevenn.__version__, e3nn.__version__, torch.__version__]
    arrays: dict[str, np.ndarray] = {"versions": np.array(versions)}
    for name, atoms in structures(elements).items():
        arrays[f"{name}/numbers"] = atoms.numbers
        arrays[f"{name}/positions"] = atoms.positions
        arrays[f"{name}/cell"] = atoms.cell.array
        arrays[f"{name}/pbc"] = atoms.pbc
    for precision in (32, 64):
        arrays |= evaluate(str(checkpoint), elements, precision, task)
    return arrays


def save(stem: Path, checkpoint: Path, elements: list[str], tasks: list[str]) -> None:
    """One file of references, or one for each task."""
    for task in tasks or [None]:
        name = stem.name if task is None else f"{stem.name}-{task}"
        np.savez_compressed(stem.with_name(f"{name}.npz"), **outputs(checkpoint, elements, task))


def make_released(folder: Path, *names: str) -> None:
    """References of the checkpoints inside the wheel (all, or those named)."""
    root = Path(sevenn.__file__).parent / "pretrained_potentials"
    for name in names or RELEASED:
        config = torch.load(root / RELEASED[name], map_location="cpu", weights_only=False)["config"]
        save(
            folder / name,
            root / RELEASED[name],
            sorted(config["chemical_species"]),
            list(config.get("_modal_map") or []),
        )


def make_small(folder: Path, *names: str) -> None:
    """Random models, as sevenn's trainer saves them, and their references."""
    version = sevenn.__version__.replace(".", "")
    for name, options in ((name, SMALL[name]) for name in names or SMALL):
        torch.manual_seed(3)
        numbers = Atoms(ELEMENTS).numbers
        random = np.random.default_rng(5)
        config = {
            **const.DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG,
            **const.DEFAULT_TRAINING_CONFIG,
            "version": sevenn.__version__,
            "_model_type": "E3_equivariant_model",
            "chemical_species": ELEMENTS,
            "_number_of_species": len(ELEMENTS),
            "_type_map": {int(z): k for k, z in enumerate(numbers)},
            "num_convolution_layer": 3,
            "cutoff": 4.7,
            "weight_nn_hidden_neurons": [8, 8],
            "shift": random.normal(-3, 1, len(ELEMENTS)).tolist(),
            "scale": random.uniform(0.5, 1.5, len(ELEMENTS)).tolist(),
            "conv_denominator": [4.0, 5.0, 6.0, 7.0],
            "scheduler_param": {"gamma": 0.99},
            "device": "cpu",
            **options,
        }
        config["conv_denominator"] = config["conv_denominator"][: config["num_convolution_layer"]]
        if "_modal_map" in config:  # energies of their own for each task
            shape = (config["_number_of_modalities"], len(ELEMENTS))
            config["shift"] = random.normal(-3, 1, shape).tolist()
            config["scale"] = random.uniform(0.5, 1.5, shape).tolist()
        checkpoint = Trainer.from_config(build_E3_equivariant_model(config), config).get_checkpoint_dict()
        stem = f"sevennet_{version}_{name}"
        torch.save({**checkpoint, "config": config, "epoch": 0}, folder / f"{stem}.pth")
        save(folder / stem, folder / f"{stem}.pth", ELEMENTS, list(config.get("_modal_map") or []))


if __name__ == "__main__":
    {"released": make_released, "small": make_small}[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
