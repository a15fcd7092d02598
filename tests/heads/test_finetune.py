"""Heads on a model that exists: the frozen trunk and its energies stay, what the base had stays as well."""

import numpy as np
import pytest
import yaml
from ase.io import read, write

import mlplugins
from mlplugins.cli.main import main
from mlplugins.errors import BadInput
from mlplugins.model_file import artifact
from tests.heads.further import molecules, polarizability
from tests.heads.test_training import CONFIGURATION
from tests.heads.test_training import molecules as with_energies

HEAD = {"polarizability": {"unit": "e^2*A^2/eV", "key": "alpha", "order": "xx xy xz yy yz zz", "width": 8}}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    write(folder / "train.extxyz", with_energies(10, 0))
    write(folder / "more.extxyz", molecules(30, 1))
    data = {"train": str(folder / "train.extxyz"), "validation": 0.0}
    short = {**CONFIGURATION["training"], "epochs": 2}
    model = {**CONFIGURATION["model"], "l_max": 2}
    heads = {"dipole": CONFIGURATION["heads"]["dipole"]}
    mlplugins.train({"data": data, "heads": heads, "model": model, "training": short}, folder / "base")
    return folder


def configuration(folder, **changes):
    given = {
        "base": {"checkpoint": str(folder / "base/model.pt")},
        "data": {"train": str(folder / "more.extxyz"), "validation": 0.0, "keys": {"energy": None}},
        "finetune": {"strategy": "heads"},
        "heads": HEAD,
        "training": {"epochs": 30, "lr": 0.03, "dtype": "float64"},
    }
    return {**given, **changes}


def test_a_head_is_added_to_a_frozen_trunk(base, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(configuration(base)))
    assert main(["finetune", str(tmp_path / "c.yaml"), "-o", str(tmp_path / "run")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "polarizability" in printed.partition("errors of")[2]
    assert "energy references" not in printed
    before, after = artifact.load(base / "base/model.pt"), artifact.load(tmp_path / "run/model.pt")
    assert set(after.more) == {*before.more, "polarizability"}
    test = molecules(8, 2)
    alpha = [polarizability(atoms) for atoms in test]
    found = after.evaluate(test)
    rmse = np.sqrt(np.mean([(f.get("polarizability") - a) ** 2 for f, a in zip(found, alpha)]))
    assert rmse < 0.3 * np.std(alpha, axis=0).mean()  # it was learned
    for one, other in zip(before.evaluate(test), found):
        assert one.energy == other.energy
        np.testing.assert_array_equal(one.forces, other.forces)
        np.testing.assert_array_equal(one.get("dipole"), other.get("dipole"))
    again = artifact.load(tmp_path / "run/model.pt").record["hyperparameters"]["heads"]
    assert list(again) == ["dipole", "polarizability"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"finetune": {"strategy": "lora"}}, "strategy 'lora' trains no heads"),
        ({"finetune": {"strategy": "full"}}, "changes the trunk, and with it the energies of the base"),
        (
            {"heads": {"dipole": {"unit": "Debye", "key": "mu", "width": 9}}},
            "the base has a head 'dipole' with",
        ),
        ({"heads": {}}, "leaves nothing to learn"),
        ({"heads": {"charges": {"unit": "e", "key": "q"}}}, "charges: the base has the head 'dipole', which"),
        (
            {"heads": {"charges": {"unit": "e", "key": "q", "channels": 4}, **CONFIGURATION["heads"]}},
            "charges: those of the dipole of the base have {channels: 16, ",
        ),
    ],
)
def test_what_is_refused(base, tmp_path, changes, said):
    with pytest.raises(BadInput, match=said):
        mlplugins.finetune(configuration(base, **changes), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


@pytest.mark.long
def test_heads_and_trunk_together(base, tmp_path):
    """Frames with energies, some of which have a dipole: all of it is trained further."""
    frames = read(base / "train.extxyz", ":")
    given = configuration(
        base,
        data={"train": str(base / "train.extxyz"), "validation": 0.0},
        finetune={"strategy": "full"},
        heads={"dipole": CONFIGURATION["heads"]["dipole"]},
        training={"epochs": 1},
    )
    mlplugins.finetune(given, tmp_path / "run")
    [one], [other] = (artifact.load(p).evaluate(frames[:1]) for p in (base / "base", tmp_path / "run"))
    assert one.energy != other.energy
    assert np.abs(one.get("dipole") - other.get("dipole")).max() > 1e-6
