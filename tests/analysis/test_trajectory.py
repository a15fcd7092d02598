"""Joining, unwrapping and checking of trajectories, on files whose content is known."""

import gzip

import ase.io
import numpy as np
import pytest

from mlplugins.analysis.conductivity import AnalysisSettings, analyse
from mlplugins.analysis.snapshots import MOST
from mlplugins.analysis.trajectory import ReadSettings, find_reader, read_trajectory
from mlplugins.errors import BadInput
from mlplugins.testing.walks import Crystal, LatticeWalk, crystal, write_lammps_dump

WALK = LatticeWalk(frames=400, ions=12, rate=0.5, frame_ps=0.1)
WRAPPED = "id element x y z"
UNWRAPPED = "id element xu yu zu"
SETTINGS = ReadSettings("Li", timestep_fs=2.0)


@pytest.fixture
def system():
    return crystal(WALK)


def lithium(system: Crystal):
    """Displacements relative to the sulphur, straight from the unwrapped positions."""
    symbols = np.array(system.symbols)
    moved = system.positions - system.positions[0]
    return moved[:, symbols == "Li"] - moved[:, symbols == "S"].mean(axis=1, keepdims=True)


def part(system, start, stop):
    return Crystal(system.symbols, system.positions[start:stop], system.cells[start:stop])


def dump(system, path, every=50, columns=WRAPPED, first=0):
    write_lammps_dump(system, path, every, columns)
    if first:
        text = path.read_text().split("ITEM: TIMESTEP\n")
        shifted = [
            f"{int(block.split(maxsplit=1)[0]) + first}\n{block.split(chr(10), 1)[1]}" for block in text[1:]
        ]
        path.write_text("".join(f"ITEM: TIMESTEP\n{block}" for block in shifted))
    return path


@pytest.mark.parametrize("columns", [WRAPPED, UNWRAPPED, "id element x y z ix iy iz"])
def test_wrapped_unwrapped_and_image_flags_agree(system, tmp_path, columns):
    run = read_trajectory([dump(system, tmp_path / "a.dump", columns=columns)], SETTINGS)
    np.testing.assert_allclose(run.displacements, lithium(system), atol=2e-7)
    assert run.interval_fs == 100
    assert run.volume_a3 == pytest.approx(8000)
    assert (run.n_frames, run.n_ions, run.n_atoms, run.warnings) == (400, 12, 24, ())
    assert run.framework_rms["S"][-1] == pytest.approx(0.3 * np.sqrt(6), rel=0.4)  # rattling only


def test_positions_in_the_cell_do_not_depend_on_its_corner(system, tmp_path):
    """Sites are fractions of the cell: a box from 5 to 25 Å holds the same ones as one from 0 to 20 Å."""
    plain = read_trajectory([dump(system, tmp_path / "a.dump")], SETTINGS)
    lines = (tmp_path / "a.dump").read_text().split("\n")
    columns = next(line for line in lines if line.startswith("ITEM: ATOMS")).split()[2:]
    place = [columns.index(name) for name in ("x", "y", "z")]
    for number, line in enumerate(lines):
        words = line.split()
        if len(words) == len(columns):
            for index in place:
                words[index] = f"{float(words[index]) + 5:.8f}"
        elif len(words) == 2 and "." in line:
            words = [f"{float(word) + 5}" for word in words]
        lines[number] = line if line.startswith("ITEM") else " ".join(words)
    (tmp_path / "b.dump").write_text("\n".join(lines))
    moved = read_trajectory([tmp_path / "b.dump"], SETTINGS)
    np.testing.assert_allclose(moved.start, plain.start, atol=2e-7)
    np.testing.assert_allclose(moved.displacements, plain.displacements, atol=2e-7)


