"""Same numbers as mace-torch, from data that make_mace.py wrote with that package."""

import json
import lzma
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mlplugins import convert
from mlplugins.checkpoints import mace
from mlplugins.checkpoints.mace import HomeConfig, from_state
from mlplugins.errors import BadInput
from mlplugins.model_file import artifact
from mlplugins.models.base import energy_derivatives
from mlplugins.structures.batch import graph_of
from tests import warm

from .stored import structures

DATA = Path(__file__).parent / "data"
NAMES = sorted(path.stem.removeprefix("mace_") for path in DATA.glob("mace_*.npz"))
SINGLE = ["density_agnesi_zbl", "elements_density_agnesi_zbl", "elements_two_heads_soft", "float32"]
FILES = sorted(path.name.split(".")[0].removeprefix("mace_") for path in DATA.glob("mace_*.model.xz"))


CONDITIONS = {"charge_spin": {"total_charge": -1, "total_spin": 2}}


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


def _evaluate(checkpoint, atoms):
    dtype = next(checkpoint.potential.parameters()).dtype
    x = graph_of(atoms, checkpoint.elements, checkpoint.potential.cutoff, dtype)
    x.vectors.requires_grad_()
    energy = checkpoint.potential(x)["energy"]
    forces, virial = energy_derivatives(energy, x, 1)
    baseline = sum(checkpoint.baseline[int(z)] for z in x.species)
    total = float(energy.detach().double().sum()) + baseline
    return total, forces.detach().double().numpy(), virial[0].detach().double().numpy()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Folder with the models of mace-torch, unpacked."""
    folder = tmp_path_factory.mktemp("models")
    for name in FILES:
        packed = DATA / f"mace_{name}.model.xz"
        (folder / f"{name}.model").write_bytes(lzma.decompress(packed.read_bytes()))
    return folder


def test_every_case_is_there():
    assert len(NAMES) == 14
    assert FILES == [
        "charge_spin",
        "density_agnesi_zbl",
        "elements_density_agnesi_zbl",
        "elements_two_heads_soft",
        "float32",
        "last_readout_one_product",
        "non_linear_heads",
        "old",
        "two_heads",
    ]
    for name in NAMES:
        if name.startswith("elements"):
            assert len(_stored(name)[0].atomic_numbers) == 89


@pytest.mark.parametrize("name", NAMES)
def test_energies_forces_and_stress_are_those_of_the_home_package(name):
    config, state, rest = _stored(name)
    checkpoint = from_state(config, state, str(rest["head"]), conditions=CONDITIONS.get(name, {}))
    tolerance = 2e-5 if name == "float32" else 1e-10
    for index, atoms in enumerate(structures(name)):
        energy, forces, virial = _evaluate(checkpoint, atoms)
        assert energy == pytest.approx(float(rest[f"energy/{index}"]), rel=tolerance)
        home = rest[f"forces/{index}"]
        np.testing.assert_allclose(forces, home, rtol=0, atol=tolerance * float(np.abs(home).max()))
        if atoms.pbc.all():
            voigt = (virial / atoms.get_volume()).reshape(9)[[0, 4, 8, 5, 2, 1]]
            home = rest[f"stress/{index}"]
            np.testing.assert_allclose(voigt, home, rtol=0, atol=tolerance * float(np.abs(home).max()))


@pytest.mark.parametrize("name", FILES)
def test_a_file_gives_the_weights_of_the_state(files, name):
    """Architecture and weights found in the file are those that the home package gave separately."""
    config, state, rest = _stored(name)
    head = str(rest["head"])
    conditions = CONDITIONS.get(name, {})
    apart = from_state(config, state, head, conditions=conditions)
    read = mace.read(files / f"{name}.model", head=head, conditions=conditions)
    assert read.baseline == apart.baseline
    assert read.details["hyperparameters"] == apart.details["hyperparameters"]
    weights = read.potential.state_dict()
    for key, value in apart.potential.state_dict().items():
        torch.testing.assert_close(weights[key], value, rtol=0, atol=1e-12)


CONVERT = """
import sys
for name in ("mace", "matscipy", "torch_ema", "cuequivariance"): sys.modules[name] = None
import e3nn
assert e3nn.__version__ != "0.4.4"
from mlplugins.cli.main import main
for path, words in {files!r}:
    for dtype in ("float32", "float64"):
        code = main(["convert", path, "-o", path + "." + dtype, "--dtype", dtype, *words])
        if code: sys.exit(code)
