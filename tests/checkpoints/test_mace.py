"""Architecture, heads, elements and refusals of the reader; its numbers are tested in tests/regression."""

import lzma
import math
import pickle
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from mlplugins.checkpoints import mace
from mlplugins.checkpoints._mace_state import Source
from mlplugins.checks.comparison import CompareOptions, compare
from mlplugins.errors import BadInput
from mlplugins.model_file import artifact
from mlplugins.model_file.made_for import conditions
from mlplugins.models.base import energy_derivatives
from mlplugins.structures.batch import graph_of
from mlplugins.training.finetune import base_reader
from mlplugins.workflows.convert import Variant, convert
from mlplugins.workflows.evaluate import evaluate as evaluate_workflow
from mlplugins.workflows.finetune import finetune

DATA = Path(__file__).parents[1] / "regression" / "data"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """`unpacked(name)`: path of a model of mace-torch."""
    folder = tmp_path_factory.mktemp("models")

    def unpack(name):
        path = folder / f"{name}.model"
        if not path.exists():
            path.write_bytes(lzma.decompress((DATA / f"mace_{name}.model.xz").read_bytes()))
        return path

    return unpack


@pytest.fixture
def forged(unpacked, tmp_path):
    """`forged(name, old, new)`: the same file with other bytes in its pickle program."""

    def forge(name, old, new):
        path = tmp_path / "forged.model"
        with zipfile.ZipFile(unpacked(name)) as source, zipfile.ZipFile(path, "w") as target:
            for entry in source.namelist():
                content = source.read(entry)
                if entry.endswith("data.pkl"):
                    assert old in content
                    content = content.replace(old, new)
                target.writestr(entry, content)
        return path

    return forge


def evaluate(checkpoint, atoms):
    x = graph_of(atoms, checkpoint.elements, checkpoint.potential.cutoff, torch.float64)
    x.vectors.requires_grad_()
    energy = checkpoint.potential(x)["energy"]
    forces, _ = energy_derivatives(energy, x, 1)
    baseline = sum(checkpoint.baseline[int(z)] for z in x.species)
    return float(energy.detach().sum()) + baseline, forces.detach().numpy()


def test_description(unpacked):
    checkpoint = mace.read(unpacked("density_agnesi_zbl"))
    assert checkpoint.family == "mace"
    assert checkpoint.elements == ["H", "O", "S"]
    assert checkpoint.baseline == [-13.1, -20.5, -10.25]
    parameters = checkpoint.details["hyperparameters"]
    assert (parameters["interaction_first"], parameters["interaction"]) == (
        "RealAgnosticDensity",
        "RealAgnosticDensityResidual",
    )
    assert (parameters["distance_transform"], parameters["zbl"]) == ("agnesi", True)
    assert (parameters["l_max"], parameters["max_L"], parameters["envelope_power"]) == (2, 1, 6)
    source = checkpoint.details["source"]
    assert (source["format"], source["head"], len(source["sha256"])) == ("MACE", None, 64)
    assert not checkpoint.potential.training


def test_reading_leaves_the_random_state_alone(unpacked):
    torch.manual_seed(4)
    expected = torch.randn(3)
    torch.manual_seed(4)
    mace.read(unpacked("old"))
    assert torch.equal(torch.randn(3), expected)


def test_a_file_of_an_early_release(unpacked):
    """It lacks heads and the options that came later: their values are those that mean the same."""
    home = mace.read(unpacked("old")).details["home"]
    assert list(home["heads"]) == ["Default"]
    assert (home["pair_repulsion"], home["distance_transform"], home["apply_cutoff"]) == (False, "None", True)


@pytest.mark.parametrize("name", ["density_agnesi_zbl", "last_readout_one_product", "old"])
def test_element_filter(unpacked, name):
    """Fewer or reordered elements, the same numbers."""
    atoms = molecule("H2O2")
    energy, forces = evaluate(mace.read(unpacked(name)), atoms)
    for elements in (["O", "H"], ["S", "H", "O"]):
        part = mace.read(unpacked(name), elements)
        assert part.elements == elements
        changed, changed_forces = evaluate(part, atoms)
        assert changed == pytest.approx(energy, rel=1e-13)
        np.testing.assert_allclose(changed_forces, forces, rtol=0, atol=1e-12)
    assert mace.read(unpacked(name), ["O"]).potential.embedding.shape[0] == 1


@pytest.mark.parametrize(
    ("elements", "text"),
    [(["Li"], "it knows H O S"), (["O", "O"], "expected different symbols"), ([], "different symbols")],
)
def test_element_filter_refuses(unpacked, elements, text):
    with pytest.raises(BadInput, match=text):
        mace.read(unpacked("old"), elements)


