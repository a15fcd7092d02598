"""Structures that the scripts `make_*.py` evaluated with the home packages, and the comparison with them."""

from pathlib import Path

import numpy as np
from ase import Atoms

from mlplugins.models.base import energy_derivatives
from mlplugins.structures.batch import graph_of

HERE = Path(__file__).parent
FIELDS = ("numbers", "positions", "cell", "pbc")


def structures(name: str) -> list[Atoms]:
    """Of a case: a triclinic crystal, a molecule, a lone atom of H, O, S.

    Of the cases `elements…`: a molecule, a crystal, a triclinic cell, and a gas of 89 elements.
    """
    path, indices = HERE / "data" / "structures.npz", ["0", "1", "2"]
    if name.startswith("elements"):
        path = HERE / "sevennet_0_11jul2024.npz"
        indices = ["molecule", "crystal", "triclinic", "gas"]
    with np.load(path) as file:
        return [Atoms(**{field: file[f"{index}/{field}"] for field in FIELDS}) for index in indices]


def assert_home(case: str, index: int, results: dict, relative: float = 1e-10) -> None:
    """Energy, forces and, for a crystal, stress (Voigt) to a fraction of the home package's largest value."""
    with np.load(HERE / "data" / f"{case}.npz") as home:
        for quantity, value in results.items():
            expected = home[f"{quantity}/{index}"]
            atol = relative * float(np.abs(expected).max())
            np.testing.assert_allclose(value, expected, rtol=0, atol=atol, err_msg=f"{quantity} of {index}")


def assert_checkpoint_is_home(checkpoint, case: str, index: int, atoms: Atoms) -> None:
    """A checkpoint as read (plain torch, its own precision) against the home package."""
    x = graph_of(atoms, checkpoint.elements, checkpoint.potential.cutoff)
    x.vectors.requires_grad_()
    energy = checkpoint.potential(x)["energy"]
    forces, virial = energy_derivatives(energy, x, 1)
    baseline = sum(checkpoint.baseline[int(z)] for z in x.species)
    results = {"energy": float(energy.detach().sum()) + baseline, "forces": forces.detach().numpy()}
    if atoms.pbc.all():
        stress = virial[0].detach().numpy() / atoms.get_volume()
        results["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    assert_home(case, index, results)
