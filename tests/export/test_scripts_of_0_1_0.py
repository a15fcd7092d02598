"""What scripts of 0.1.0 import goes on working."""

from mlplugins.export.metatomic import Description, save
from mlplugins.model_file.artifact import load
from mlplugins.models import lennard_jones


def test_description_and_save(tmp_path):
    model = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters())
    card = Description("lennard-jones", ["Ar"], [-1.5], name="argon", details={"a": 1}, references=["doi"])
    save(model, tmp_path / "model.pt", card, "float64", portable=False)
    found = load(tmp_path / "model.pt")
    assert (found.family, found.elements, found.name) == ("lennard-jones", ("Ar",), "argon")
    assert (found.record["baseline_eV"], found.record["a"]) == ([-1.5], 1)
    assert found.references["architecture"] == ["doi"]
