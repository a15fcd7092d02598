"""Same numbers as mace-torch, from data that make_mace.py wrote with that package."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

from mlplugins.checkpoints.mace import HomeConfig, from_state
from mlplugins.errors import BadInput
from mlplugins.models.base import energy_derivatives
from mlplugins.testing.families import inputs

DATA = Path(__file__).parent / "data"
NAMES = sorted(path.stem.removeprefix("mace_") for path in DATA.glob("mace_*.npz"))


def _stored(name):
    with np.load(DATA / f"mace_{name}.npz") as file:
        config = HomeConfig(**json.loads(str(file["config"])))
        state = {
            key.removeprefix("state/"): torch.from_numpy(file[key])
            for key in file
            if key.startswith("state/")
        }
        rest = {key: file[key] for key in file if not key.startswith("state/")}
    return config, state, rest


def _structures():
    with np.load(DATA / "structures.npz") as file:
        count = len({key.split("/")[0] for key in file})
        return [
            Atoms(**{field: file[f"{index}/{field}"] for field in ("numbers", "positions", "cell", "pbc")})
            for index in range(count)
        ]


def _evaluate(checkpoint, atoms):
    dtype = next(checkpoint.potential.parameters()).dtype
    x = inputs(atoms, checkpoint.elements, checkpoint.potential.cutoff, dtype)
    vectors = x.vectors.requires_grad_()
    energy = checkpoint.potential(*x)["energy"]
    forces, virial = energy_derivatives(energy, vectors, (x.centers, x.neighbors), x.system, 1)
    baseline = sum(checkpoint.baseline[int(z)] for z in x.species)
    total = float(energy.detach().double().sum()) + baseline
    return total, forces.detach().double().numpy(), virial[0].detach().double().numpy()


def test_every_case_is_there():
    assert len(NAMES) == 7


@pytest.mark.parametrize("name", NAMES)
def test_energies_forces_and_stress_are_those_of_the_home_package(name):
    config, state, rest = _stored(name)
    checkpoint = from_state(config, state, str(rest["head"]))
    tolerance = 2e-5 if name == "float32" else 1e-10
    for index, atoms in enumerate(_structures()):
        energy, forces, virial = _evaluate(checkpoint, atoms)
        assert energy == pytest.approx(float(rest[f"energy/{index}"]), rel=tolerance)
        home = rest[f"forces/{index}"]
        np.testing.assert_allclose(forces, home, rtol=0, atol=tolerance * float(np.abs(home).max()))
        if f"stress/{index}" in rest:
            voigt = (virial / atoms.get_volume()).reshape(9)[[0, 4, 8, 5, 2, 1]]
            home = rest[f"stress/{index}"]
            np.testing.assert_allclose(voigt, home, rtol=0, atol=tolerance * float(np.abs(home).max()))


def test_precision_is_that_of_the_weights():
    config, state, _ = _stored("float32")
    assert {p.dtype for p in from_state(config, state).potential.parameters()} == {torch.float32}


def test_a_head_must_be_chosen_and_known():
    config, state, _ = _stored("two_heads")
    with pytest.raises(BadInput, match="has the heads a, b; choose one"):
        from_state(config, state)
    with pytest.raises(BadInput, match="no head 'c'; the model has a, b"):
        from_state(config, state, "c")


def test_unknown_options_are_refused():
    config, state, _ = _stored("plain")
    for name, value in (
        ("radial_type", "gaussian"),
        ("interaction_cls", "RealAgnosticResidualNonLinearInteractionBlock"),
        ("hidden_irreps", "3x0e+2x1o"),
        ("apply_cutoff", False),
    ):
        changed = HomeConfig(**{**config.__dict__, name: value})
        with pytest.raises(BadInput, match=f"MACE: '{name}' is "):
            from_state(changed, state)


def test_missing_and_left_over_entries_are_refused():
    config, state, _ = _stored("plain")
    without = {name: tensor for name, tensor in state.items() if name != "products.0.linear.weight"}
    with pytest.raises(BadInput, match=r"no entry 'products\.0\.linear\.weight'"):
        from_state(config, without)
    with pytest.raises(BadInput, match=r"without a place .*: les\.charges"):
        from_state(config, {**state, "les.charges": torch.zeros(3)})


def test_coupling_coefficients_of_another_sign_are_refused():
    config, state, _ = _stored("plain")
    name = next(name for name in state if "conv_tp" in name and name.endswith("_w3j_1_2_1"))
    with pytest.raises(BadInput, match=r"_w3j_1_2_1' differs from this package's Clebsch–Gordan"):
        from_state(config, {**state, name: -state[name]})
