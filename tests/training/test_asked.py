"""What a configuration asks to learn must be predicted and labelled, or it is refused before training."""

from dataclasses import replace

import numpy as np
import pytest

from mlplugins.errors import BadInput
from mlplugins.models.composition import Composition
from mlplugins.quantities import QUANTITIES, Quantity
from mlplugins.structures.dataset import Keys, from_atoms
from mlplugins.training import config
from mlplugins.training.asked import require_learnable
from mlplugins.training.data import DataSets

from .argon import argon

HELD_OUT = {"validation": "v.xyz", "test": "t.xyz"}


def _configured(loss=None, keys=None, validation=0.2, family="nequip"):
    training = {} if loss is None else {"loss": loss}
    data = {"train": "d.xyz", "validation": validation, "keys": keys or {}}
    return config.parse({"data": data, "model": {"family": family}, "training": training}, "c.yaml")


def _sets(stressed="train validation test", more=None):
    """Two frames of each set, with a stress in some of the sets."""
    parts = {}
    for seed, name in enumerate(("train", "validation", "test")):
        frames = [replace(from_atoms(a), more=more or {}, origin=name) for a in argon(2, seed)]
        parts[name] = frames if name in stressed else [replace(s, stress=None) for s in frames]
    return DataSets(**parts, baseline=Composition(["Ar"], [0.0], 1), sha256={})


def test_what_is_labelled_everywhere_is_learned():
    sets = _sets()
    found = require_learnable(_configured({"stress": 2.0}, {"stress": "REF_stress"}), sets, ["energy"])
    assert (found.train, found.warnings) == (sets.train, [])
    assert require_learnable(_configured(), _sets(""), ["energy"]).warnings == []  # nobody asked


@pytest.mark.parametrize(
    ("asked", "stressed", "validation", "refused"),
    [
        ({"loss": {"stress": 2.0}}, "", 0.2, r"training.loss: \{stress: 2\}.*4 training frames"),
        ({"loss": {"stress": 2.0}}, "train", "v.xyz", "2 validation frames"),
        ({"loss": {"stress": 2.0}}, "train validation", "v.xyz", "2 test frames"),
        ({"keys": {"virial": "w"}}, "", 0.2, r"data.keys: \{virial: w\}.*leave this key out"),
        ({"loss": {"stress": 0.0}}, "", 0.2, None),
        ({"keys": {"stress": None}}, "", 0.2, None),
        ({"keys": {"stress": "stress"}}, "", 0.2, None),  # the default, as manuals write it
    ],
)
def test_labels_that_no_frame_of_a_set_has(asked, stressed, validation, refused):
    configuration = _configured(**asked, validation=validation)
    if refused is None:
        require_learnable(configuration, _sets(stressed), ["energy"])
        return
    with pytest.raises(BadInput, match=refused):
        require_learnable(configuration, _sets(stressed), ["energy"])


def test_a_random_split_without_labels_in_one_part_is_said():
    [note] = require_learnable(_configured({"stress": 2.0}), _sets("train test"), ["energy"]).warnings
    assert "no validation frame of the random split has the label 'stress'" in note


def test_labels_that_the_model_does_not_predict_are_said(monkeypatch):
    sets = _sets(more={"spin": np.zeros(4)})
    monkeypatch.setitem(
        QUANTITIES, "spin", Quantity("spin", "spin", "s", "", per="atom", output="mlplugins::spins")
    )
    # no weight nor key of it in the sections, which were made for the shorter table
    for keys in (Keys, type(_configured().data.keys)):
        monkeypatch.setattr(keys, "spin", "spin", raising=False)
    [note] = require_learnable(_configured(), sets, ["energy"]).warnings
    assert note == "the frames hold labels that the model does not predict: spin"
    assert require_learnable(_configured(), sets, ["energy", "spin"]).warnings == []


def test_closed_forms_are_asked_by_their_keys():
    configuration = _configured(keys={"virial": "w"}, family="soap-gap")
    with pytest.raises(BadInput, match="virial: w"):
        require_learnable(configuration, _sets(""), ["energy"])
