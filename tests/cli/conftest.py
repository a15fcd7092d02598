"""A small training project in a folder of its own."""

from pathlib import Path

import pytest
from ase.io import write

from ..training.argon import CONFIG, argon


@pytest.fixture
def project(tmp_path: Path):
    """`project(epochs, more, name)` writes a configuration beside train.extxyz and test.extxyz."""
    write(tmp_path / "train.extxyz", argon(16, 0))
    write(tmp_path / "test.extxyz", argon(4, 1))

    def write_config(epochs: int = 3, more: str = "ema: 0.9", name: str = "config.yaml") -> Path:
        path = tmp_path / name
        path.write_text(CONFIG.format(epochs=epochs, more=more))
        return path

    return write_config
