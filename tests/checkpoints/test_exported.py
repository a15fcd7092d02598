"""A model.pt of this package gives back the model: the same function, and weights that train."""

import pickle
import shutil
import zipfile
from dataclasses import asdict

import pytest
import torch

from mlplugins import models
from mlplugins.checkpoints import exported
from mlplugins.errors import BadInput
from mlplugins.export.metatomic import Description, save
from mlplugins.models.capabilities import use_radial_tables
from mlplugins.structures.batch import graph_of
from mlplugins.testing.structures import standard_structures

ELEMENTS = ["Li", "S", "Cl"]
NEQUIP = {"family": "nequip", "cutoff": 4.0, "num_layers": 2, "num_features": 3, "radial_mlp": [5, 4]}
CASES = {
    "nequip": {**NEQUIP, "parity": True, "zbl": True, "readout_mlp": [4]},
    "mace": {
        "family": "mace",
        "cutoff": 4.0,
        "num_channels": 3,
        "l_max": 2,
        "max_L": 1,
        "interaction_first": "RealAgnosticDensity",
        "interaction": "RealAgnosticDensityResidual",
        "distance_transform": "agnesi",
        "zbl": True,
    },
    "lennard-jones": {"family": "lennard-jones", "epsilon": 0.02, "sigma": 2.0, "cutoff": 4.0},
    "sum": {
        "family": "sum",
        "terms": [{**NEQUIP, "cutoff": 3.0}, {"family": "lennard-jones", "cutoff": 4.0}],
    },
}


@pytest.fixture
def made(tmp_path):
    """`made(name)`: a random model of a family and its file."""

    def make(name, dtype="float64", portable=False):
        options = dict(CASES[name])
        family = models.family(options.pop("family"))
        parameters = family.Hyperparameters(**options)
        torch.manual_seed(2)
        model = family.Model(ELEMENTS, parameters).eval()
        record = {"hyperparameters": asdict(parameters), "n_parameters": 3}
        path = tmp_path / f"{name}.pt"
        save(model, path, Description(name, ELEMENTS, [-1.0, 2.0, 0.5], "m", record), dtype, portable)
        return model, path

    return make


def energy(potential, atoms, elements=ELEMENTS):
    return potential(graph_of(atoms, elements, potential.cutoff))["energy"]


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_same_function_and_the_same_parameters(made, name, portable):
    model, path = made(name, portable=portable)
    assert exported.recognises(path)
    read = exported.read(path)
    assert (read.family, read.elements, read.baseline) == (name, ELEMENTS, [-1.0, 2.0, 0.5])
    assert read.details["source"]["format"] == "mlplugins"
    assert {n: p.shape for n, p in read.potential.named_parameters()} == {
        n: p.shape for n, p in model.named_parameters()
    }
    for key, value in model.state_dict().items():
        torch.testing.assert_close(read.potential.state_dict()[key], value, rtol=1e-13, atol=1e-13)
    for atoms in standard_structures(ELEMENTS).values():
        torch.testing.assert_close(
            energy(read.potential, atoms), energy(model, atoms), rtol=1e-12, atol=1e-12
        )
    assert all(p.requires_grad for p in read.potential.parameters())


@pytest.mark.parametrize("name", CASES)
def test_fewer_elements(made, name):
    """Kept in another order; a Li–S structure has the same energy."""
    model, path = made(name)
    read = exported.read(path, ["S", "Li"])
    assert (read.elements, read.baseline) == (["S", "Li"], [2.0, -1.0])
    atoms = standard_structures(["Li", "S"])["crystal"]
    torch.testing.assert_close(
        energy(read.potential, atoms, read.elements), energy(model, atoms), rtol=1e-12, atol=1e-12
    )
    with pytest.raises(BadInput, match="different symbols that the model knows; it knows Cl Li S"):
        exported.read(path, ["P"])


@pytest.mark.parametrize("name", ["nequip", "mace"])
def test_single_precision(made, name):
    model, path = made(name, "float32")
    read = exported.read(path).potential
    assert {p.dtype for p in read.parameters()} == {torch.float32}
    atoms = standard_structures(ELEMENTS)["crystal"]
    torch.testing.assert_close(energy(read.double(), atoms), energy(model, atoms), rtol=1e-5, atol=1e-5)


def test_tables_are_refused(made, tmp_path):
    model, _ = made("nequip")
    use_radial_tables(model, 64)
    record = {"hyperparameters": {k: v for k, v in CASES["nequip"].items() if k != "family"}}
    save(model, tmp_path / "t.pt", Description("nequip", ELEMENTS, [0.0] * 3, "t", record))
    with pytest.raises(BadInput, match=r"t\.pt: the radial networks of this file were replaced by tables"):
        exported.read(tmp_path / "t.pt")


def test_closed_form_families_are_refused(made, tmp_path):
    model, _ = made("lennard-jones")
    save(model, tmp_path / "k.pt", Description("soap-gap", ELEMENTS, [0.0] * 3, "k"))
    with pytest.raises(BadInput, match="'soap-gap' is solved in closed form"):
        exported.read(tmp_path / "k.pt")


def test_damaged_and_foreign_files(made, tmp_path):
    _, path = made("nequip")
    assert not exported.recognises(__file__)
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
    assert not exported.recognises(tmp_path / "a.pth")
    (tmp_path / "half.pt").write_bytes(path.read_bytes()[:5000])
    assert not exported.recognises(tmp_path / "half.pt")
    shutil.copy(path, tmp_path / "other.pt")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "other.pt", "w") as target:
        for entry in source.namelist():
            content = source.read(entry)
            target.writestr(entry, content.replace(b'\\"num_features\\": 3', b'\\"num_features\\": 4'))
    with pytest.raises(BadInput, match="has shape .* this version of the family expects"):
        exported.read(tmp_path / "other.pt")


def test_a_hostile_file_executes_nothing(made, tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "executed"), "w")

    _, path = made("nequip")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "evil.pt", "w") as target:
        for entry in source.namelist():
            evil = entry.endswith("/data.pkl")
            target.writestr(entry, pickle.dumps(Evil(), protocol=2) if evil else source.read(entry))
    with pytest.raises(BadInput, match=r"contains 'io.open', .*nothing of it was executed"):
        exported.read(tmp_path / "evil.pt")
    assert not (tmp_path / "executed").exists()