def test_rigid_drift_is_removed(system, tmp_path):
    drifting = system.positions + np.linspace(0, 60, 400)[:, None, None] * np.array([1.0, -0.5, 0.2])
    moved = Crystal(system.symbols, drifting, system.cells)
    run = read_trajectory([dump(moved, tmp_path / "a.dump")], SETTINGS)
    np.testing.assert_allclose(run.displacements, lithium(system), atol=2e-7)
    assert np.linalg.norm(run.drift[-1]) == pytest.approx(60 * np.sqrt(1.29), abs=1)
    kept = read_trajectory([tmp_path / "a.dump"], ReadSettings("Li", timestep_fs=2.0, drift="none"))
    assert kept.displacements[-1, :, 0].mean() > 50


@pytest.mark.long
@pytest.mark.parametrize("columns", [WRAPPED, UNWRAPPED, "id element x y z ix iy iz"])
def test_a_breathing_cell_does_not_make_the_host_diffuse(tmp_path, columns):
    """Ions far from home in a cell that changes by ±2 %: the pitfall multiplies what they have travelled."""
    walk = LatticeWalk(frames=3000, ions=20, rate=1.5, frame_ps=0.1)
    still = crystal(walk)
    breathing = still.breathing(0.02, 37.0)
    run = read_trajectory([dump(breathing, tmp_path / "b.dump", columns=columns)], SETTINGS)
    result = analyse([run], 600.0, AnalysisSettings())
    tracer = result.diffusion.tracer
    assert abs(tracer.value - walk.exact_cm2_s) < 3 * tracer.value * tracer.relative_error
    assert run.framework_rms["S"].max() < 1.5
    # in one frame the breathing moves an atom by at most the cell times the change of scale
    exact = np.diff(lithium(still), axis=0)
    limit = 20 * 0.02 * 2 * np.pi / 37 + 0.02 * np.abs(exact).max()
    assert np.abs(np.diff(run.displacements, axis=0) - exact).max() < limit
    naive = np.diff(lithium(breathing), axis=0)
    assert np.abs(naive - exact).max() > 1.2 * limit


def test_triclinic_cells_and_ase_files(tmp_path):
    tilted = crystal(WALK, tilt=0.35)
    for name in ("a.traj", "a.extxyz"):
        ase.io.write(tmp_path / name, list(tilted.wrapped().atoms()))
        run = read_trajectory([tmp_path / name], ReadSettings("Li", timestep_fs=2.0, interval=50))
        np.testing.assert_allclose(run.displacements, lithium(tilted), atol=1e-6)
        assert run.volume_a3 == pytest.approx(abs(np.linalg.det(tilted.cells[0])))


def test_a_flip_of_a_tilted_box_is_no_displacement(tmp_path):
    tilted = crystal(WALK, tilt=0.45)
    flipped = tilted.cells.copy()
    flipped[200:, 1, 0] -= 20.0  # the same lattice with other vectors, as LAMMPS does under shear
    after = Crystal(tilted.symbols, tilted.positions, flipped)
    ase.io.write(tmp_path / "a.extxyz", list(after.wrapped().atoms()))
    run = read_trajectory([tmp_path / "a.extxyz"], ReadSettings("Li", timestep_fs=2.0, interval=50))
    np.testing.assert_allclose(run.displacements, lithium(tilted), atol=1e-6)


def test_compressed_files_are_recognised_by_content(system, tmp_path):
    plain = dump(system, tmp_path / "a.dump")
    (tmp_path / "b.dump").write_bytes(gzip.compress(plain.read_bytes()))
    run = read_trajectory([tmp_path / "b.dump"], SETTINGS)
    np.testing.assert_allclose(run.displacements, lithium(system), atol=2e-7)


def test_files_of_one_run_are_joined(system, tmp_path):
    first = dump(part(system, 0, 150), tmp_path / "1.dump")
    second = dump(part(system, 150, 400), tmp_path / "2.dump", first=150 * 50)
    run = read_trajectory([first, second], SETTINGS)
    np.testing.assert_allclose(run.displacements, lithium(system), atol=2e-7)
    assert run.warnings == ()


