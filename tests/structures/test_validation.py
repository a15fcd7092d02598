from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from scipy.spatial.transform import Rotation

from mlplugins.errors import BadInput
from mlplugins.structures import validation
from mlplugins.structures.dataset import Keys, Structure, from_atoms


@pytest.fixture
def good() -> Structure:
    return Structure(
        numbers=np.array([18, 18]),
        positions=np.array([[0.0, 0.0, 0.0], [3.8, 0.0, 0.0]]),
        cell=np.eye(3) * 12.0,
        pbc=np.array([True] * 3),
        energy=-1.0,
        forces=np.zeros((2, 3)) + 0.1,
        stress=np.zeros((3, 3)),
        origin="data.extxyz, frame 5",
        available=("Energy", "momenta"),
    )


def check(structure, need_forces=True):
    validation.check([structure], Keys(), need_forces)


def shifted(structure, distance, **changes):
    return replace(structure, positions=structure.positions + distance, **changes)


def test_good_frames_pass(good):
    check(good)
    check(replace(good, forces=None), need_forces=False)
    isolated = replace(good, numbers=good.numbers[:1], positions=good.positions[:1], forces=np.zeros((1, 3)))
    check(replace(isolated, pbc=np.array([False] * 3), cell=np.zeros((3, 3))))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"energy": None},
            r"5: no energy \(looked for key 'energy'\); the frame holds: Energy, momenta. .*keys: {energy",
        ),
        ({"forces": None}, "frame 5: no forces .*--keys forces=NAME"),
        ({"energy": float("nan")}, "frame 5: energy is nan, expected a finite number"),
        ({"forces": np.array([[0, 0, 0], [0, np.inf, 0.0]])}, "frame 5: forces is inf at atom 1"),
        ({"positions": np.array([[0, 0, 0], [0, np.nan, 0.0]])}, "frame 5: positions is nan at atom 1"),
        ({"cell": np.diag([12.0, 12.0, 0.0])}, r"pbc T T T\) with a cell of zero volume"),
        ({"cell": np.ones((3, 3))}, "cell of zero volume"),
        ({"positions": np.zeros((2, 3))}, "atoms 0 and 1 are 0.000 Å apart"),
        ({"numbers": np.array([], int), "positions": np.zeros((0, 3))}, "frame 5: no atoms"),
    ],
)
def test_bad_frames_are_refused_by_file_and_frame(good, changes, text):
    with pytest.raises(BadInput, match=text):
        check(replace(good, **changes))


def test_slab_without_a_third_vector_is_fine(good):
    check(replace(good, cell=np.diag([12.0, 12.0, 0.0]), pbc=np.array([True, True, False]), stress=None))


def test_mixed_pbc_is_refused_unless_atoms_are_isolated(good):
    molecule = replace(good, pbc=np.array([False] * 3), origin="data.extxyz, frame 6")
    with pytest.raises(BadInput, match="frame 5 has pbc T T T, .*frame 6 has F F F.*data.mixed_pbc: true"):
        validation.check_periodicity([good, molecule])
    atom = replace(molecule, numbers=molecule.numbers[:1], positions=molecule.positions[:1])
    validation.check_periodicity([good, atom])


def test_repeated_frames_are_dropped_and_said(good):
    other = shifted(good, 0.5, origin="data.extxyz, frame 6")
    again = replace(good, origin="data.extxyz, frame 7")
    kept, warnings = validation.unique([good, other, again])
    assert kept == [good, other]
    (warning,) = warnings
    assert warning.startswith("dropped 1 duplicate frame(s)")
    assert "data.extxyz, frame 7 repeats data.extxyz, frame 5" in warning


def test_same_structure_with_other_labels_is_refused(good):
    with pytest.raises(BadInput, match=r"duplicate frames with different labels: .*\(-1.0 eV\).*\(-1.5 eV\)"):
        validation.unique([good, replace(good, energy=-1.5)])


def test_training_frames_in_the_test_set_are_refused(good):
    leaked = replace(good, origin="test.extxyz, frame 0")
    with pytest.raises(
        BadInput, match="1 test frame.* also training frames, e.g. test.extxyz, frame 0 = data"
    ):
        validation.check_disjoint([good], [shifted(good, 1.0), leaked], "test")
    validation.check_disjoint([good], [shifted(good, 1.0)], "test")


def test_energy_in_another_unit_is_noticed(good):
    frames = [shifted(good, 0.01 * k, origin=f"frame {k}") for k in range(20)]
    residuals = np.linspace(-0.02, 0.02, 20)
    assert validation.outliers(residuals, frames) == []
    residuals[13] += 27.2
    (warning,) = validation.outliers(residuals, frames)
    assert warning.startswith("1 frame(s) have energies more than 1.0 eV/atom away")
    assert "the worst frame 13" in warning
    (warning,) = validation.outliers(np.zeros(1), [replace(good, forces=good.forces * 3000)])
    assert "force component of 300 eV/Å" in warning


def test_hash_depends_on_labels_and_order(good):
    other = shifted(good, 0.5)
    hashes = {
        validation.data_hash(frames)
        for frames in ([good], [good, other], [other, good], [replace(good, energy=-1.0000001)])
    }
    assert len(hashes) == 4
    assert validation.data_hash([good]) == validation.data_hash([replace(good, origin="elsewhere")])


def test_the_same_structure_in_other_words_is_said_of_held_out_frames():
    """Moved by a lattice vector, turned, reordered, rounded: the labels are the same."""
    train = [labelled(bulk("Cu", "fcc", a=3.6, cubic=True), seed) for seed in range(5)]
    others = [labelled(bulk("Cu", "fcc", a=3.6, cubic=True), seed) for seed in range(5, 8)]
    assert validation.check_disjoint(train, others, "test") == []
    s, order = train[2], np.array([2, 0, 3, 1])
    turn = Rotation.random(random_state=0).as_matrix()
    copies = [
        replace(s, positions=s.positions + s.cell[0]),
        replace(s, positions=s.positions @ turn.T, cell=s.cell @ turn.T, forces=s.forces @ turn.T),
        replace(s, positions=s.positions[order], forces=s.forces[order]),
        replace(s, positions=np.round(s.positions, 4), forces=np.round(s.forces, 5)),
    ]
    for copy in copies:
        [note] = validation.check_disjoint(train, [*others, replace(copy, origin="copy")], "test")
        assert note.startswith("1 test frame(s) have the energy")
        assert "copy of frame 2" in note


def labelled(atoms, seed):
    atoms.rattle(0.1, seed=seed)
    atoms.calc = EMT()
    result = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    atoms.calc = SinglePointCalculator(atoms, **result)
    return from_atoms(atoms, origin=f"frame {seed}")
