"""A model.pt of this package gives back the model: the same function, and weights that train."""

import copy
import io
import lzma
import pickle
import zipfile
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from mlplugins import models
from mlplugins.checkpoints import exported
from mlplugins.errors import BadInput
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.format import MANIFEST, WEIGHTS
from mlplugins.model_file.write import save
from mlplugins.structures.batch import graph_of
from mlplugins.testing.structures import standard_structures

OLD = Path(__file__).parents[1] / "compatibility" / "data" / "nequip-float64.pt.xz"
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
        "terms": [
            {**NEQUIP, "cutoff": 3.0, "pair_cutoffs": {"Li": {"S": 2.7, "Cl": 2.0}}},
            {"family": "lennard-jones", "cutoff": 4.0},
        ],
    },
}


def rewrite(source, target, change):
    """The archive with other contents (None: left out) and right checksums, without our list of them."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as copied:
        for entry in archive.namelist():
            content = change(entry, archive.read(entry))
            if content is not None and not entry.endswith(MANIFEST):
                copied.writestr(entry, content)


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
        save(model, path, ModelCard(name, ELEMENTS, [-1.0, 2.0, 0.5], "m", record), dtype, portable)
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
        assert torch.equal(read.potential.state_dict()[key], value), key
    for atoms in standard_structures(ELEMENTS).values():
        assert torch.equal(energy(read.potential, atoms), energy(model, atoms))
    assert all(p.requires_grad for p in read.potential.parameters())


@pytest.mark.long
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
    assert "Cl" not in str(read.details["hyperparameters"])
    with pytest.raises(BadInput, match="different symbols that the model knows; it knows Cl Li S"):
        exported.read(path, ["P"])


@pytest.mark.parametrize("name", ["nequip", "mace"])
def test_the_precision_is_that_of_the_training(made, name, tmp_path):
    """A file that computes in float32 keeps the weights it was made from; those of float32 stay float32."""
    model, path = made(name, "float32")
    for key, value in exported.read(path).potential.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key
    single, details = copy.deepcopy(model).float(), exported.read(path).details
    save(single, tmp_path / "single.pt", ModelCard(name, ELEMENTS, [0.0] * 3, "s", details), "float64")
    read = exported.read(tmp_path / "single.pt").potential
    assert {p.dtype for p in read.parameters()} == {torch.float32}
    for key, value in read.state_dict().items():
        assert torch.equal(value, single.state_dict()[key]), key


def test_closed_form_families_are_refused(made, tmp_path):
    model, _ = made("lennard-jones")
    save(model, tmp_path / "k.pt", ModelCard("soap-gap", ELEMENTS, [0.0] * 3, "k"))
    with pytest.raises(BadInput, match="'soap-gap' is solved in closed form"):
        exported.read(tmp_path / "k.pt")


def test_damaged_and_foreign_files(made, tmp_path):
    _, path = made("nequip")
    assert not exported.recognises(__file__)
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
    assert not exported.recognises(tmp_path / "a.pth")
    (tmp_path / "half.pt").write_bytes(path.read_bytes()[:5000])
    assert not exported.recognises(tmp_path / "half.pt")
    features = [b'\\"num_features\\": %d' % n for n in (3, 4)]
    rewrite(path, tmp_path / "other.pt", lambda entry, content: content.replace(*features))
    with pytest.raises(
        BadInput, match=r"other\.pt: the weights do not fit this version's 'nequip': .*size mis"
    ):
        exported.read(tmp_path / "other.pt")
    rewrite(path, tmp_path / "wrapped.pt", lambda entry, content: None if WEIGHTS in entry else content)
    with pytest.raises(BadInput, match="another program wrote this file, without the weights"):
        exported.read(tmp_path / "wrapped.pt")


def test_a_hostile_file_executes_nothing(made, tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "executed"), "w")

    _, path = made("nequip")
    evil = io.BytesIO()
    torch.save(Evil(), evil)

    def hidden(place, content):
        return lambda entry, stored: content if entry.endswith(place) else stored

    rewrite(path, tmp_path / "evil.pt", hidden(WEIGHTS, evil.getvalue()))
    with pytest.raises(BadInput, match=r"evil\.pt: not an intact model\.pt \(UnpicklingError: Weights only"):
        exported.read(tmp_path / "evil.pt")
    rewrite(path, tmp_path / "program.pt", hidden("/data.pkl", pickle.dumps(Evil(), protocol=2)))
    exported.read(tmp_path / "program.pt")  # which does not look at it
    (tmp_path / "old.pt").write_bytes(lzma.decompress(OLD.read_bytes()))
    rewrite(tmp_path / "old.pt", path, hidden("/data.pkl", pickle.dumps(Evil(), protocol=2)))
    with pytest.raises(BadInput, match=r"contains 'io.open', .*nothing of it was executed"):
        exported.read(path)
    assert not (tmp_path / "executed").exists()
