"""Models of the package nequix (JAX) and its outputs, for `test_nequix.py`. Needs an environment of its own:

    python -m venv env
    env/bin/pip install "jax[cpu]" e3nn-jax equinox jraph optax ase matscipy h5py pyyaml cloudpickle
    env/bin/pip install --no-deps nequix==0.4.5
    env/bin/python make_nequix.py small               # random models, written beside this file (data/)
    env/bin/python make_nequix.py FILE.nqx CASE       # of a published model: its outputs only

The arithmetic is that of nequix in double precision: its weights and inputs are cast. The structures are in
`structures.npz` (from `make_mace.py`), for the published models in `sevennet_0_11jul2024.npz`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import equinox as eqx
import jax
import jraph
import numpy as np
from ase import Atoms
from nequix.data import atomic_numbers_to_indices, dict_to_graphstuple, preprocess_graph
from nequix.model import Nequix, load_model, save_model

FOLDER = Path(__file__).parent / "data"
FIELDS = ("numbers", "positions", "cell", "pbc")
COMMON = {
    "atomic_numbers": [1, 8, 16],
    "cutoff": 4.5,
    "n_layers": 3,
    "radial_basis_size": 6,
    "radial_mlp_size": 8,
    "radial_mlp_layers": 2,
    "radial_polynomial_p": 5.0,
    "mlp_init_scale": 4.0,
    "avg_n_neighbors": 11.3,
    "scale": 0.7,
    "shift": -0.4,
}
SMALL = {
    "nequix_norm": {  # the options of the published models
        "hidden_irreps": "8x0e + 4x1o + 3x2e + 2x3o",
        "lmax": 3,
        "index_weights": False,
        "layer_norm": True,
    },
    "nequix_species": {  # the package's defaults
        "hidden_irreps": "6x0e + 6x1o + 6x2e",
        "lmax": 2,
        "index_weights": True,
        "layer_norm": False,
    },
}


def structures(path: Path, indices: list[str]) -> list[Atoms]:
    with np.load(path) as file:
        return [Atoms(**{field: file[f"{index}/{field}"] for field in FIELDS}) for index in indices]


def double(model: Nequix) -> Nequix:
    return jax.tree.map(lambda x: x.astype("float64") if eqx.is_array(x) else x, model)


def outputs(model: Nequix, config: dict, frames: list[Atoms]) -> dict[str, np.ndarray]:
    """Energy, forces and stress (Voigt) of every structure, `quantity/index`."""
    jax.config.update("jax_enable_x64", True)
    model = double(model)
    species = atomic_numbers_to_indices(config["atomic_numbers"])
    arrays = {}
    for k, atoms in enumerate(frames):
        known = preprocess_graph(atoms, species, config["cutoff"], False)
        known["positions"] = atoms.positions
        known["shifts"] = np.asarray(known["shifts"], dtype=np.float64)
        known["cell"] = atoms.cell.array if atoms.pbc.all() else None
        graph = dict_to_graphstuple(known)  # the model takes the last of several graphs for padding
        n_node, n_edge = len(atoms) + 1, int(known["n_edge"][0]) + 1
        graph = jraph.pad_with_graphs(graph, n_node=n_node, n_edge=n_edge, n_graph=2)
        energy, forces, stress = eqx.filter_jit(model)(graph)
        arrays[f"energy/{k}"] = np.asarray(energy[0])
        arrays[f"forces/{k}"] = np.asarray(forces)[: len(atoms)]
        if stress is not None:
            arrays[f"stress/{k}"] = np.asarray(stress[0])[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    return arrays


def with_different_norms(model: Nequix) -> Nequix:
    """Every weight of a layer norm differs; they begin as ones."""
    keys = iter(jax.random.split(jax.random.key(2), 100))
    return eqx.tree_at(
        lambda m: [w for layer in m.layers for w in layer.layer_norm.affine_weight],
        model,
        replace_fn=lambda w: w * (3 + jax.random.normal(next(keys), w.shape)),
    )


def small() -> None:
    """Random models as the package saves them."""
    for name, options in SMALL.items():
        jax.config.update("jax_enable_x64", False)
        config = {**COMMON, **options}
        arguments = {key: value for key, value in config.items() if key != "atomic_numbers"}
        model = Nequix(jax.random.key(1), n_species=3, atom_energies=[-1.0, -2.5, -4.0], **arguments)
        if config["layer_norm"]:
            model = with_different_norms(model)
        save_model(FOLDER / f"{name}.nqx", model, config)
        arrays = outputs(model, config, structures(FOLDER / "structures.npz", ["0", "1", "2"]))
        np.savez_compressed(FOLDER / f"{name}.npz", **arrays)


def published(path: str, case: str) -> None:
    model, config = load_model(path)
    frames = structures(
        FOLDER.parent / "sevennet_0_11jul2024.npz", ["molecule", "crystal", "triclinic", "gas"]
    )
    np.savez_compressed(FOLDER / f"{case}.npz", **outputs(model, config, frames))


if __name__ == "__main__":
    small() if sys.argv[1] == "small" else published(*sys.argv[1:])
