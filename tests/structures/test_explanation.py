"""Energies, forces and stress that one cause sets apart are recognised; errors of a model are not."""

from dataclasses import replace

import numpy as np
import pytest

from mlplugins.quantities import Results
from mlplugins.structures.dataset import read
from mlplugins.structures.explanation import explain, unfollowed

HARTREE, BOHR, GPA = 27.211386, 0.52917721, 160.21766  # eV, Å, eV/Å³


@pytest.fixture(scope="module")
def frames():
    found = read("examples/data/li6ps5cl_pbe/test.extxyz")
    return [replace(s, **_cut(s, first)) for s, first in zip(found, (0, 1, 2, 0, 5, 8, 0, 22))]


def _cut(structure, first):
    """Fewer atoms, so that compositions differ: labels need not be those of a real system here."""
    keep = {name: getattr(structure, name)[first:] for name in ("numbers", "positions", "forces")}
    return {**keep, "energy": structure.energy * (1 - first / len(structure))}


def _model(frames, noise=0.02):
    """What a good model would predict."""
    random = np.random.default_rng(5)
    return [
        Results(
            s.energy + noise * len(s) * random.normal() * 0.05,
            s.forces + noise * random.normal(size=s.forces.shape),
            stress=s.stress + noise * 0.01 * np.eye(3) * random.normal(),
        )
        for s in frames
    ]


def _labelled(frames, energy=lambda s: s.energy, forces=1.0, stress=lambda s: s.stress):
    return [replace(s, energy=energy(s), forces=forces * s.forces, stress=stress(s)) for s in frames]


def test_errors_of_a_model_are_not_explained(frames):
    for seed_noise in (0.3, 0.02, 0.001):
        assert explain(frames, _model(frames, seed_noise)) == []


def test_one_constant_or_one_per_element(frames):
    [text] = explain(_labelled(frames, lambda s: s.energy - 1.25 * len(s)), _model(frames, 1e-4))
    assert text.startswith("energy: labels − model = -1.25 eV")
    assert "eV per atom in every frame" in text

    def shifted(s):
        return s.energy + float((s.numbers == 3).sum()) * 2.0 - float((s.numbers == 16).sum()) * 7.0

    [text] = explain(_labelled(frames, shifted), _model(frames, 1e-4))
    values = dict(part.split(" eV per ")[::-1] for part in text.split(" = ")[1].split(";")[0].split(", "))
    assert {name: round(float(value), 1) for name, value in values.items()} == {
        "Li": 2.0, "P": 0.0, "S": -7.0, "Cl": 0.0,
    }  # fmt: skip
    assert "composition baseline" in text


def test_a_constant_needs_enough_frames(frames):
    """Two energies of two compositions are always explained by constants: nothing is said."""
    two = frames[:2]
    assert explain(_labelled(two, lambda s: s.energy - 1.25 * len(s)), _model(two)) == []


def test_units_of_energies_are_found_beside_a_constant(frames):
    off = _labelled(frames, lambda s: (s.energy - 800.0 * len(s)) / HARTREE)
    [text] = explain(off, _model(frames, 1e-3))
    assert text.startswith("energy: labels = 0.0367")
    assert "they are in hartree, expected eV" in text
    [text] = explain(_labelled(frames, lambda s: s.energy / len(s)), _model(frames, 1e-3))
    assert "the labels are energies per atom" in text


@pytest.mark.parametrize(
    ("factor", "text"),
    [
        (-1.0, "the sign is the opposite (gradients dE/dr"),
        (BOHR / HARTREE, "they are in hartree/bohr, expected eV/Å"),
        (-BOHR / HARTREE, "they are in hartree/bohr, expected eV/Å, and the sign is the opposite"),
        (23.0605, "they are in kcal/mol/Å"),
        (1.7, "no unit that we know"),
    ],
)
def test_units_and_sign_of_forces(frames, factor, text):
    [found] = explain(_labelled(frames, forces=factor), _model(frames))
    assert found.startswith("forces: labels = ")
    assert text in found


def test_units_and_sign_of_stress(frames):
    [text] = explain(_labelled(frames, stress=lambda s: -GPA * s.stress), _model(frames, 1e-3))
    assert "stress: labels = −160.2 × model; they are in GPa, expected eV/Å³, and the sign" in text
    [text] = explain(_labelled(frames, stress=lambda s: -s.volume * s.stress), _model(frames, 1e-3))
    assert "stress: labels = −V × model: virials" in text


@pytest.mark.parametrize(("kelvin", "said"), [(900.0, True), (0.0, False)])
def test_the_kinetic_part_of_the_stress_is_recognised(frames, kelvin, said):
    gas = [8.617333e-5 * kelvin * len(s) / s.volume * np.eye(3) for s in frames]
    labelled = [replace(s, stress=s.stress - part) for s, part in zip(frames, gas)]
    notes = [text for text in explain(labelled, _model(frames)) if "kinetic" in text]
    assert len(notes) == said
    if said:
        kelvins = float(notes[0].partition("T = ")[2].partition(" K")[0])
        assert kelvins == pytest.approx(kelvin, rel=0.05)


