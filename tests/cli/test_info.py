"""`mlplugins info` on a model of ours and on a general metatomic model."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import torch

import mlplugins
from mlplugins.cli.main import main
from mlplugins.model_file.artifact import load
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones, nequip
from tests.models.d3_tables import filled


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
    assert main(["info", str(tmp_path / "model.pt"), "--all", "--json", str(tmp_path / "info.json")]) == 0
    text = capsys.readouterr().out
    for expected in (
        "nequip",
        "Li, S",
        "4 Å; range 12 Å = 3 layers × 4 Å",
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
    assert main(["info", str(tmp_path / "model.pt"), "--all"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^cutoff +8\.5 Å *$", text, re.M)
    assert "one layer: every mode" in text


def test_a_range_between_one_and_two_cutoffs_takes_two_layers(tmp_path):
    """D3: pairs to 9 Å, coordination numbers to 4 Å."""
    save(
        filled(["Si", "O"], cutoff=9.0, cn_cutoff=4.0),
        tmp_path / "m.pt",
        ModelCard("d3", ["Si", "O"], [0.0, 0.0]),
        "float64",
    )
    record = mlplugins.info(tmp_path / "m.pt")
    assert (record["layers"], record["interaction_range_A"]) == (2, 13.0)
    assert load(tmp_path / "m.pt").n_layers == 2


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
    text = capsys.readouterr().out
    assert "not written by mlplugins" in text
    assert "uncertainty" not in text
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


def test_info_first_says_what_a_user_needs(finished, capsys, monkeypatch, tmp_path):
    """The folder of a run is its model.pt; the errors are those of metrics.json; what is unknown is said."""
    monkeypatch.setenv("COLUMNS", "80")
    run = finished[0] / "run"
    assert main(["info", str(run), "--json", str(tmp_path / "info.json")]) == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines() if line[0] != " ")
    expected = [
        "elements",
        "cutoff",
        "accuracy",
        "radial",
        "data",
        "date",
        "licence",
        "cite",
        "model",
        "file",
    ]
    assert list(lines)[:10] == expected
    record, metrics = (json.loads(p.read_text()) for p in (tmp_path / "info.json", run / "metrics.json"))
    assert record["errors"] == {name: metrics[name] for name in ("train", "validation", "test")}
    mae = metrics["test"]["energy"]["mae_meV_per_atom"]
    assert lines["accuracy"].startswith(f"MAE of 4 test frames: energy {mae:.3g} meV/atom, ")
    assert lines["data"].startswith("frames: 12 training")
    assert (record["data"]["n_train"], record["data"]["n_validation"], record["data"]["n_test"]) == (12, 4, 4)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", record["date"])
    assert record["licence"] is None
    assert lines["licence"].strip() == "not stated"


def test_authors_licence_and_papers_of_a_model(tmp_path, capsys):
    model = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters())
    stated = {"authors": ["A. Author"], "licence": "CC-BY-4.0", "cite": ["10.1000/x"]}
    card = ModelCard("lennard-jones", ["Ar"], [0.0], details={"configuration": {"export": stated}})
    save(model, tmp_path / "model.pt", card, "float64")
    assert main(["info", str(tmp_path), "--json", str(tmp_path / "i.json")]) == 0
    text = capsys.readouterr().out
    assert "CC-BY-4.0" in text
    assert "10.1000/x" in text
    record = json.loads((tmp_path / "i.json").read_text())
    assert (record["licence"], record["authors"]) == ("CC-BY-4.0", ["A. Author"])
    assert record["references"]["model"] == ["10.1000/x"]


@pytest.mark.parametrize(
    "errors", [3, {"test": 1}, {"test": {"energy": "x"}}, {"test": {"energy": {"a": []}}}]
)
def test_a_record_of_anything(tmp_path, capsys, errors):
    details = {"errors": errors, "configuration": {"data": [1], "export": 2}, "data": "x", "source": []}
    model = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters())
    save(model, tmp_path / "model.pt", ModelCard("lennard-jones", ["Ar"], [0.0], details=details), "float64")
    assert main(["info", str(tmp_path), "--all"]) == 0
    assert "accuracy" in capsys.readouterr().out


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
