"""A small training project in a folder of its own."""

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from ase.io import write

from mlplugins.cli.main import main
from tests.pictures import drawn

from ..training.argon import CONFIG, argon


def make_project(folder: Path):
    """`project(epochs, more, name)` writes a configuration beside train.extxyz and test.extxyz."""
    write(folder / "train.extxyz", argon(16, 0))
    write(folder / "test.extxyz", argon(4, 1))

    def write_config(epochs: int = 3, more: str = "ema: 0.9", name: str = "config.yaml") -> Path:
        path = folder / name
        path.write_text(CONFIG.format(epochs=epochs, more=more))
        return path

    return write_config


@pytest.fixture
def project(tmp_path: Path):
    return make_project(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """A project with the run of four epochs in `run`, and what the run printed; copy it to go on from it."""
    folder = tmp_path_factory.mktemp("finished")
    config = make_project(folder)(epochs=4)
    printed = StringIO()
    with drawn(), redirect_stdout(printed):
        assert main(["train", str(config), "-o", str(folder / "run"), "--json", str(folder / "o.json")]) == 0
    return folder, printed.getvalue()
