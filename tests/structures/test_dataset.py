import gzip

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from mlplugins.errors import BadInput
from mlplugins.structures.dataset import Keys, from_atoms, read


@pytest.fixture
def frames() -> list[Atoms]:
    rng = np.random.default_rng(1)
    result = []
    for k in range(4):
        atoms = Atoms("Ar4", positions=[[0, 0, 0], [2.6, 2.6, 0], [2.6, 0, 2.6], [0, 2.6, 2.6]])
        atoms.set_cell([[5.2, 0, 0], [0.4, 5.3, 0], [0, 0.3, 5.1 + 0.1 * k]])
        atoms.pbc = True
        atoms.positions += rng.normal(0, 0.1, (4, 3))
        atoms.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=8.0, smooth=True)
        labels = {
            "energy": atoms.get_potential_energy(),
            "forces": atoms.get_forces(),
            "stress": atoms.get_stress(),
        }
        atoms.calc = SinglePointCalculator(atoms, **labels)
        result.append(atoms)
    return result


def same(structures, frames):
    assert len(structures) == len(frames)
    for structure, atoms in zip(structures, frames):
        np.testing.assert_allclose(structure.positions, atoms.positions, atol=1e-7)
        np.testing.assert_allclose(structure.cell, atoms.cell.array, atol=1e-7)
        assert structure.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(structure.forces, atoms.get_forces(), atol=1e-7)
        np.testing.assert_allclose(structure.stress, atoms.get_stress(voigt=False), atol=1e-9)


def test_every_ase_format_gives_the_same_structures(frames, tmp_path):
    write(tmp_path / "a.extxyz", frames)
    write(tmp_path / "a.traj", frames)
    with ase.db.connect(tmp_path / "a.db") as database:
        for atoms in frames:
            database.write(atoms)
    with gzip.open(tmp_path / "a.xyz.gz", "wb") as stream:
        stream.write((tmp_path / "a.extxyz").read_bytes())
    for name in ("a.extxyz", "a.traj", "a.db", "a.xyz.gz"):
        same(read(tmp_path / name), frames)


def test_slices_globs_and_lists(frames, tmp_path):
    write(tmp_path / "a1.extxyz", frames[:2])
    write(tmp_path / "a2.extxyz", frames[2:])
    same(read(f"{tmp_path}/a*.extxyz"), frames)
    same(read([f"{tmp_path}/a1.extxyz@:1", f"{tmp_path}/a2.extxyz@1"]), [frames[0], frames[3]])
    write(tmp_path / "all.extxyz", frames)
    structures = read(f"{tmp_path}/all.extxyz@1::2")
    same(structures, frames[1::2])
    assert [s.origin.split(", ")[1] for s in structures] == ["frame 1", "frame 3"]


def test_key_mapping_finds_info_arrays_and_calculator(frames):
    atoms = frames[0]
    results = dict(atoms.calc.results)
    atoms.calc = None
    atoms.info["E0"] = results["energy"]
    atoms.arrays["f_dft"] = results["forces"]
    structure = from_atoms(atoms, Keys(energy="E0", forces="f_dft"))
    assert structure.energy == results["energy"]
    np.testing.assert_array_equal(structure.forces, results["forces"])
    assert structure.stress is None
    assert from_atoms(atoms).energy is None


def test_virial_is_minus_volume_times_stress(frames):
    atoms = frames[0]
    stress = atoms.get_stress(voigt=False)
    atoms.info["virial"] = -atoms.get_volume() * stress
    structure = from_atoms(atoms, Keys(stress=None, virial="virial"))
    np.testing.assert_allclose(structure.stress, stress, rtol=0, atol=1e-14)


def test_to_atoms_round_trip(frames):
    structure = from_atoms(frames[0])
    same([structure], [structure.to_atoms()])


@pytest.mark.parametrize(
    ("results", "text"),
    [
        ({"energy": [1.0, 2.0]}, "x, frame 7: energy .*expected one number, got"),
        (
            {"energy": 0.0, "forces": np.zeros((2, 3))},
            r"forces \(key 'forces'\): expected shape \(4, 3\), got \(2, 3\)",
        ),
        ({"energy": 0.0, "stress": np.zeros(5)}, "expected 6 .* or 9 numbers, got 5"),
    ],
)
def test_labels_of_wrong_shape_are_refused(frames, results, text):
    atoms = frames[0]
    atoms.calc = None
    atoms.info.update(results)
    with pytest.raises(BadInput, match=text):
        from_atoms(atoms, origin="x, frame 7")


def test_missing_damaged_and_empty_files(frames, tmp_path):
    with pytest.raises(BadInput, match="no such data file: 'nowhere.xyz'"):
        read("nowhere.xyz")
    packed = tmp_path / "broken.xyz.gz"
    packed.write_bytes(gzip.compress(b"1\n\nAr 0 0 0\n" * 1000)[:-20])
    with pytest.raises(BadInput, match=r"broken.xyz.gz: ASE cannot read it \(EOFError"):
        read(packed)
    broken = tmp_path / "broken.extxyz"
    broken.write_text("12\nnot enough\nAr 0 0 0\n")
    with pytest.raises(BadInput, match=r"broken.extxyz: ASE cannot read it"):
        read(broken)
    write(tmp_path / "a.extxyz", frames)
    with pytest.raises(BadInput, match="expected a slice such as @:50"):
        read(f"{tmp_path}/a.extxyz@first")
    with pytest.raises(BadInput, match="no frames found"):
        read(f"{tmp_path}/a.extxyz@100:")
