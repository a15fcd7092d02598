"""`mlplugins info` on a model of ours and on a general metatomic model."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from mlplugins.cli.main import main
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones, nequip


def save_nequip(path, dtype="float32"):
    parameters = {"cutoff": 4.0, "num_layers": 3, "num_features": 4, "l_max": 1}
    torch.manual_seed(0)
    model = nequip.Model(["Li", "S"], nequip.Hyperparameters(**parameters))
    details = {"hyperparameters": parameters, "training": {"data_sha256": "abc", "n_structures": 7}}
    save(model, path, ModelCard("nequip", ["Li", "S"], [-1.5, -2.25], "toy", details), dtype)
    return sum(p.numel() for p in model.parameters())


def test_info_of_a_message_passing_model(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    n_parameters = save_nequip(tmp_path / "model.pt")
    assert main(["info", str(tmp_path / "model.pt"), "--json", str(tmp_path / "info.json")]) == 0
    text = capsys.readouterr().out
    for expected in (
        "nequip",
        "Li, S",
        "12 Å = 3 layers × 4 Å",
        "float32",
        "data_sha256",
        "Li -1.5, S -2.25",
    ):
        assert expected in text
    record = json.loads((tmp_path / "info.json").read_text())
    assert record["parameters"] == n_parameters
    assert record["elements"] == ["Li", "S"]
    assert record["baseline_eV"] == {"Li": -1.5, "S": -2.25}
    assert (record["cutoff_A"], record["layers"], record["interaction_range_A"]) == (4.0, 3, 12.0)
    assert record["outputs"]["energy"] == "eV"
    assert record["lammps_exchange"] is True
    assert record["record"]["training"]["n_structures"] == 7
    assert record["record"]["hyperparameters"]["num_features"] == 4
    assert record["written_with"]["torch"] == torch.__version__
    assert record["bytes"] == (tmp_path / "model.pt").stat().st_size


def test_info_of_one_layer(tmp_path, capsys):
    model = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters())
    save(model, tmp_path / "model.pt", ModelCard("lennard-jones", ["Ar"], [0.0]), "float64")
    assert main(["info", str(tmp_path / "model.pt")]) == 0
    text = capsys.readouterr().out
    assert "8.5 Å = 1 layer × 8.5 Å" in text
    assert "one layer: every mode" in text


def test_info_of_a_foreign_metatomic_model(tmp_path, capsys):
    from metatomic.torch import AtomisticModel, ModelCapabilities, ModelMetadata, ModelOutput

    from .foreign import Constant

    capabilities = ModelCapabilities(
        outputs={"energy": ModelOutput(unit="eV", sample_kind="system")},
        atomic_types=[1, 8],
        interaction_range=0.0,
        length_unit="angstrom",
        supported_devices=["cpu"],
        dtype="float64",
    )
    AtomisticModel(Constant().eval(), ModelMetadata(name="constant"), capabilities).save(
        str(tmp_path / "m.pt")
    )
    assert main(["info", str(tmp_path / "m.pt"), "--json", str(tmp_path / "info.json")]) == 0
    assert "not written by mlplugins" in capsys.readouterr().out
    record = json.loads((tmp_path / "info.json").read_text())
    assert record["family"] is None
    assert record["layers"] is None
    assert record["elements"] == ["H", "O"]
    assert record["devices"] == ["cpu"]
    assert record["energy_per_atom"] is False


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_info_refuses_other_files(tmp_path, capsys, content):
    path = tmp_path / "file.pt"
    if content is not None:
        path.write_bytes(content)
    assert main(["info", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mlplugins: error: ")
    assert "file.pt" in error
    assert len(error.strip().splitlines()) == 1


def test_info_does_without_torch(tmp_path):
    """Reading a description costs half a second, not the import of torch and metatomic."""
    save_nequip(tmp_path / "model.pt")
    code = (
        "import sys; from mlplugins.cli.main import main; "
        f"assert main(['info', {str(tmp_path)!r}]) == 0; "
        "print(*sorted({'torch', 'metatomic', 'lightning', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""
