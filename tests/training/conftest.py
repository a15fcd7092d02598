"""Frames of water for the kernel families."""

import pytest
from ase.io import write

from . import molecules


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("water")
    for name, n, seed in (("train", 24, 1), ("validation", 8, 2), ("test", 12, 3)):
        write(path / f"{name}.extxyz", molecules.water(n, seed))
    return path
