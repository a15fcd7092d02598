import pytest

from mlplugins.errors import BadInput
from mlplugins.training import forgetting
from mlplugins.training.references import refit

from . import toy


def fitted(structures, given=None):
    model = toy.base().potential
    predicted = [p.energy for p in forgetting.evaluate(model, structures, toy.OLD)]
    return refit(structures, predicted, toy.OLD, given)


def test_a_constant_offset_per_element_is_found_exactly():
    offsets = {"Ne": 12.5, "Ar": -310.25}
    found = fitted(toy.shifted(toy.labelled(toy.base().potential, toy.frames(6, 1)), offsets))
    assert found.composition.energies == pytest.approx([-1.5 + 12.5, 2.25 - 310.25], abs=1e-9)
    assert found.report["elements"]["Ar"]["change_eV"] == pytest.approx(-310.25, abs=1e-9)
    assert found.report["rms_after_meV_per_atom"] < 1e-6
    assert found.report["rank"] == 2
    assert len(found.warnings) == 1
    assert "eV/atom on average (limit 1)" in found.warnings[0]


def test_labels_of_the_base_change_nothing_and_warn_of_nothing():
    found = fitted(toy.labelled(toy.base().potential, toy.frames(6, 1)))
    assert found.composition.energies == pytest.approx(toy.OLD.energies, abs=1e-9)
    assert found.warnings == []


def test_one_composition_shares_the_mean_and_says_so():
    structures = toy.frames(5, 1, single_composition=True)
    labels = toy.shifted(toy.labelled(toy.base().potential, structures), {"Ne": 0.2, "Ar": 0.4})
    found = fitted(labels)
    assert found.composition.energies == pytest.approx([-1.5 + 0.3, 2.25 + 0.3], abs=1e-9)
    assert found.report["rank"] == 1
    assert "1 independent composition(s) for 2 elements" in found.warnings[0]
    assert "+0.3000 eV/atom" in found.warnings[0]


def test_an_element_without_data_keeps_its_reference():
    structures = [s for s in toy.frames(6, 1)]
    for s in structures:
        s.numbers[:] = 10
    labels = toy.shifted(toy.labelled(toy.base().potential, structures), {"Ne": 0.25})
    found = fitted(labels)
    assert found.composition.energies == pytest.approx([-1.25, 2.25], abs=1e-9)
    assert found.report["elements"]["Ar"]["change_eV"] is None
    assert found.report["n_elements"] == 1


def test_labels_that_no_offset_explains_are_doubtful():
    """Energies in another unit, as if hartree had been read as eV: the residual is in the warning."""
    labels = toy.other_theory(toy.labelled(toy.base().potential, toy.frames(20, 1)), factor=40.0)
    found = fitted(labels)
    assert found.report["rms_after_meV_per_atom"] > 100
    assert any("check units and keys" in text for text in found.warnings)


def test_given_energies_are_used_and_judged():
    labels = toy.labelled(toy.base().potential, toy.frames(6, 1))
    found = fitted(labels, {"Ne": -1.5, "Ar": 2.75})
    assert found.composition.energies == [-1.5, 2.75]
    assert found.report["fitted"] is False
    assert any("with the given energies" in text for text in found.warnings)
    with pytest.raises(BadInput, match="data.baseline: Kr not among the base's Ne, Ar"):
        fitted(labels, {"Kr": 1.0})
