"""Options, element filter and refusals of the reader; its numbers are tested in tests/regression."""

import io
import lzma
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from mlplugins.checkpoints import nequip
from mlplugins.errors import BadInput

DATA = Path(__file__).parents[1] / "regression" / "data"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """`checkpoint(name)`: path of a checkpoint of nequip."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def unpack(name):
        path = folder / f"{name}.ckpt"
        if not path.exists():
            path.write_bytes(lzma.decompress((DATA / f"nequip_{name}.ckpt.xz").read_bytes()))
        return path

    return unpack


@pytest.fixture
def changed(checkpoint, tmp_path):
    """`changed(name, option=value)` writes the checkpoint with other options of the model."""

    def write(name, versions=None, state=None, **options):
        content = torch.load(checkpoint(name), weights_only=True)
        hyperparameters = content["hyper_parameters"]
        hyperparameters["model"].update(options)
        hyperparameters["info_dict"]["versions"].update(versions or {})
        content["state_dict"].update(state or {})
        torch.save(content, tmp_path / "c.ckpt")
        return tmp_path / "c.ckpt"

    return write


def test_description(checkpoint):
    read = nequip.read(checkpoint("average"))
    assert (read.family, read.elements, read.baseline) == ("nequip", ["H", "O", "S"], [-13.1, -20.5, -10.25])
    parameters = read.details["hyperparameters"]
    assert (parameters["num_embedding"], parameters["num_features"]) == (5, [4, 3, 2])
    assert (parameters["parity"], parameters["radial_mlp"]) == (False, [6, 6])
    assert read.details["source"]["version"] == "0.19.1"
    assert nequip.read(checkpoint("parity")).details["hyperparameters"]["readout_mlp"] == [5]


def test_averaged_weights_unless_the_model_holds_them(checkpoint, changed):
    """During validation nequip swaps them into the model, and says so."""
    averaged = nequip.read(checkpoint("average")).potential.embedding
    state = torch.load(checkpoint("average"), weights_only=True)["state_dict"]
    assert torch.equal(averaged, state["ema.ema_weight_0"])
    extra = {"ema._extra_state": {**state["ema._extra_state"], "is_holding_ema_weights": False}}
    own = nequip.read(changed("average", state=extra)).potential.embedding
    assert torch.equal(own, state["model.sole_model.model.func.type_embed.embed_module.weight"])
    assert not torch.equal(own, averaged)


def test_element_filter_keeps_the_right_rows(checkpoint):
    whole, part = nequip.read(checkpoint("parity")), nequip.read(checkpoint("parity"), ["S", "H"])
    assert part.elements == ["S", "H"]
    assert part.baseline == [whole.baseline[2], whole.baseline[0]]
    assert torch.equal(part.potential.embedding, whole.potential.embedding[[2, 0]])
    for elements in (["Li"], ["O", "O"], []):
        with pytest.raises(BadInput, match="expected different symbols that the model knows; it knows H O S"):
            nequip.read(checkpoint("parity"), elements)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"_target_": "nequip.model.ModelFromPackage"},
            "a model of 'nequip.model.ModelFromPackage'; supported",
        ),
        (
            {"pair_potential": {"_target_": "nequip.nn.LennardJones"}},
            r"pair_potential: .* supported \(only ZBL",
        ),
        (
            {"pair_potential": {"_target_": "nequip.nn.pair_potential.ZBL", "units": "real"}},
            r"'units: real' is not supported \(only 'metal': energies in eV",
        ),
        (
            {"pair_potential": {"_target_": "nequip.nn.pair_potential.ZBL", "units": "metal"}},
            "no weight 'pair_potential.atomic_numbers'",
        ),
        ({"polynomial_cutoff_p": 4.5}, r"'polynomial_cutoff_p: 4.5' is not supported \(only whole numbers\)"),
        ({"more_physics": True}, r"'more_physics: True' is not supported \(unknown to this mlplugins"),
        (
            {"convnet_nonlinearity_type": "norm"},
            r"'convnet_nonlinearity_type: norm' is not supported \(only 'ga",
        ),
        ({"preset": "Q"}, "the preset 'Q' is unknown; known are S, M, L, XL"),
        ({"type_names": ["H", "Ow", "S"]}, "types Ow are not chemical symbols"),
        ({"l_max": 5, "num_features": 4}, "'l_max' must be 0, 1, 2, 3 or 4, got 5"),
        ({"num_features": [4, 4, 2]}, "has shape"),
        ({"versions": {"nequip": "0.20.0"}}, r"written by nequip 0.20.0; .* up to 0.19: upgrade"),
        ({"state": {"model.sole_model.model.func.more.weight": torch.ones(2)}}, "EMA.* do not fit"),
    ],
)
def test_unsupported_options_are_named(changed, options, text):
    with pytest.raises(BadInput, match=text):
        nequip.read(changed("average", **options))


def test_weights_of_a_schedule_free_optimizer_between_validations_are_refused(checkpoint, tmp_path):
    """The state holds the next step's weights; those of the model are made of it and of the optimizer's."""
    content = torch.load(checkpoint("parity"), weights_only=True)
    for training in (False, True):
        content["schedulefree_optimizer_state_dict"] = {"param_groups": [{"train_mode": training}]}
        torch.save(content, tmp_path / "c.ckpt")
        if training:
            with pytest.raises(BadInput, match="schedule-free .* convert what `nequip-package build`"):
                nequip.read(tmp_path / "c.ckpt")
        else:
            assert nequip.read(tmp_path / "c.ckpt").elements == ["H", "O", "S"]


def test_cutoffs_of_pairs_of_the_elements_that_are_kept(checkpoint):
    assert nequip.read(checkpoint("pairs"), ["S", "H"]).details["hyperparameters"]["pair_cutoffs"] == {
        "S": {"S": 4.0, "H": 4.0},
        "H": {"S": 2.5, "H": 2.5},
    }


def test_left_over_entries_are_refused(changed):
    state = {"model.sole_model.model.func.more.weight": torch.ones(2)}
    with pytest.raises(BadInput, match="entries without a place in this architecture: more.weight"):
        nequip.read(changed("parity", state=state))


def test_a_bias_without_a_place_is_refused(changed):
    name = "model.sole_model.model.func.layer0_convnet.conv.linear_1.bias"
    assert nequip.read(changed("parity", state={name: torch.zeros(4)})).family == "nequip"
    with pytest.raises(BadInput, match="without a place in this architecture: .*linear_1.bias"):
        nequip.read(changed("parity", state={name: torch.full((4,), 0.1)}))


def test_signs_of_the_coefficients(checkpoint, changed):
    """The opposite sign changes the weights of the path, another convention is refused."""
    name = (
        "model.sole_model.model.func.layer1_convnet.conv.tp_scatter.tp._compiled_main_left_right._w3j_1_2_2"
    )
    stored = torch.load(checkpoint("parity"), weights_only=True)["state_dict"][name]
    plain, opposite = (
        nequip.read(path).potential.interactions[1].convolution.radial.weights[-1]
        for path in (checkpoint("parity"), changed("parity", state={name: -stored}))
    )
    different = (plain != opposite).any(dim=0)
    assert 0 < int(different.sum()) < plain.shape[1]
    assert torch.equal(opposite[:, different], -plain[:, different])
    with pytest.raises(BadInput, match="_w3j_1_2_2' is neither ours nor its opposite"):
        nequip.read(changed("parity", state={name: 2 * stored}))


def test_other_files_are_not_recognised(checkpoint, tmp_path):
    torch.save({"state_dict": {}, "hyper_parameters": {}}, tmp_path / "c.ckpt")
    assert not nequip.recognises(tmp_path / "c.ckpt")
    assert not nequip.recognises(Path(__file__))
    assert nequip.recognises(checkpoint("parity"))


@pytest.fixture
def forged(tmp_path):
    """`forged(file, old, new)`: the package with other bytes in one of its files."""

    def forge(file, old, new):
        packed = (DATA / "nequip_average.nequip.zip.xz").read_bytes()
        path = tmp_path / "a.nequip.zip"
        with (
            zipfile.ZipFile(io.BytesIO(lzma.decompress(packed))) as source,
            zipfile.ZipFile(path, "w") as target,
        ):
            for entry in source.namelist():
                content = source.read(entry)
                if entry.endswith(file):
                    assert old in content
                    content = content.replace(old, new)
                target.writestr(entry, content)
        return path

    return forge


@pytest.mark.parametrize(
    ("file", "old", "new", "text"),
    [
        (
            "eager_model.pkl",
            b"nequip.nn.mlp",
            b"os.path.xmlpl",
            "contains 'os.path.xmlpl.*nothing of it was ex",
        ),
        ("config.yaml", b"NequIPGNNModel", b"AllegroModel", "a model of 'nequip.model.AllegroModel'"),
        ("config.yaml", b"training_module", b"training_modulo", "not an intact checkpoint of nequip"),
        ("package_metadata.txt", b"nequip: 0.19", b"nequip: 0.21", "written by nequip 0.21"),
    ],
)
def test_packages_are_refused_too(forged, file, old, new, text):
    path = forged(file, old, new)
    assert nequip.recognises(path)
    with pytest.raises(BadInput, match=text):
        nequip.read(path)


def test_a_hostile_file_executes_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    content = {"hyper_parameters": {}, "state_dict": {"a.type_embed.embed_module.weight": Evil()}}
    with zipfile.ZipFile(tmp_path / "evil.ckpt", "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(content, protocol=2))
    assert nequip.recognises(tmp_path / "evil.ckpt")
    with pytest.raises(
        BadInput, match=r"system', which this reader does not know; nothing of it was executed"
    ):
        nequip.read(tmp_path / "evil.ckpt")
    assert not (tmp_path / "executed").exists()