def test_frames_repeated_by_a_restart_are_dropped(system, tmp_path):
    first = dump(part(system, 0, 150), tmp_path / "1.dump")
    second = dump(part(system, 140, 400), tmp_path / "2.dump", first=140 * 50)
    run = read_trajectory([first, second], SETTINGS)
    np.testing.assert_allclose(run.displacements, lithium(system), atol=2e-7)
    assert "10 frame(s) repeat steps that were already read (a restart); dropped" in run.warnings[0]
    assert "at the join the atoms differ by at most 0 Å" in run.warnings[0]


def test_a_restart_on_another_path_adds_no_jump(system, tmp_path):
    """After the restart the atoms are elsewhere: the run goes on with the steps of the new branch."""
    first = dump(part(system, 0, 150), tmp_path / "1.dump")
    moved = system.positions + 0.7 * np.random.default_rng(1).normal(size=system.positions.shape[1:])
    second = dump(
        part(Crystal(system.symbols, moved, system.cells), 140, 400), tmp_path / "2.dump", first=140 * 50
    )
    run = read_trajectory([first, second], SETTINGS)
    np.testing.assert_allclose(run.displacements, lithium(system), atol=2e-7)
    assert "at the join the atoms differ by at most 0 Å" not in run.warnings[0]


def test_identical_frames_without_step_numbers_are_dropped(system, tmp_path):
    frames = list(system.wrapped().atoms())
    ase.io.write(tmp_path / "1.extxyz", frames[:150])
    ase.io.write(tmp_path / "2.extxyz", frames[149:])
    settings = ReadSettings("Li", timestep_fs=2.0, interval=50)
    run = read_trajectory([tmp_path / "1.extxyz", tmp_path / "2.extxyz"], settings)
    np.testing.assert_allclose(run.displacements, lithium(system), atol=1e-6)
    assert "1 frame(s) identical to the one before were dropped" in run.warnings[0]


def test_files_in_the_wrong_order_are_refused(system, tmp_path):
    first = dump(part(system, 0, 150), tmp_path / "1.dump")
    second = dump(part(system, 150, 400), tmp_path / "2.dump", first=150 * 50)
    with pytest.raises(
        BadInput, match="step 0 after step 19950 of a run that began at step 7500; give the files in order"
    ):
        read_trajectory([second, first], SETTINGS)
    with pytest.raises(BadInput, match="each once"):
        read_trajectory([first, first], SETTINGS)


def test_a_step_counter_that_was_set_back_can_be_overruled(system, tmp_path):
    first = dump(part(system, 0, 150), tmp_path / "1.dump")
    second = dump(part(system, 150, 400), tmp_path / "2.dump")
    run = read_trajectory([first, second], ReadSettings("Li", timestep_fs=2.0, interval=50))
    np.testing.assert_allclose(run.displacements, lithium(system), atol=2e-7)


def test_missing_frames_split_the_run(system, tmp_path):
    first = dump(part(system, 0, 150), tmp_path / "1.dump")
    second = dump(part(system, 160, 400), tmp_path / "2.dump", first=160 * 50)
    run = read_trajectory([first, second], SETTINGS)
    assert run.segments == ((0, 150), (150, 390))
    assert "10 frame(s) missing in 1 gap(s), the first after step 7450" in run.warnings[0]


def test_the_last_frame_of_a_killed_run_is_dropped(system, tmp_path):
    path = dump(system, tmp_path / "a.dump")
    path.write_bytes(path.read_bytes()[:-300])
    run = read_trajectory([path], SETTINGS)
    assert run.n_frames == 399
    assert "ends inside the frame of step 19950; that frame is incomplete (a killed run?)" in run.warnings[0]


def test_a_run_appended_to_a_cut_dump_is_read_on(system, tmp_path):
    first = dump(part(system, 0, 150), tmp_path / "1.dump").read_bytes()
    second = dump(part(system, 140, 400), tmp_path / "2.dump", first=140 * 50).read_bytes()
    (tmp_path / "a.dump").write_bytes(first[:-200] + second)
    run = read_trajectory([tmp_path / "a.dump"], SETTINGS)
    np.testing.assert_allclose(run.displacements, lithium(system), atol=2e-7)
    assert "the frame of step 7450 is cut by the next one" in run.warnings[0]


