import pytest

from mlplugins.config import read_yaml
from mlplugins.errors import BadInput
from mlplugins.training import config

MINIMAL = {"data": {"train": "md.extxyz"}, "model": {"family": "nequip"}}


def with_(section: str, **values):
    return {**MINIMAL, section: {**MINIMAL.get(section, {}), **values}}


def test_defaults_are_those_of_the_documentation():
    c = config.parse(MINIMAL, "c.yaml")
    assert (c.data.validation, c.data.test, c.data.keys.energy, c.seed) == (0.1, None, "energy", 0)
    t = c.training
    assert (t.epochs, t.batch_size, t.lr) == (200, 5, 0.01)
    assert (t.loss.energy, t.loss.forces, t.loss.stress) == (1.0, 100.0, 1.0)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({**MINIMAL, "trainig": {}}, "c.yaml: unknown key 'trainig': did you mean 'training'?"),
        (with_("data", keys={"forc": "f"}), "unknown key 'data.keys.forc': did you mean 'forces'?"),
        (with_("training", loss={"force": 1}), "unknown key 'training.loss.force': did you mean 'forces'?"),
        (with_("training", lr="fast"), "'training.lr': input should be a valid number, got 'fast'"),
        (with_("training", lr=-1), "'training.lr': input should be greater than 0, got -1"),
        (with_("training", epochs=1.5), "'training.epochs': input should be a valid integer, got 1.5"),
        (with_("training", epochs=True), "'training.epochs': input should be a valid integer, got True"),
        (
            with_("data", validation=0.9),
            "'data.validation': expected a fraction between 0 and 0.5, or a file, got 0.9",
        ),
        (with_("model", cutof=5.0), "c.yaml: model: unknown key 'cutof': did you mean 'cutoff'?"),
        (with_("model", num_layers="two"), "model: 'num_layers': input should be a valid integer, got 'two'"),
        (
            with_("model", family="neqiup"),
            "c.yaml: model: unknown model family 'neqiup': did you mean 'nequip'?",
        ),
        ({"data": {}, "model": {}}, "missing key 'data.train'; missing key 'model.family'"),
        ([1, 2], "c.yaml: expected a mapping with 'data' and 'model', got list"),
    ],
)
def test_wrong_keys_are_named_with_file_and_nearest_name(content, text):
    with pytest.raises(BadInput) as caught:
        config.parse(content, "c.yaml")
    assert text in str(caught.value)


def test_yaml_numbers_are_numbers(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("a: 1e-3\nb: 5\nc: -2.5E+3\nd: .5\ne: text\nf: 1.\n")
    assert read_yaml(path, "numbers") == {"a": 1e-3, "b": 5, "c": -2500.0, "d": 0.5, "e": "text", "f": 1.0}
    assert isinstance(read_yaml(path, "numbers")["b"], int)


def test_repeated_keys_and_broken_yaml_are_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("seed: 1\nseed: 2\n")
    with pytest.raises(BadInput, match="key 'seed' twice"):
        config.load(path)
    path.write_text("a: [1\n")
    with pytest.raises(BadInput, match=r"c.yaml: not valid YAML"):
        config.load(path)


def test_data_files_are_sought_beside_the_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "a.extxyz").touch()
    (tmp_path / "b.extxyz").touch()
    path = folder / "c.yaml"
    path.write_text("data: {train: ['a.extxyz@:5', b.extxyz], test: a.ext*}\nmodel: {family: nequip}\n")
    data = config.load(path).data
    assert data.train == [str(folder / "a.extxyz@:5"), "b.extxyz"]
    assert data.test == str(folder / "a.ext*")
