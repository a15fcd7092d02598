"""Kernel families: data and settings that are refused, or said, before anything is computed."""

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from mlplugins.errors import BadInput
from mlplugins.training import config, solve

from . import molecules
from .solving import FIXED, Silent, content, refused, run


def test_another_composition_is_refused(folder, tmp_path):
    frames = molecules.water(4, 1)
    frames[2] = molecules.label(Atoms("HOH", frames[2].positions[[1, 0, 2]]))
    write(tmp_path / "mixed.extxyz", frames)
    text = refused(folder, tmp_path, "kreg", data={"train": str(tmp_path / "mixed.extxyz")})
    assert "frame 2: HOH" in text
    assert "sorted-coulomb-matrix" in text


def test_a_periodic_molecule_is_refused(folder, tmp_path):
    frames = molecules.water(4, 1)
    for atoms in frames:
        atoms.set_cell(np.eye(3) * 12)
        atoms.pbc = True
    write(tmp_path / "periodic.extxyz", frames)
    files = {"train": str(tmp_path / "periodic.extxyz"), "validation": 0.0, "test": None}
    assert "one molecule in vacuum" in refused(folder, tmp_path, "kreg", data=files)


def test_a_matrix_larger_than_memory_is_refused_with_its_size(folder, tmp_path):
    text = refused(folder, tmp_path, "kreg", {**FIXED, "memory_gb": 1e-5, "method": "cholesky"})
    assert "128 unknowns" in text
    assert "method: cg" in text
    assert "fewer frames" in text


def test_a_group_too_large_is_refused(folder, tmp_path):
    ring = Atoms("O" + "H" * 8, [[0, 0, 0], *(np.random.default_rng(0).normal(0, 3, (8, 3)) + 3)])
    frames = [molecules.label(ring.copy()) for _ in range(3)]
    rng = np.random.default_rng(1)
    for atoms in frames:
        atoms.positions += rng.normal(0, 0.02, (9, 3))
        molecules.label(atoms)
    write(tmp_path / "ring.extxyz", frames)
    cycle = [[0, 2, 1, 3, 4, 5, 6, 7, 8], [0, 2, 3, 4, 5, 6, 7, 8, 1]]
    files = {"train": str(tmp_path / "ring.extxyz"), "validation": 0.0, "test": None}
    assert "group too large" in refused(folder, tmp_path, "kreg", data=files, permutations=cycle)


def test_nearly_equal_frames_are_refused_or_said(folder, tmp_path):
    """Two frames 1e-6 Å apart: the matrix without regularisation is singular; the jitter is reported."""
    frames = molecules.water(6, 1)
    twin = frames[0].copy()
    twin.positions[0, 0] += 1e-6
    write(tmp_path / "twins.extxyz", [*frames, molecules.label(twin)])
    files = {"train": str(tmp_path / "twins.extxyz"), "validation": 0.0, "test": None}
    trained, observer = run(
        folder, tmp_path / "out", "kreg", {"regularisation": 1e-30}, data=files, sigma=2.0
    )
    assert trained.metrics["solver"]["jitter"] > 0
    assert any("jitter" in note for note in observer.notes)
    assert any(note.startswith("1 pair(s) of frames") for note in observer.notes), observer.notes


def test_frames_that_only_look_different_are_said(folder, tmp_path):
    """A rotated frame, and for a model with permutations one whose hydrogens are exchanged."""
    frames = molecules.water(6, 1)
    rotated, exchanged = frames[1].copy(), frames[3].copy()
    rotated.rotate(70, (1, 2, 3))
    exchanged.positions[[1, 2]] = exchanged.positions[[2, 1]]
    write(tmp_path / "twins.extxyz", [*frames, molecules.label(rotated), molecules.label(exchanged)])
    files = {"train": str(tmp_path / "twins.extxyz"), "validation": 0.0, "test": None}
    for permutations, pairs in (("none", 1), ([[0, 2, 1]], 2)):
        settings = {"sigma": 2.0, "permutations": permutations}
        _, observer = run(folder, tmp_path / str(pairs), "kreg", FIXED, data=files, **settings)
        assert [note for note in observer.notes if note.startswith(f"{pairs} pair(s) of frames")]
    _, observer = run(folder, tmp_path / "usual", "kreg", FIXED, sigma=2.0)
    assert not [note for note in observer.notes if "pair(s) of frames" in note]


@pytest.mark.parametrize(
    ("training", "model", "expected"),
    [
        ({"epochs": 3}, {}, "unknown key"),
        ({"targets": "dipoles"}, {}, "training.targets"),
        ({"search": {"method": "grit"}}, {}, "training.search.method"),
        (FIXED, {"descriptor": "soap"}, "descriptor"),
        (FIXED, {"cutoff": 1.2}, "model.cutoff: .* Å apart"),
        (FIXED, {"kernel": "laplacian"}, "no second derivatives"),
        (FIXED, {"permutations": [[0, 1]]}, "the numbers 0 … 2"),
        (FIXED, {"permutations": [[1, 0, 2]]}, "different elements"),
        ({"search": {"sigma": [1.0]}}, {}, "training.search.sigma"),
        ({"method": "cg", "search": {"objective": "likelihood"}}, {}, "needs the factorised matrix"),
    ],
)
def test_wrong_settings_are_named(folder, tmp_path, training, model, expected):
    with pytest.raises(BadInput, match=expected):
        run(folder, tmp_path / "out", "kreg", training, **model)


def test_a_learning_curve_beyond_the_frames_is_refused_before_the_fit(folder, tmp_path):
    observer = Silent()
    parsed = config.parse(content(folder, "kreg", {**FIXED, "learning_curve": [500]}, sigma=2.0), "c.yaml")
    with pytest.raises(BadInput, match="learning_curve: expected up to 24"):
        solve.train(parsed, tmp_path, observer)
    assert not any("kernel matrix" in note for note in observer.notes)


def test_a_search_without_held_out_frames_is_refused(folder, tmp_path):
    text = refused(folder, tmp_path, "kreg", {}, data={"validation": 0.0, "test": None})
    assert "folds: 5" in text


def test_float32_is_refused(folder, tmp_path):
    parsed = config.parse({**content(folder, "kreg"), "export": {"dtype": "float32"}}, "c.yaml")
    with pytest.raises(BadInput, match="expected float64"):
        solve.train(parsed, tmp_path / "out", Silent())