def test_steps_near_half_a_cell_are_doubted_then_refused(tmp_path):
    random = np.random.default_rng(0)
    # one hop of 9 Å in a cell of 20 Å among 40 x 50 steps: said, not refused
    positions = 10 + 0.1 * random.normal(size=(50, 40, 3))
    positions[25:, 3, 0] += 9.0
    cells = np.repeat(20.0 * np.eye(3)[None], 50, axis=0)
    symbols = ["Li"] * 20 + ["S"] * 20
    run = read_trajectory([dump(Crystal(symbols, positions, cells), tmp_path / "a.dump")], SETTINGS)
    said = "1 of the mobile ions' 2940 steps between frames are longer than 0.4 of the cell (longest 0.4"
    assert said in run.warnings[0]
    wild = np.cumsum(4.0 * random.normal(size=(50, 40, 3)), axis=0)
    with pytest.raises(
        BadInput,
        match="without image flags, and an ion may have taken the other way; write frames more often",
    ):
        read_trajectory([dump(Crystal(symbols, wild, cells), tmp_path / "b.dump")], SETTINGS)
    known = read_trajectory(
        [dump(Crystal(symbols, wild, cells), tmp_path / "c.dump", columns=UNWRAPPED)], SETTINGS
    )
    assert known.warnings == ()


def test_liquids_lose_the_total_drift_and_say_so(tmp_path):
    walk = LatticeWalk(frames=100, ions=12).displacements()
    liquid = Crystal(["Ar"] * 12, 10 + walk, np.repeat(20.0 * np.eye(3)[None], 100, axis=0))
    run = read_trajectory([dump(liquid, tmp_path / "a.dump")], ReadSettings("Ar", timestep_fs=2.0))
    np.testing.assert_allclose(run.displacements.mean(axis=1), 0, atol=1e-7)
    assert not run.collective
    assert "no framework (all atoms are mobile)" in run.warnings[0]


def replaced(system, tmp_path, old, new, columns=WRAPPED):
    path = dump(part(system, 0, 5), tmp_path / "a.dump", columns=columns)
    path.write_text(path.read_text().replace(old, new))
    return path


BAD_DUMPS = [
    ("id element x", "id kind x", "no element of the atoms is known.*--type-map Li P S Cl"),
    ("id element x", "serial element x", "no 'id' column.*changing order"),
    ("element x y z", "element vx vy vz", "no positions among the columns id element vx vy vz"),
    (" Li ", " Q1 ", "no atom of species 'Li'; the trajectory holds Q1, S"),
    (" S ", " 3 ", "'3' is not an element"),
    (
        "ITEM: TIMESTEP\n150\n",
        "ITEM: UNITS\nlj\nITEM: TIMESTEP\n150\n",
        "LAMMPS units 'lj'; expected metal or real",
    ),
    ("150\nITEM: NUMBER", "0\nITEM: NUMBER", "step 0 after step 100"),
    ("0 20.00000000\n", "0 0.0\n", "no cell, or one without volume"),
]


@pytest.mark.parametrize(("old", "new", "text"), BAD_DUMPS)
def test_bad_dumps_are_refused_with_the_remedy(system, tmp_path, old, new, text):
    with pytest.raises(BadInput, match=text):
        read_trajectory([replaced(system, tmp_path, old, new)], SETTINGS)


