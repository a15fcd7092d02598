"""Exchanged elements by how close they come, on frames of DFT."""

import itertools

import numpy as np
import pytest
from ase.io import read

from mlplugins.structures import nearest


@pytest.fixture(scope="module")
def known(li6ps5cl):
    return nearest.shortest(read(li6ps5cl / "train.extxyz", ":"))


@pytest.fixture(scope="module")
def others(li6ps5cl):
    return read(li6ps5cl / "test.extxyz", ":")


def exchanged(atoms, first, second):
    symbols = np.array(atoms.get_chemical_symbols())
    changed = np.where(symbols == first, second, np.where(symbols == second, first, symbols))
    return type(atoms)(list(changed), atoms.positions, cell=atoms.cell, pbc=True)


def test_frames_that_were_not_trained_on_raise_no_alarm(known, others):
    assert known["P-S"] == pytest.approx(1.88, abs=0.01)
    assert known["P-P"] == nearest.REACH
    assert [nearest.too_close(known, atoms) for atoms in others] == [""] * len(others)


@pytest.mark.parametrize("pair", list(itertools.combinations(("Li", "P", "S", "Cl"), 2)))
def test_every_exchange_is_told(known, others, pair):
    for atoms in others[:3]:
        assert "elements exchanged" in nearest.too_close(known, exchanged(atoms, *pair))


def test_lengths_in_another_unit_are_told(known, others):
    atoms = others[0].copy()
    atoms.set_cell(atoms.cell * 0.529177, scale_atoms=True)
    assert "lengths in another unit" in nearest.too_close(known, atoms)


def test_nothing_is_recorded_of_few_frames_or_known_of_other_elements(known, others):
    assert nearest.shortest(others[: nearest.FEWEST - 1]) == {}
    assert nearest.too_close({}, others[0]) == ""
    other = exchanged(exchanged(others[0], "S", "Se"), "P", "As")
    assert nearest.too_close({"Se-Te": 5.0}, other) == ""
