import numpy as np
import pytest
from ase.io import read

from mlplugins.errors import BadInput
from mlplugins.models import composition


def test_full_rank_recovers_the_energies_that_made_the_data():
    rng = np.random.default_rng(0)
    truth = np.array([-13.6, -1030.2, -432.7])
    counts = rng.integers(1, 9, size=(20, 3))
    fitted = composition.fit(counts, counts @ truth, ["H", "C", "O"])
    np.testing.assert_allclose(fitted.energies, truth, rtol=0, atol=1e-9)
    assert fitted.rank == 3
    assert fitted.note is None


def test_one_composition_shares_the_energy_equally(li6ps5cl):
    frames = read(li6ps5cl / "train.extxyz", ":")
    elements = ["Li", "P", "S", "Cl"]
    counts = [
        [f.symbols.count(e) if hasattr(f.symbols, "count") else list(f.symbols).count(e) for e in elements]
        for f in frames
    ]
    energies = [f.get_potential_energy() for f in frames]
    fitted = composition.fit(counts, energies, elements)
    mean = np.mean(energies) / 52
    np.testing.assert_allclose(fitted.energies, [mean] * 4, rtol=0, atol=1e-8)
    assert fitted.rank == 1
    assert "1 independent composition(s) for 4 elements (Li, P, S, Cl)" in fitted.note
    assert fitted.predict(frames[0].get_chemical_symbols()) == pytest.approx(52 * mean, abs=1e-6)


def test_rank_deficient_fit_still_fits_and_stays_near_the_mean():
    # H and O occur only as 2:1, so their split is not determined; C is
    counts = np.array([[2, 1, 0], [4, 2, 0], [2, 1, 1], [4, 2, 3]])
    energies = counts @ np.array([-13.0, -432.0, -1030.0])
    fitted = composition.fit(counts, energies, ["H", "O", "C"])
    assert fitted.rank == 2
    np.testing.assert_allclose(counts @ np.array(fitted.energies), energies, atol=1e-6)
    assert np.abs(fitted.energies).max() < 2 * 1030
    assert "not unique" in fitted.note


def test_nearly_equal_compositions_do_not_blow_up():
    counts = np.array([[100000.0, 100000.0], [100000.0, 100000.0 + 1e-3]])
    fitted = composition.fit(counts, [-200000.0, -200010.0], ["Li", "Cl"])
    np.testing.assert_allclose(fitted.energies, [-1.0, -1.0], atol=1e-3)


@pytest.mark.parametrize(
    ("counts", "energies", "text"),
    [
        ([[1, 0]], [-1.0], "no structure holds O; leave it out of 'elements'"),
        ([[1, 1]], [float("nan")], "energy of structure 0 is not finite"),
        ([[1, 1], [0, 0]], [-1.0, 0.0], "structure 1 has no atoms"),
        ([[1, 1, 1]], [-1.0], r"expected counts of shape \(1, 2\), got \(1, 3\)"),
    ],
)
def test_bad_input_is_named(counts, energies, text):
    with pytest.raises(BadInput, match=text):
        composition.fit(counts, energies, ["H", "O"])


def test_unknown_element_is_refused():
    with pytest.raises(BadInput, match="no energy for Xe; it holds H"):
        composition.Composition(["H"], [-13.0], 1).predict(["H", "Xe"])
