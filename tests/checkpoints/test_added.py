import pytest

from mlplugins.checkpoints.added import learned_dispersion

PLAIN = [
    "SevenNet_0.pth",
    "mace-mp-0b3-medium.model",
    "d3zbl/model.pt",
    "id34.pth",
    "md3.pth",
    "matpes_r2scan",
]
WITH = [
    "PBE-D3.pth",
    "pbe_d3bj.model",
    "MACE-OFF24_medium.model",
    "wB97M-V",
    "revPBE-D3(BJ)",
    "omol25_low",
    "x_vdw.pth",
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
    ],
)
def test_names_of_levels_of_theory_with_dispersion(name, record):
    assert learned_dispersion(record(name)) is not None


def test_a_student_of_a_model_with_dispersion():
    assert learned_dispersion({"finetune": {"base": {"file": "b.pt"}, "dispersion": "D3 of the base"}})
