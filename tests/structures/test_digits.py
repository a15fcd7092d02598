"""Labels that were never computed, or rounded: real frames of Li6PS5Cl, changed on purpose."""

from dataclasses import replace

import numpy as np
import pytest

from mlplugins.structures import digits
from mlplugins.structures.dataset import read

FRAMES = read("examples/data/li6ps5cl_pbe/train.extxyz@:12")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s, ""),
        (lambda s: replace(s, energy=0.0), "the energy is 0 eV in all 12 frames that have forces"),
        (lambda s: replace(s, positions=np.round(s.positions, 2)), "positions have 2 decimals"),
        (lambda s: replace(s, positions=np.round(s.positions, 3)), ""),
        (lambda s: replace(s, forces=np.round(s.forces, 1)), "forces have 1 decimals"),
        (lambda s: replace(s, forces=np.round(s.forces, 2)), ""),
        (lambda s: replace(s, energy=float(np.round(s.energy))), "energies have 0 decimals"),
        (lambda s: replace(s, energy=float(np.float32(s.energy))), ""),
    ],
)
def test_digits(change, said):
    found = digits.check([change(s) for s in FRAMES])
    assert len(found) == bool(said), found
    assert not said or said in found[0]


def test_the_error_of_rounding_is_that_of_the_numbers():
    """Uniform errors of half a digit: their RMS is a digit over √12."""
    [text] = digits.check([replace(s, forces=np.round(s.forces, 1)) for s in FRAMES])
    error = np.sqrt(np.mean([np.mean((np.round(s.forces, 1) - s.forces) ** 2) for s in FRAMES]))
    assert float(text.split("errors of ")[1].split(" ")[0]) == pytest.approx(1000 * error, rel=0.05)


def test_one_crystal_and_energies_of_one_frame_are_no_mistake():
    assert digits.check([replace(s, energy=1.0) for s in FRAMES[:1]]) == []
    assert digits.check([replace(s, forces=0 * s.forces, energy=0.0) for s in FRAMES]) == []
    assert digits.check([replace(s, forces=FRAMES[0].forces, energy=0.0) for s in FRAMES]) == []
