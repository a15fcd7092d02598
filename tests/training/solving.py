"""One call of `mlplugins train` for a kernel family, and what it said."""

import pytest

from mlplugins.errors import BadInput
from mlplugins.training import config, solve

SIGMA = {"krr-cm": 20.0}
FIXED = {"regularisation": 1e-9}


class Silent:
    def __init__(self):
        self.notes = []

    def start(self, epoch, epochs):
        pass

    def epoch(self, row, epochs, best):
        pass

    def note(self, text):
        self.notes.append(text)


def content(folder, family, training=FIXED, **more):
    data = {name: str(folder / f"{name}.extxyz") for name in ("train", "validation", "test")}
    return {
        "data": {**data, **more.pop("data", {})},
        "model": {
            "family": family,
            **({"sigma": SIGMA.get(family, 2.0)} if training is FIXED else {}),
            **more,
        },
        "training": training,
    }


def run(folder, directory, family, training=FIXED, **more):
    observer = Silent()
    parsed = config.parse(content(folder, family, training, **more), "c.yaml")
    return solve.train(parsed, directory, observer), observer


def refused(folder, tmp_path, family, training=FIXED, **more):
    with pytest.raises(BadInput) as raised:
        run(folder, tmp_path / "out", family, training, **more)
    return str(raised.value)
