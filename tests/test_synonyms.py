"""Hints about keys of other packages lead to keys that exist."""

import dataclasses
import re

import pytest

from mlplugins import models, synonyms
from mlplugins.analysis import study
from mlplugins.config import _fields, validated
from mlplugins.dynamics.settings import SimulationConfig
from mlplugins.errors import BadInput
from mlplugins.simulation.config import parse as parse_campaign
from mlplugins.training import config, finetune_config


def _families() -> set[str]:
    found = {"family"}
    for name in models.families():
        found |= {f.name for f in dataclasses.fields(models.family(name).Hyperparameters)}
    return found


def _is_key(path: str) -> bool:
    """Whether a path is a key of one of the configurations."""
    first, *rest = path.split(".")
    if first == "model" and rest:
        return rest[0] in _families()
    for root in (config.Configuration, finetune_config.FinetuneConfiguration, SimulationConfig, study.Config):
        here = root
        for name in (first, *rest):
            here = _fields(here).get(name) if here is not None else None
        if here is not None:
            return True
    return path in _fields(study.RunConfig)


def test_every_hint_leads_to_a_key():
    wrong = [ours for ours in synonyms._FOREIGN if not _is_key(ours)]
    assert not wrong


@pytest.mark.parametrize(
    ("section", "key", "ours"),
    [
        ("model", "r_max", "cutoff"),  # MACE, NequIP
        ("model", "max_ell", "l_max"),  # MACE
        ("model", "num_features", "num_channels"),  # NequIP
        ("model", "num_bessels", "num_basis"),  # NequIP
        ("model", "channel", "num_channels"),  # SevenNet
        ("model", "num_convolution_layer", "num_interactions"),  # SevenNet
        ("model", "rcut", "cutoff"),  # DeePMD-kit
        ("data", "energy_key", "data.keys.energy"),  # MACE
        ("data", "e0s", "baseline"),
        ("training", "forces_weight", "training.loss.forces"),  # MACE
        ("training", "max_epochs", "epochs"),  # NequIP
        ("training", "start_pref_f", "training.loss.forces"),  # DeePMD-kit
        ("", "E0s", "data.baseline"),  # MACE
        ("", "batch_size", "training.batch_size"),  # ours, in the wrong section
    ],
)
def test_a_key_of_another_package_in_a_training(section, key, ours):
    content = {"data": {"train": "a.xyz"}, "model": {"family": "mace"}, "training": {}}
    (content[section] if section else content)[key] = 1
    with pytest.raises(BadInput) as error:
        config.parse(content, "c.yaml")
    assert re.search(rf"unknown key '\S*{key}': (it is called|did you mean) '{ours}'", str(error.value))


def test_a_key_of_another_package_in_a_campaign_and_an_analysis():
    content = {"model": "m.pt", "structure": "a.cif", "temperature": 300, "nsteps": 10, "dt": 1.0}
    with pytest.raises(BadInput) as error:
        parse_campaign(content, "md.yaml")
    for ours in ("temperatures", "steps", "timestep"):
        assert re.search(f"(it is called|did you mean) '{ours}'", str(error.value))
    with pytest.raises(BadInput, match="'ion': (it is called|did you mean) 'species'"):
        validated(study.Config, {"ion": "Li", "runs": [{"files": ["a"], "temperature": 1.0}]}, "c.yaml")


def test_a_mistyped_key_has_its_neighbour():
    with pytest.raises(BadInput, match="'training.eopchs': did you mean 'epochs'"):
        config.parse({"data": {"train": "a"}, "model": {"family": "nequip"}, "training": {"eopchs": 1}}, "c")