"""


@pytest.fixture(scope="module")
def converted(files):
    """The files through the command line, in a process without mace-torch and its release of e3nn."""
    words = {name: ["--head", "b"] for name in FILES if name.endswith(("two_heads", "_soft", "_heads"))}
    words["charge_spin"] = ["--charge", "-1", "--spin", "2"]
    todo = [(str(files / f"{name}.model"), words.get(name, [])) for name in FILES]
    script = files / "convert.py"
    script.write_text(CONVERT.format(files=todo))
    with warm.starts():
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return files


def _home(name, quantity, index):
    """Of the home package: float64, and what it loses itself in float32."""
    rest = _stored(name)[2]
    plain, other = rest[f"{quantity}/{index}"], "float64" if name == "float32" else "float32"
    changed = rest[f"{other}/{quantity}/{index}"]
    return (changed if name == "float32" else plain), float(np.abs(changed - plain).max())


def _assert_close(name, dtype, index, quantity, value):
    """float64: 1e-10. float32: 1e-6, or 4 times the error of the home package where sums cancel.

    A float32 file has its product basis rounded: 1e-6 in float64, too.
    """
    home, single = _home(name, quantity, index)
    tolerance = (1e-6 if "float32" in (name, dtype) else 1e-10) * float(np.abs(home).max())
    if dtype == "float32":
        tolerance = max(tolerance, 4 * single)
    np.testing.assert_allclose(value, home, rtol=0, atol=tolerance, err_msg=f"{quantity} of {index}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, "float64") for name in FILES), *((name, "float32") for name in SINGLE)],
)
def test_a_converted_file_gives_the_numbers_of_the_home_package(converted, name, dtype):
    model = artifact.load(converted / f"{name}.model.{dtype}")
    for index, atoms in enumerate(structures(name)):
        result = model.evaluate([atoms])[0]
        _assert_close(name, dtype, index, "energy", result.energy)
        _assert_close(name, dtype, index, "forces", result.forces)
        if atoms.pbc.all():
            voigt = result.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
            _assert_close(name, dtype, index, "stress", voigt)


@pytest.mark.slow
def test_all_heads_in_one_file(files, tmp_path):
    """`--head all`: the head of the stored numbers is a variant, the first is the default; their scales
    differ beside a repulsion."""
    name = "non_linear_heads"
    for head in ("all", "a"):
        convert(files / f"{name}.model", tmp_path / f"{head}.pt", head=head, dtype="float64")
    both, alone = artifact.load(tmp_path / "all.pt", output="b"), artifact.load(tmp_path / "a.pt")
    assert both.energies == ("energy/a", "energy/b")
    for index, atoms in enumerate(structures(name)):
        [result] = both.evaluate([atoms])
        _assert_close(name, "float64", index, "energy", result.energy)
        _assert_close(name, "float64", index, "forces", result.forces)
        [first], [own] = both.of_energy("energy/a").evaluate([atoms]), alone.evaluate([atoms])
        assert first.energy == pytest.approx(own.energy, abs=1e-10)
        np.testing.assert_allclose(first.forces, own.forces, rtol=0, atol=1e-10)


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
        ("interaction_cls", "RealAgnosticAttResidualInteractionBlock"),
        ("hidden_irreps", "3x0e+2x1o"),
        ("gate", "None"),
        ("edge_irreps", "1x0e+1x2e"),
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
