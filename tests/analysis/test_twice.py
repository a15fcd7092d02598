"""Frames and samples that come again, whatever the files are called and however they are written."""

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from mlplugins.analysis import twice
from mlplugins.analysis.study import conductivity
from mlplugins.analysis.trajectory import ReadSettings, read_trajectory
from mlplugins.errors import BadInput

CELL, N = 12.0, 300


@pytest.fixture(scope="module")
def frames():
    """Eight Li that walk and eight S that shake."""
    rng = np.random.default_rng(2)
    start = rng.permutation(np.stack(np.meshgrid(*[np.arange(3) * 4.0] * 3), -1).reshape(-1, 3))[:16]
    moved = np.cumsum(rng.normal(0, 0.2, (N, 16, 3)), axis=0)
    moved[:, 8:] = rng.normal(0, 0.05, (N, 8, 3))
    return [Atoms("Li8S8", start + each, cell=[CELL] * 3, pbc=True) for each in moved]


WAYS = [((0, N), "from 301 on are those from 1 on"), ((150, N), "151"), (None, "")]
COPIES = [(2, "begin anew with sample 500"), (3.5, "anew"), (5, "anew"), (8, "")]


@pytest.mark.parametrize("name", ["md.extxyz", "md.traj"])
@pytest.mark.parametrize(
    ("again", "said"), [((0, N), "from 301 on are those from 1 on"), ((150, N), "151"), (None, "")]
)
def test_a_trajectory_joined_to_itself(frames, tmp_path, name, again, said):
    write(tmp_path / name, [*frames, *(frames[slice(*again)] if again else ())])
    settings = ReadSettings("Li", timestep_fs=1.0, interval=100)
    if not said:
        assert read_trajectory([tmp_path / name], settings).n_frames == N
        return
    with pytest.raises(BadInput, match=said):
        read_trajectory([tmp_path / name], settings)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (slice(0, N), r"(299|300) frames of"),
        (slice(120, N), r"1[78]\d frames of .*from 12\d on"),
        (slice(0, 1), None),
    ],
)
def test_a_run_under_another_name_and_in_another_format(frames, tmp_path, second, said):
    """Wrapped, and with fewer digits; runs that start from one structure are runs of their own."""
    write(tmp_path / "all.traj", frames)
    rng = np.random.default_rng(5)
    rest = [atoms.copy() for atoms in frames[second]]
    for _ in range(N - len(rest)) if said is None else ():
        atoms = rest[-1].copy()
        atoms.positions[:8] += rng.normal(0, 0.2, (8, 3))
        rest.append(atoms)
    for atoms in rest:
        atoms.positions = np.round(atoms.positions, 6)
        atoms.wrap()
    write(tmp_path / "part.extxyz", rest)
    runs = [{"files": [str(tmp_path / name)], "temperature": 600.0} for name in ("all.traj", "part.extxyz")]
    study = {"species": "Li", "timestep": 1.0, "interval": 100, "runs": runs}
    if said is None:
        assert len(conductivity(study).runs) == 1
        return
    with pytest.raises(BadInput, match=said):
        conductivity(study)


def test_atoms_at_rest_and_one_rattling_ion_are_nothing_twice():
    rng = np.random.default_rng(0)
    still = np.full((500, 4, 3), 0.25)
    assert twice.shared(*[np.array([twice.mark(x) for x in still], dtype=np.uint64)] * 2) is None
    rattling = [
        np.array([twice.mark(x) for x in rng.normal(0.5, 0.002, (4000, 1, 3))], np.uint64) for _ in range(2)
    ]
    assert twice.shared(*rattling) is None
    assert twice.shared(rattling[0], rattling[0]) is None


@pytest.mark.parametrize(
    ("copies", "said"), [(2, "begin anew with sample 500"), (3.5, "anew"), (5, "anew"), (8, "")]
)
def test_series_that_begin_anew(tmp_path, copies, said):
    series = np.random.default_rng(1).normal(size=(500, 3))
    values = np.tile(series, (8, 1))[: int(500 * copies)]
    if not said:
        twice.in_one_piece(tmp_path / "j.npy", values)
        return
    with pytest.raises(BadInput, match=said):
        twice.in_one_piece(tmp_path / "j.npy", values)


@pytest.mark.parametrize("copies", [1, 2])
def test_a_supercell_made_of_a_trajectory(frames, tmp_path, copies):
    write(tmp_path / "md.extxyz", [atoms * (copies, 1, 1) for atoms in frames])
    run = read_trajectory([tmp_path / "md.extxyz"], ReadSettings("Li", timestep_fs=1.0, interval=100))
    found = [text for text in run.warnings if "8 of 16 ions move exactly as others" in text]
    assert len(found) == copies - 1
