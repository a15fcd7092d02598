import pytest

from mlplugins.checkpoints.added import learned_dispersion

PLAIN = [
    "SevenNet_0.pth",
    "mace-mp-0b3-medium.model",
    "d3zbl/model.pt",
    "id34.pth",
    "md3.pth",
    "matpes_r2scan",
    "no_vdw",
    "pbe-noD3",
    "PBE_without_dispersion.pth",
]
WITH = [
    "PBE-D3.pth",
    "pbe_d3bj.model",
    "MACE-OFF24_medium.model",
    "wB97M-V",
    "revPBE-D3(BJ)",
    "omol25_low",
    "x_vdw.pth",
    "NO_D3",
    "pbe_d3_no_vdw10",
]


@pytest.mark.parametrize("name", PLAIN)
def test_names_that_say_nothing_of_dispersion(name):
    assert learned_dispersion({"source": {"file": name, "head": None}}) is None


@pytest.mark.parametrize("name", WITH)
@pytest.mark.parametrize(
    "record",
    [
        lambda name: {"source": {"file": "model.pt", "head": name}},
        lambda name: {"finetune": {"base": {"file": name}}},
        lambda name: {"configuration": {"data": {"train": f"data/{name}.extxyz", "keys": {}}}},
        lambda name: {"configuration": {"data": {"train": ["a.extxyz", f"{name}.extxyz@:9"]}}},
    ],
)
def test_names_of_levels_of_theory_with_dispersion(name, record):
    assert learned_dispersion(record(name)) is not None


@pytest.mark.parametrize(("place", "learned"), [("add", False), ("subtract", False), ("zbl", True)])
def test_labels_that_lost_their_dispersion(place, learned):
    data = {"train": ["pbe_d3.extxyz"], "keys": {"energy": "pbe_d3_energy"}}
    terms = {"zbl": True, "d3": None} if place == "zbl" else {"zbl": None, "d3": "pbe-bj"}
    configuration = {"data": data, "add": terms}
    if place == "subtract":
        configuration = {"data": {**data, "subtract": terms}, "add": None}
    assert (learned_dispersion({"configuration": configuration}) is not None) == learned


def test_a_student_of_a_model_with_dispersion():
    assert learned_dispersion({"finetune": {"base": {"file": "b.pt"}, "dispersion": "D3 of the base"}})