def test_heads(unpacked, forged):
    path = unpacked("two_heads")
    with pytest.raises(BadInput, match=r"has the heads a, b; choose one \(`mlplugins convert --head`"):
        mace.read(path)
    with pytest.raises(BadInput, match="no head 'c'; the model has a, b"):
        mace.read(path, head="c")
    assert mace.read(path, head="a").baseline == [-13.1, -20.5, -10.25]
    second = mace.read(path, ["S", "O"], head="b")
    assert second.baseline == [-2.5, -1.5]
    assert second.details["source"]["head"] == "b"
    renamed = forged("two_heads", b"X\x01\x00\x00\x00b", b"X\x07\x00\x00\x00Default")
    assert mace.read(renamed).baseline == [-0.5, -1.5, -2.5]


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (
            b"RealAgnosticDensityResidualInteractionBlock",
            b"RealAgnosticAttResidualInteractionBlock",
            "'interaction_cls' is RealAgnosticAttResidualInteractionBlock; this package reads models "
            "with RealAgnosticInteractionBlock or RealAgnosticResidualInteractionBlock or ",
        ),
        (b"NonLinearReadoutBlock", b"NonLinearDipoleReadoutBlock", "'readout_cls' is NonLinearDipoleReadout"),
        (
            b"torch.nn.functional\nsilu",
            b"__builtin__\ngetattr",
            r"`--gate tanh` or `abs` of mace_run_train\)",
        ),
        (b"BesselBasis", b"GaussianBasis", "'radial_type' is gaussian"),
        (b"AgnesiTransform", b"LogTransform", "'distance_transform' is LogTransform"),
        (b"nn.functional\nsilu", b"nn.functional\ngelu", "'(radial_)?gate' is gelu"),
        (b"models\nScaleShiftMACE", b"models\nAtomicDipolesMACE", "'model_cls' is AtomicDipolesMACE"),
        (
            b"mace.modules.models\nScaleShift",
            b"les.models\nScaleShift",
            "contains 'les.models.ScaleShiftMACE'",
        ),
        (
            b"e3nn.o3._linear\nLinear",
            b"cuequivariance_torch\nLinear",
            "saved for an accelerator .*mace_cueq_to",
        ),
        (b"scale_shift", b"scale_shaft", "no entry 'scale_shift.scale'"),
        (b"linear_up", b"linear_uq", "MACE state: expected weights named"),
        (b"node_embedding", b"nodX_embedding", "no entry 'node_embedding.linear.weight'"),
    ],
)
def test_unsupported_options_are_named(forged, old, new, text):
    # text in a pickle carries its length: a longer word is only possible in the name of a class
    path = forged("density_agnesi_zbl", old, new)
    with pytest.raises(BadInput, match=text) as error:
        mace.read(path)
    assert str(path) in str(error.value)


def test_charge_and_spin(unpacked):
    path = unpacked("charge_spin")
    read = mace.read(path)
    assert read.potential.inputs == {"charge": (-2.0, 2.0), "spin_multiplicity": (-math.inf, math.inf)}
    assert "total_spin" not in read.details["source"]
    conditions = {"total_charge": -1, "total_spin": 2}
    source = mace.read(path, conditions=conditions).details["source"]
    assert (source["total_charge"], source["total_spin"]) == (-1.0, 2.0)
    for name, conditions, text in (
        ("charge_spin", {"total_charge": 3}, "total_charge 3: the model knows whole numbers from -2 to 2"),
        ("charge_spin", {"total_spin": 0}, r"total_spin 0: expected the multiplicity 2S \+ 1"),
        (
            "old",
            {"total_charge": 0},
            "charge 0 is given, but the model has no embedding of it .* leave --charge",
        ),
    ):
        with pytest.raises(BadInput, match=text):
            mace.read(unpacked(name), conditions=conditions)


def test_a_structure_of_another_charge_is_refused(unpacked, tmp_path):
    """Not evaluated with the charge of the file."""
    convert(unpacked("charge_spin"), tmp_path / "m.pt", head=Variant(charge=-1, spin=2))
    model = artifact.load(tmp_path / "m.pt")
    atoms = molecule("H2O")
    same = model.evaluate([atoms])[0].energy
    atoms.info.update(charge=-1, total_spin=2)
    assert model.evaluate([atoms])[0].energy == same
    atoms.info["charge"] = 0
    with pytest.raises(
        BadInput,
        match=r"structure 0: its charge is 0, and .* -1: .*without `--charge`.* \('m.pt'\)",
    ):
        model.evaluate([atoms])


def _frames(path, charge, energy=-14.0):
    frames = []
    for k in range(6):
        atoms = molecule("H2O")
        atoms.rattle(0.03, seed=k)
        atoms.calc = SinglePointCalculator(atoms, energy=energy + 0.01 * k, forces=np.zeros((3, 3)))
        atoms.info["charge"] = charge
        frames.append(atoms)
    write(path, frames)
    return str(path)


