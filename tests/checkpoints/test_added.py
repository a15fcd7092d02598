import re

import pytest

from mlplugins.checkpoints.added import add, doubts, learned_dispersion, terms
from mlplugins.errors import BadInput
from mlplugins.model_file.card import ModelCard
from mlplugins.models.lennard_jones import Hyperparameters, Model

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


@pytest.mark.parametrize(
    ("source", "d3", "expected"),
    [
        ({"head": "R2SCAN", "file": "pbe.pth"}, "pbe-bj", "--d3 r2scan-bj"),
        ({"head": None, "file": "mace-matpes-r2scan-ft.model"}, "pbe-zero", "--d3 r2scan-zero"),
        ({"head": "matpes_pbe", "file": "x.model"}, "PBE-BJ", None),
        ({"head": None, "file": "pes_scan_hf.pth"}, "pbe-bj", None),
        ({"head": "Default", "file": "small.model"}, "pbe-bj", None),
    ],
)
def test_dispersion_of_another_functional_than_the_model_is_named_after(source, d3, expected):
    card = ModelCard("nequip", ["O"], [0.0], details={"source": source})
    found = doubts(card, terms(d3=d3))
    assert [expected in text for text in found] == ([True] if expected else [])


@pytest.mark.parametrize(
    ("elements", "zbl", "expected"),
    [
        (["H", "O"], (0.8, 1.6), "eV for O–O at 1.02 Å; 3 of 3"),
        (["H", "C"], (0.5, 0.9), "1 of 3"),
        (["N", "He"], (0.5, 1.2), "N–N at 1.09 Å; 1 of 1"),
        (["Li", "P", "S", "Cl"], (0.7, 1.4), None),
        (["H", "O"], True, None),
        (["Ar"], (1.0, 3.0), None),
    ],
)
def test_a_repulsion_that_reaches_into_bonds(elements, zbl, expected):
    found = doubts(ModelCard("nequip", elements, [0.0] * len(elements)), terms(zbl=zbl))
    assert [bool(re.search(expected, text)) for text in found] == ([True] if expected else [])


def test_the_name_that_a_file_has_now_counts():
    card = ModelCard(
        "lennard-jones", ["Ar"], [0.0], details={"hyperparameters": {}, "source": {"file": "a.pt"}}
    )
    model = Model(["Ar"], Hyperparameters())
    with pytest.raises(BadInput, match="pbe-d3.pt was trained with dispersion"):
        add(model, card, terms(d3="pbe-bj"), "pbe-d3.pt")
