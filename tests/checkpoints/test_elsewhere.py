"""Files that are not converted are named, with what to do instead; as their packages write them."""

import json
import zipfile
from pathlib import Path

import pytest
import torch

from mlplugins import checkpoints
from mlplugins.errors import BadInput
from tests.engines import direct_model


def program(path: Path, *entries: str) -> Path:
    """An archive with these entries below its folder."""
    with zipfile.ZipFile(path, "w") as archive:
        for entry in ("version", *entries):
            archive.writestr(f"model/{entry}", "3\n")
    return path


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


WEIGHT = torch.zeros(2)
MATTERSIM = {
    "model_name": "m3gnet",
    "model": {},
    "model_args": {},
    "validation_metrics": {},
    "description": "",
}
METATRAIN = {"architecture_name": "pet", "model_ckpt_version": 11, "model_data": {}}
ORB = {"model._encoder._node_fn.mlp.NN-0.weight": WEIGHT, "model.gnn_stacks.0._edge_mlp.weight": WEIGHT}
CHGNET = {"composition_model.fc.weight": WEIGHT, "bond_basis_expansion.rbf_expansion_ag.frequencies": WEIGHT}
DEEPMD = {
    "model.Default.atomic_model.descriptor.a": WEIGHT,
    "model.Default.atomic_model.fitting_net.b": WEIGHT,
}
FILES = {
    "deepmd program": (
        lambda p: program(p, "code/__torch__/deepmd/pt/model.py"),
        "DeePMD-kit.*pair_style deepmd",
    ),
    "deepmd checkpoint": (lambda p: saved(p, {"model": DEEPMD}), "DeePMD-kit"),
    "compiled nequip": (
        lambda p: program(p, "code/__torch__/nequip/nn/graph_model.py"),
        "package .* it is made of",
    ),
    "pt2": (lambda p: program(p, "data/aotinductor/model/cabc.so"), "AOTInductor"),
    "metatrain": (lambda p: saved(p, METATRAIN), "PET-MAD, UPET.*mtt export FILE -o model.pt"),
    "mattersim": (lambda p: saved(p, MATTERSIM), "MatterSim, which is not converted: `mlplugins label`"),
    "orb": (lambda p: saved(p, ORB), "weights of an ORB model"),
    "chgnet": (lambda p: saved(p, {"model": {"state_dict": CHGNET}}), r"CHGNet: examples/09_chgnet.py"),
    "aimnet": (lambda p: saved(p, {"format_version": 2, "model_yaml": "", "cutoff": 5.0}), "AIMNet"),
    "torchani": (lambda p: program(p, "code/__torch__/torchani/models.py"), "TorchANI"),
    "a program": (
        lambda p: program(p, "code/__torch__/mine.py"),
        "TorchScript program that is no metatomic model",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_files_are_named(name, tmp_path):
    write, text = FILES[name]
    with pytest.raises(BadInput, match=text):
        checkpoints.read(write(tmp_path / "model.pt"))


def test_files_that_are_no_archives_are_named(tmp_path):
    line = json.dumps({"hidden_irreps": "4x0e", "lmax": 0, "radial_mlp_size": 4}).encode()
    contents = {
        "PyTorch backend: convert the .nqx": line + b"\n" + b"PK\x03\x04",
        "a file in HDF5": b"\x89HDF\r\n\x1a\n" + bytes(64),
        "graph of TensorFlow": b"\n\x1a\n\x0bPlaceholder" + bytes(64),
        "safetensors": (64).to_bytes(8, "little") + b'{"a":{}}' + bytes(64),
    }
    for text, content in contents.items():
        (tmp_path / "m").write_bytes(content)
        with pytest.raises(BadInput, match=text):
            checkpoints.read(tmp_path / "m")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>Not Found", "a web page"),
    ],
)
@pytest.mark.parametrize("name", ["model.nqx", "model.pth"])
def test_what_a_download_left_is_named(name, content, text, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadInput, match=text):
        checkpoints.read(path)


def test_folders_are_named(tmp_path):
    for folder, names in {
        "grace": ["saved_model.pb"],
        "matgl": ["model.json", "model.pt", "state.pt"],
    }.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_bytes(b"")
    with pytest.raises(BadInput, match="SavedModel, such as those of GRACE"):
        checkpoints.read(tmp_path / "grace")
    with pytest.raises(BadInput, match="a model of MatGL"):
        checkpoints.read(tmp_path / "matgl")
    with pytest.raises(BadInput, match="no such checkpoint"):
        checkpoints.read(tmp_path)


def test_a_pickle_of_fairchem_is_named_and_not_run(tmp_path):
    program_text = b"\x80\x02cfairchem.core.units.mlip_unit.api.inference\nMLIPInferenceCheckpoint\n)\x81."
    with zipfile.ZipFile(tmp_path / "uma.pt", "w") as archive:
        archive.writestr("uma/data.pkl", program_text)
        archive.writestr("uma/version", "3\n")
    with pytest.raises(BadInput, match=r"fairchem \(UMA, eSEN\), which is not converted: `mlplugins label`"):
        checkpoints.read(tmp_path / "uma.pt")


def test_a_metatomic_model_needs_no_conversion(tmp_path):
    direct_model.write(tmp_path / "theirs.pt")
    with pytest.raises(BadInput, match="a metatomic model: it runs here as it is"):
        checkpoints.read(tmp_path / "theirs.pt")