@pytest.mark.long
def test_frames_of_another_charge_are_refused_before_and_after_fine_tuning(unpacked, tmp_path):
    """By every command that reads labelled frames; the fine-tuned model keeps the charge of its base."""
    same, other = _frames(tmp_path / "same.extxyz", -1), _frames(tmp_path / "other.extxyz", 1)
    model, run = tmp_path / "m.pt", tmp_path / "run"
    convert(unpacked("charge_spin"), model, head=Variant(charge=-1, spin=2))
    content = {
        "data": {"train": same, "validation": 0.34},
        "base": {"checkpoint": str(model)},
        "finetune": {"strategy": "heads"},
        "training": {"epochs": 1, "batch_size": 4, "devices": 1},
    }
    refusal = "other.extxyz, frame 0: its charge is 1, and the model is of charge -1"
    with pytest.raises(BadInput, match=refusal):
        finetune({**content, "data": {"train": other, "validation": 0.34}}, run)
    finetune(content, run)
    for path in (model, run / "model.pt"):
        with pytest.raises(BadInput, match=refusal):
            evaluate_workflow(path, other)
        with pytest.raises(BadInput, match=refusal):
            compare(path, other, CompareOptions(("lammps",)))
    again = base_reader(run / "checkpoint.ckpt")(None)
    assert conditions({"finetune": {"base": again.source}}) == {"total_charge": -1.0, "total_spin": 2.0}


@pytest.mark.long
def test_charges_of_frames_are_inputs_in_fine_tuning(unpacked, tmp_path):
    """The errors of the training set are those of `evaluate`, which reads the charges anew."""
    model, run = tmp_path / "m.pt", tmp_path / "run"
    train = [_frames(tmp_path / f"{charge}.extxyz", charge, energy=-14.0 + charge) for charge in (0, -1)]
    convert(unpacked("charge_spin"), model)
    content = {
        "data": {"train": train, "validation": 0.34},
        "base": {"checkpoint": str(model)},
        "finetune": {"strategy": "heads"},
        "training": {"epochs": 1, "batch_size": 4, "devices": 1},
    }
    outside = _frames(tmp_path / "outside.extxyz", 3)
    with pytest.raises(BadInput, match="outside.extxyz, frame 0: its charge is 3, and the model knows"):
        finetune({**content, "data": {"train": outside, "validation": 0.34}}, run)
    trained = finetune(content, run)
    assert not [text for text in trained.metrics["warnings"] if "does not see" in text or "dropped" in text]
    errors = evaluate_workflow(run / "model.pt", train)["energy"]["rmse_meV_per_atom"]
    both = [trained.metrics[name] for name in ("train", "validation")]
    squares = [each["n_structures"] * each["energy"]["rmse_meV_per_atom"] ** 2 for each in both]
    assert [each["n_structures"] for each in both] == [8, 4]
    assert errors == pytest.approx(math.sqrt(sum(squares) / 12), rel=1e-4)
    assert errors > 100.0  # of both charges one mean was learned, almost


def test_only_biases_that_add_nothing_are_left_unread():
    """e3nn's linear maps have an empty one where they have none."""
    state = {"interactions.0.linear_up.weight": torch.ones(4), "a.linear.bias": torch.zeros(0)}
    source = Source({**state, "b.linear.bias": torch.zeros(3)}, [0], 1)
    source.take("interactions.0.linear_up.weight")
    source.finish()
    source.state["c.linear.bias"] = torch.tensor([0.0, 0.1])
    with pytest.raises(BadInput, match="without a place in this architecture: c.linear.bias$"):
        source.finish()


def test_weights_without_architecture_are_refused(tmp_path):
    state = {"interactions.0.linear_up.weight": torch.ones(4)}
    for content in (state, {"model": state, "epoch": 3}):
        torch.save(content, tmp_path / "c.pt")
        assert mace.recognises(tmp_path / "c.pt")
        with pytest.raises(BadInput, match="without the architecture .* convert the `.model` file"):
            mace.read(tmp_path / "c.pt")


def test_other_files_are_not_recognised(tmp_path):
    torch.save({"model_state_dict": {}}, tmp_path / "c.pt")
    assert not mace.recognises(tmp_path / "c.pt")
    assert not mace.recognises(Path(__file__))


def test_a_hostile_file_executes_nothing(forged, tmp_path):
    """A call put in place of the constructor of a module, and of an activation function."""
    for old in (b"mace.modules.models\nScaleShiftMACE", b"torch.nn.functional\nsilu"):
        path = forged("density_agnesi_zbl", old, b"posix\nsystem")
        with pytest.raises(BadInput, match=r"contains 'posix.system'.*nothing of it was executed"):
            mace.read(path)


@pytest.fixture
def network(monkeypatch):
    """A class that pickles as a model of mace-torch does."""
    module = types.ModuleType("mace.modules.models")
    kind = type("ScaleShiftMACE", (), {"__module__": module.__name__})
    module.ScaleShiftMACE = kind
    for name in ("mace", "mace.modules"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return kind()


class Touches:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_forged_trees_are_refused(network, tmp_path):
    path, target = tmp_path / "a.model", tmp_path / "executed"
    trees = {
        "more than 20000 modules": {"itself": network},
        "not an intact model": {"not_a_module": 3},
        "which this reader does not know": {"evil": Touches(target)},
    }
    for text, modules in trees.items():
        network.__dict__.update(_modules=modules, _parameters={}, _buffers={})
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", pickle.dumps(network, protocol=2))
        assert mace.recognises(path)
        with pytest.raises(BadInput, match=text):
            mace.read(path)
    assert not target.exists()