def test_lost_and_exchanged_atoms_are_refused(system, tmp_path):
    whole = dump(part(system, 0, 5), tmp_path / "1.dump").read_text()
    fewer = Crystal(system.symbols[:-1], system.positions[5:10, :-1], system.cells[5:10])
    text = dump(fewer, tmp_path / "2.dump", first=250).read_text()
    (tmp_path / "a.dump").write_text(whole + text)
    with pytest.raises(BadInput, match="23 atoms whose ids differ from the 24 of the first frame"):
        read_trajectory([tmp_path / "a.dump"], SETTINGS)
    with pytest.raises(BadInput, match="23 atoms .*where the first frame has 24.*expected the same atoms"):
        read_trajectory([tmp_path / "1.dump", tmp_path / "2.dump"], SETTINGS)


def test_values_that_are_not_finite_are_refused(system, tmp_path):
    path = dump(part(system, 0, 5), tmp_path / "a.dump")
    lines = path.read_text().splitlines()
    lines[50] = " ".join([*lines[50].split()[:2], "nan", "nan", "nan"])
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(BadInput, match=r"a\.dump, frame 2: positions are not finite"):
        read_trajectory([path], SETTINGS)


def test_unknown_empty_and_absent_files(tmp_path):
    (tmp_path / "a").write_bytes(b"\x00\x01nothing known")
    with pytest.raises(
        BadInput, match="not a trajectory that can be read; expected one of: .*LAMMPS text dump"
    ):
        find_reader(tmp_path / "a")
    (tmp_path / "b").write_text("\n")
    with pytest.raises(BadInput, match="the file is empty"):
        find_reader(tmp_path / "b")
    with pytest.raises(BadInput, match="no such trajectory"):
        find_reader(tmp_path / "c")
    with pytest.raises(BadInput, match="no trajectory given"):
        read_trajectory([], SETTINGS)


def test_what_the_file_does_not_hold_is_demanded(system, tmp_path):
    with pytest.raises(BadInput, match="give --timestep, the MD time step in fs"):
        read_trajectory([dump(system, tmp_path / "a.dump")], ReadSettings("Li"))
    ase.io.write(tmp_path / "a.traj", list(part(system, 0, 5).atoms()))
    with pytest.raises(BadInput, match="no step numbers; give --interval"):
        read_trajectory([tmp_path / "a.traj"], SETTINGS)
    with pytest.raises(BadInput, match="unknown drift reference 'frame': did you mean 'framework'"):
        read_trajectory([tmp_path / "a.traj"], ReadSettings("Li", drift="frame"))
    (tmp_path / "one.dump").write_text((tmp_path / "a.dump").read_text().split("ITEM: TIMESTEP\n50\n")[0])
    with pytest.raises(BadInput, match=r"1 frame\(s\); a displacement needs at least two"):
        read_trajectory([tmp_path / "one.dump"], SETTINGS)


def test_a_missing_time_step_is_noticed_at_the_first_frame(system, tmp_path):
    """Not after 10 GB of reading."""
    seen = []
    path = dump(system, tmp_path / "a.dump")
    with pytest.raises(BadInput, match=r"a\.dump: the trajectory holds no times; give --timestep"):
        read_trajectory([path], ReadSettings("Li", progress=lambda *state: seen.append(state)))
    assert seen == []


def test_progress_is_reported(system, tmp_path):
    seen = []
    path = dump(system, tmp_path / "a.dump")
    read_trajectory([path], ReadSettings("Li", timestep_fs=2.0, progress=lambda *state: seen.append(state)))
    assert [frames for _, frames in seen] == list(range(50, 401, 50))
    assert all(0 < fraction <= 1 for fraction, _ in seen)


@pytest.mark.long
def test_memory_is_that_of_the_mobile_ions(tmp_path):
    """And of a number of snapshots of all atoms that does not grow with the run."""
    import tracemalloc

    walk = LatticeWalk(frames=3000, ions=100)
    path = dump(crystal(walk), tmp_path / "a.dump")
    tracemalloc.start()
    run = read_trajectory([path], SETTINGS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    all_positions = 3000 * 200 * 3 * 8
    assert run.displacements.nbytes * 2 == all_positions
    assert peak < 1.1 * all_positions
    assert MOST // 2 <= len(run.snapshots.times_ps) <= MOST
