import json
import zipfile

import numpy as np
import pytest
import torch
from ase.build import bulk

from mlplugins.checkpoints import native
from mlplugins.cli.main import main
from mlplugins.errors import BadInput
from mlplugins.model_file import artifact


@pytest.fixture
def run(finished):
    return finished[0] / "run"


def test_export_equals_the_model_of_the_run(run, tmp_path):
    output = tmp_path / "again.pt"
    assert (
        main(["export", str(run / "checkpoint.ckpt"), "-o", str(output), "--json", str(tmp_path / "e.json")])
        == 0
    )
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.rattle(0.2, seed=0)
    first, again = (artifact.load(p).evaluate([atoms])[0] for p in (run / "model.pt", output))
    assert again.energy == first.energy
    np.testing.assert_array_equal(again.forces, first.forces)
    assert json.loads((tmp_path / "e.json").read_text())["dtype"] == "float64"
    assert artifact.load(output).record["hyperparameters"]["num_features"] == 4


def test_dtype_and_portable(run, tmp_path):
    output = tmp_path / "m.pt"
    words = ["-o", str(output), "--dtype", "float32", "--portable"]
    assert main(["export", str(run / "checkpoint.ckpt"), *words]) == 0
    model = artifact.load(output)
    assert (model.dtype, model.record["portable"]) == ("float32", True)
    assert "ops.mlplugins" not in _code(output)
    assert "ops.mlplugins" in _code(run / "model.pt")


def _code(path) -> str:
    """TorchScript source of a model file; custom ops appear as ops.NAMESPACE.NAME."""
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if "/code/" in n and n.endswith(".py")]
        return "\n".join(archive.read(n).decode() for n in names)


def test_wrong_files_are_refused(run, tmp_path, capsys):
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes((run / "checkpoint.ckpt").read_bytes()[:1000])
    assert main(["export", str(broken)]) == 2
    assert "not a checkpoint of torch.save, or truncated" in capsys.readouterr().err
    torch.save({"model_state_dict": {}}, broken)
    with pytest.raises(BadInput, match="foreign checkpoints go to `mlplugins convert`"):
        native.read(broken)
    content = torch.load(run / "checkpoint.ckpt", weights_only=True)
    torch.save({**content, "format": 2}, broken)
    with pytest.raises(BadInput, match="checkpoint format 2, this mlplugins reads up to 1"):
        native.read(broken)
    torch.save({**content, "hyperparameters": {**content["hyperparameters"], "num_features": 5}}, broken)
    with pytest.raises(BadInput, match="the weights do not fit this version's 'nequip'"):
        native.read(broken)
    with pytest.raises(BadInput, match="no such checkpoint"):
        native.read(tmp_path / "nowhere.ckpt")


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"format": 1, "family": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(BadInput, match="contains .*open.*nothing of it was executed"):
        native.read(tmp_path / "evil.ckpt")
    assert not (tmp_path / "executed").exists()
