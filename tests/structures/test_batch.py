import pytest
import torch

from mlplugins.errors import BadInput
from mlplugins.models import lennard_jones
from mlplugins.structures import batch
from mlplugins.structures.dataset import from_atoms
from mlplugins.testing.structures import standard_structures

ELEMENTS = ["S", "Li"]
MODEL = lennard_jones.Model(ELEMENTS, lennard_jones.Hyperparameters(epsilon=0.1, sigma=2.2, cutoff=5.0))


def energies(b):
    per_atom = MODEL(b.graph())["energy"]
    return torch.zeros(b.n_systems, dtype=torch.float64).index_add(0, b.system, per_atom)


def test_a_batch_gives_what_its_structures_give_alone():
    """A failure means that edges or atoms of different structures are mixed up."""
    structures = [from_atoms(atoms) for atoms in standard_structures(("Li", "S")).values()]
    parts = [batch.single(s, ELEMENTS, 5.0, 0.0, torch.float64) for s in structures]
    together = batch.concatenate(parts)
    assert bool((together.centers.diff() >= 0).all())
    assert together.n_atoms.tolist() == [len(s) for s in structures]
    expected = torch.cat([energies(p) for p in parts])
    torch.testing.assert_close(energies(together), expected, rtol=0, atol=1e-12)


def test_baseline_is_subtracted_in_float64():
    atoms = standard_structures(("Li", "S"))["molecule"]
    atoms.info["energy"] = -123456.78125 - 2**-7
    structure = from_atoms(atoms)
    single = batch.single(structure, ELEMENTS, 5.0, -123456.78125, torch.float32)
    assert single.labels["energy"].item() == -(2**-7)  # float32 alone resolves 2**-7 only below 131072/2**24


def test_unknown_element_is_refused():
    structure = from_atoms(standard_structures(("Li", "S"))["molecule"], origin="a.xyz, frame 3")
    with pytest.raises(BadInput, match=r"a.xyz, frame 3: element\(s\) S not in the model's Li"):
        batch.single(structure, ["Li"], 5.0, 0.0, torch.float64)
