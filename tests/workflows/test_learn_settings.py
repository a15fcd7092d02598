"""Configurations of the learning loop that are refused, and why a loop is over."""

import pytest

from mlplugins.errors import BadInput
from mlplugins.workflows import learn as module
from mlplugins.workflows._learn_config import load
from mlplugins.workflows.learn import learn
from tests.workflows.test_learn import GAP, _config

WRONG = {
    "a key of explore": ({"explore": {"tempreatures": [300]}}, "tempreatures"),
    "no method": ({"uncertainty": {"method": "comittee"}}, "uncertainty.method"),
    "a hyper-parameter": ({"model": {**GAP, "n_maxx": 3}}, "n_maxx"),
    "a kind of label": ({"labels": {"kind": "emtt"}}, "did you mean 'emt'"),
    "a store": ({"labels": {"kind": "emt", "store": "x"}}, "labels.store"),
    "the loop's own": ({"explore": {"seeds": [3]}}, "the loop sets it"),
    "no structure": ({"explore": {"structures": ["no.cif"]}}, "no such structure file"),
    "a kernel has no last layer": (
        {"uncertainty": {"method": "llpr"}},
        "no 'llpr', expected 'committee' or 'gp'",
    ),
    "warm kernels": ({"warm": 0.5}, "'soap-gap' is solved in closed form, with no weights to begin with"),
    "thresholds that leave nothing": ({"explore": {"stop_above": 0.05}}, "no frame would be a candidate"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_configurations_are_refused_before_the_work(tmp_path, case):
    change, message = WRONG[case]
    content = _config(tmp_path)
    for key, value in change.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    with pytest.raises(BadInput, match=message):
        learn(content, tmp_path / "loop")
    assert not (tmp_path / "loop").exists()


def test_a_network_is_no_gaussian_process(tmp_path):
    content = _config(tmp_path, model={"family": "nequip", "cutoff": 4.0}, training={"epochs": 1})
    with pytest.raises(BadInput, match="'nequip' has no 'gp', expected 'committee' or 'llpr'"):
        load(content)


def test_what_a_warm_start_or_an_auxiliary_model_cannot_be(tmp_path):
    content = _config(tmp_path, model={"family": "nequip", "cutoff": 3.8}, uncertainty={})
    stages = {"training": {"stages": [{"name": "a", "epochs": 2}]}, "warm": 0.5}
    with pytest.raises(BadInput, match="'warm': the stages of 'training' are those of a training"):
        load({**content, **stages})
    with pytest.raises(BadInput, match="'soap-gap' has no 'auxiliary', expected 'committee' or 'gp'"):
        load(_config(tmp_path, uncertainty={"method": "auxiliary"}))


def test_why_it_is_over(tmp_path):
    """Sure by what the models say, by what the labels say, and twice."""
    config = load(_config(tmp_path, until={"expected_error": 0.1, "rounds": 9, "labels": 60}))
    sure = {"halted": 0, "n_above": 1, "n_frames": 200, "n_chosen": 4, "target": 0.1}
    sure["surprise"] = {"worst_rms_eV_A": 0.08}
    wrong = {**sure, "surprise": {"worst_rms_eV_A": 0.3}}
    assert "2 rounds in a row" in module._enough(config, [sure, sure])
    assert module._enough(config, [sure]) == ""
    assert module._enough(config, [sure, wrong]) == ""
    assert module._enough(config, [sure, {**sure, "halted": 1}]) == ""
    assert module._enough(config, [sure, {**sure, "n_above": 3}]) == ""
    assert "60 labels" in module._enough(config, [{**wrong, "n_chosen": 30}] * 2)
    failed = {**sure, "surprise": None}
    assert module._enough(config, [failed, failed]) == ""
    assert "2 rounds in a row" in module._enough(config, [{**failed, "n_chosen": 0}] * 2)
    assert "9 rounds" in module._enough(config, [wrong] * 9)