def test_one_frame_under_a_pressure_is_followed_by_any_factor(frames):
    """Only a factor that means something is said then."""
    one = [replace(frames[0], stress=0.01 * np.eye(3), forces=None)]
    for factor, said in ((1.7, 0), (-1.0, 1)):
        model = [Results(one[0].energy, np.zeros((52, 3)), stress=0.01 / factor * np.eye(3))]
        assert len(explain(one, model)) == said


@pytest.mark.parametrize(
    ("factor", "said"), [(1 / HARTREE, "in hartree"), (1 / 52, "per atom"), (1.03, None)]
)
def test_a_unit_is_no_other_zero_where_energies_hardly_vary(factor, said):
    """Thermal motion of 2 meV/atom: in hartree it differs from that in eV by a constant, and little else."""
    structures = read("examples/data/li6ps5cl_pbe/test.extxyz")[:12]
    random = np.random.default_rng(1)
    energies = [len(s) * (-4.0 + 2e-3 * random.normal()) for s in structures]
    labelled = [replace(s, energy=factor * e, forces=None, stress=None) for s, e in zip(structures, energies)]
    model = [Results(e, s.forces) for e, s in zip(energies, structures)]
    found = explain(labelled, model, 5e-3)
    assert len(found) == 1
    assert (said or "another zero of the energy") in found[0]


def test_labels_of_turned_structures_and_of_another_order(frames):
    """Forces in an orientation or an order of their own; as they are, or of a poor model, nothing is said."""
    same = [
        replace(s, numbers=s.numbers[:20], positions=s.positions[:20], forces=s.forces[:20]) for s in frames
    ]
    random = np.random.default_rng(3)
    model = _model(same)
    order = np.r_[3, 1, 2, 0, np.arange(4, 18), 19, 18]
    turns = [np.linalg.qr(random.normal(size=(3, 3)))[0] for _ in same]
    turns = [turn * np.sign(np.linalg.det(turn)) for turn in turns]
    turned = [replace(s, forces=s.forces @ turn) for s, turn in zip(same, turns)]
    [text] = explain(turned, model)
    assert text.startswith("forces: labels = predictions turned, in every frame")
    [text] = explain([replace(s, forces=s.forces[order]) for s in same], model)
    assert text.startswith(
        "forces: labels = predictions of other atoms (4 of 20 exchanged, alike in every frame"
    )
    noise = [Results(s.energy, random.normal(size=s.forces.shape), stress=s.stress) for s in same]
    assert explain(same, noise) == []


@pytest.mark.parametrize("name", ["born_effective_charges", "shielding"])
def test_transposed_tensors(frames, name):
    random = np.random.default_rng(1)
    model, labelled = [], []
    for s in frames:
        tensors = random.normal(size=(len(s), 3, 3))
        noise = 0.05 * random.normal(size=tensors.shape)
        model.append(Results(s.energy, s.forces, stress=s.stress, more={name: tensors + noise}))
        labelled.append(replace(s, more={name: tensors}))
    assert explain(labelled, model) == []
    turned = [replace(s, more={name: s.more[name].transpose(0, 2, 1)}) for s in labelled]
    [text] = explain(turned, model)
    assert text.startswith(f"{name}: labels = transposed predictions")


LI6 = read("examples/data/li6ps5cl_pbe/train.extxyz")


@pytest.mark.parametrize(
    ("shift", "said"),
    [
        (lambda k: 0.0, None),
        (lambda k: 3.0 * (k % 2), "in two groups, of 19 and 19 frames, 59"),
        (lambda k: 3.0 * (k % 9 == 0), "in two groups, of 33 and 5 frames, 5"),
        (lambda k: LI6[37 - k].energy - LI6[k].energy, "do not follow the model"),
    ],
)
def test_energies_that_the_forces_do_not_belong_to(shift, said):
    """A model that is right to 5 % of the forces and 3 meV/atom."""
    rng = np.random.default_rng(3)
    size = [np.std(s.forces) for s in LI6]
    predicted = [
        Results(s.energy + 52 * rng.normal(0, 0.003), s.forces + rng.normal(0, 0.05 * x, s.forces.shape))
        for s, x in zip(LI6, size)
    ]
    labels = [replace(s, energy=s.energy + shift(k)) for k, s in enumerate(LI6)]
    text = unfollowed(labels, predicted)
    assert text is None if said is None else said in text
    poor = [replace(p, forces=0.4 * p.forces) for p in predicted]  # a model that has learned little
    assert unfollowed(labels, poor) is None
