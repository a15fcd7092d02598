"""Hints about keys of other packages lead to keys that exist."""

import dataclasses

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
    ("content", "said"),
    [
        # MACE
        ({"model": {"family": "mace", "r_max": 5.0}}, "'r_max': it is called 'cutoff' here"),
        ({"model": {"family": "mace", "max_ell": 2}}, "'max_ell': it is called 'l_max' here"),
        ({"model": {"family": "mace", "num_features": 2}}, "it is called 'num_channels' here"),
        ({"E0s": {"H": -13.6}}, "'E0s': it is called 'data.baseline' here"),
        ({"data": {"energy_key": "REF_energy"}}, "'data.energy_key': it is called 'data.keys.energy' here"),
        ({"training": {"forces_weight": 10}}, "it is called 'training.loss.forces' here"),
        # NequIP
        ({"model": {"family": "nequip", "num_bessels": 8}}, "it is called 'num_basis' here"),
        ({"training": {"max_epochs": 10}}, "it is called 'epochs' here"),
        # SevenNet
        ({"model": {"family": "nequip", "num_convolution_layer": 5}}, "it is called 'num_layers' here"),
        # DeePMD-kit
        ({"model": {"family": "nequip", "rcut": 6.0}}, "it is called 'cutoff' here"),
        # a key of ours in the wrong section
        ({"batch_size": 5}, "'batch_size': it is called 'training.batch_size' here"),
    ],
)
def test_a_key_of_another_package_in_a_training(content, said):
    whole = {"data": {"train": "a.xyz"}, "model": {"family": "nequip"}}
    with pytest.raises(BadInput) as error:
        config.parse(
            {**whole, **{k: {**whole.get(k, {}), **v} if k in whole else v for k, v in content.items()}}, "c"
        )
    assert said in str(error.value)


def test_a_key_of_another_package_in_a_campaign_and_an_analysis():
    content = {"model": "m.pt", "structure": "a.cif", "temperature": 300, "nsteps": 10, "dt": 1.0}
    with pytest.raises(BadInput) as error:
        parse_campaign(content, "md.yaml")
    for ours in ("temperatures", "steps", "timestep"):
        assert f"it is called '{ours}' here" in str(error.value)
    with pytest.raises(BadInput, match="'ion': it is called 'species' here"):
        validated(study.Config, {"ion": "Li", "runs": [{"files": ["a"], "temperature": 1.0}]}, "c.yaml")


def test_a_mistyped_key_has_its_neighbour():
    with pytest.raises(BadInput, match="'training.eopchs': did you mean 'epochs'"):
        config.parse({"data": {"train": "a"}, "model": {"family": "nequip"}, "training": {"eopchs": 1}}, "c")
