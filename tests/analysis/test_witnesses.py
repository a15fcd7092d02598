"""What files say besides positions contradicts the user: elements, step numbers, clocks, temperatures."""

import re

import numpy as np
import pytest
from ase import Atoms, units
from ase.io import write

from mlplugins.analysis import identity
from mlplugins.analysis.conductivity import AnalysisSettings, analyse
from mlplugins.analysis.readers._text import Frame
from mlplugins.analysis.study import conductivity
from mlplugins.analysis.trajectory import ReadSettings, read_trajectory
from mlplugins.errors import BadInput

CELL = 12.0
SITES = np.array([[i, j, k] for i in range(2) for j in range(2) for k in range(2)]) * CELL / 2
N = 90


def positions(seed=1, n=N):
    """(n, 16, 3): eight Li that walk and eight S that stand, Å."""
    rng = np.random.default_rng(seed)
    x = np.repeat(np.concatenate([SITES + 3.0, SITES])[None], n, axis=0)
    x[1:, :8] += np.cumsum(rng.normal(0, 0.3, (n - 1, 8, 3)), axis=0)
    return x


SYMBOLS = ["Li"] * 8 + ["S"] * 8


def dump(path, columns="", extra=lambda k: "", units_line="", types=False):
    lines = []
    for number, frame in enumerate(positions()):
        lines += [units_line] if units_line else []
        lines += [f"ITEM: TIMESTEP\n{10 * number}\nITEM: NUMBER OF ATOMS\n16\nITEM: BOX BOUNDS pp pp pp"]
        lines += [f"0 {CELL}"] * 3 + [f"ITEM: ATOMS id {'type' if types else 'element'} xu yu zu {columns}"]
        for k, x in enumerate(frame):
            kind = 1 + (k >= 8) if types else SYMBOLS[k]
            lines.append(f"{k + 1} {kind} {x[0]:.6f} {x[1]:.6f} {x[2]:.6f} {extra(k)}")
    path.write_text("\n".join(lines) + "\n")
    return path


def read(path, **more):
    return read_trajectory([path], ReadSettings("Li", **{"timestep_fs": 2.0, **more}))


def motion(run):
    x = positions()
    return np.abs(run.displacements - (x - x[0])[:, :8]).max()


def test_masses_name_exchanged_types(tmp_path):
    path = dump(tmp_path / "t.dump", "mass", lambda k: 6.94 if k < 8 else 32.06, types=True)
    assert motion(read(path, type_map=("Li", "S"))) < 1e-5
    with pytest.raises(
        BadInput, match=r"called Li \(6.94 u\) have a mass of 32.06 u .* that of S; correct --type-map"
    ):
        read(path, type_map=("S", "Li"))
    [said] = read(dump(path, "mass", lambda k: 70.0 if k < 8 else 32.06)).warnings
    assert "atoms called Li (6.94 u) have a mass of 70 u in the file: are they Li?" in said
    assert read(dump(path, "mass", lambda k: 6.015 if k < 8 else 32.06)).warnings == ()  # an isotope


def test_signs_of_charges_name_exchanged_types(tmp_path):
    path = dump(tmp_path / "t.dump", "q", lambda k: 0.8 if k < 8 else -0.8, types=True)
    assert read(path, type_map=("Li", "S"), drift="none").warnings == ()
    [said] = read(path, type_map=("S", "Li")).warnings
    assert "the atoms called Li have a charge of -0.8 e in the file, a sign that Li does not have" in said


@pytest.mark.parametrize(("order", "said"), [("Li P S Cl", False), ("Li S P Cl", True), ("Li P Cl S", True)])
def test_a_formula_that_is_not_neutral_names_exchanged_types(tmp_path, order, said):
    """Li6PS5Cl, 13 atoms at the corners and centres of cubes."""
    kinds = np.repeat([1, 2, 3, 4], [6, 1, 5, 1])
    rng = np.random.default_rng(0)
    places = np.concatenate([SITES, SITES + 3.0])[:13]
    text = ""
    for step in range(3):
        rows = [
            f"{k + 1} {kinds[k]} {x} {y} {z}"
            for k, (x, y, z) in enumerate(places + rng.normal(0, 0.1, (13, 3)))
        ]
        text += (
            f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n13\nITEM: BOX BOUNDS pp pp pp\n" + 3 * "0 12\n"
        )
        text += "ITEM: ATOMS id type xu yu zu\n" + "\n".join(rows) + "\n"
    path = tmp_path / "t.dump"
    path.write_text(text)
    found = [note for note in read(path, type_map=tuple(order.split())).warnings if "not neutral" in note]
    assert bool(found) == said
    a, b = ("P", "S") if order == "Li S P Cl" else ("Cl", "S")
    assert not said or f"but is if {a} and {b} are exchanged" in found[0] or f"{b} and {a} are" in found[0]


def xdatcar(path, first, rise):
    lines = ["LiS", "1.0", f"{CELL} 0 0", f"0 {CELL} 0", f"0 0 {CELL}", "Li S", "8 8"]
    for number, frame in enumerate(positions()):
        lines.append(f"Direct configuration= {first + rise * number:6d}")
        lines += [" ".join(f"{x:.9f}" for x in row) for row in (frame / CELL) % 1.0]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_numbers_of_an_xdatcar_are_md_steps_where_they_rise_by_more_than_one(tmp_path):
    counted = xdatcar(tmp_path / "XDATCAR", 1, 1)
    with pytest.raises(BadInput, match="give --interval"):
        read(counted)
    assert read(counted, interval=50).interval_fs == 100.0
    block = xdatcar(tmp_path / "XDATCAR", 50, 50)
    run = read(block)
    assert (run.interval_fs, run.warnings) == (100.0, ())
    assert motion(run) < 1e-6
    [said] = read(block, interval=1).warnings
    assert (
        "numbered 50, 100, …, 50 MD steps apart, but --interval says 1, which was taken: all times are 0.02"
        in said
    )


@pytest.mark.parametrize(
    ("key", "rise", "interval", "said"),
    [
        ("Time", 20.0, 10, False),  # fs
        ("time", 0.02, 10, False),  # ps
        ("time", 20.0 * units.fs, 10, False),  # ASE's
        ("Time", 20.0, 100, True),
        ("time", 20.0, 1, True),
    ],
)
def test_a_clock_in_no_unit_of_time_is_said(tmp_path, key, rise, interval, said):
    text = ""
    for number, frame in enumerate(positions()):
        text += f'16\n{key}={rise * number:.9f} Lattice="{CELL} 0 0 0 {CELL} 0 0 0 {CELL}" pbc="T T T"\n'
        text += "".join(f"{s} {x} {y} {z}\n" for s, (x, y, z) in zip(SYMBOLS, frame))
    path = tmp_path / "t.xyz"
    path.write_text(text)
    run = read(path, interval=interval)
    assert run.interval_fs == 2.0 * interval
    assert [("agree in no unit" in note) for note in run.warnings] == [True] * said


@pytest.mark.parametrize(
    ("timestep", "said"),
    [
        (2.0, False),
        (2000.0, "a time step of 2000 fs, with 10 MD steps"),
        (0.002, "a time step of 0.002 fs"),
        (40.0, False),
    ],
)
def test_time_steps_that_no_dynamics_has_are_said(tmp_path, timestep, said):
    notes = read(dump(tmp_path / "t.dump"), timestep_fs=timestep).warnings
    assert len(notes) == bool(said)
    assert not said or said in notes[0]


def test_the_time_in_a_dump_is_compared(tmp_path):
    """`dump_modify time yes`: ps here, which the file does not say; then a time step that changes."""
    path = dump(tmp_path / "t.dump")
    plain = path.read_text()
    for rate, timestep, said in (
        (lambda k: 0.02 * k, 2.0, None),
        (lambda k: 0.02 * k, 1.0, "they agree in no unit"),
        (lambda k: 0.02 * k + 0.01 * max(k - 60, 0), 2.0, "the time in the file grows by 1.5 times"),
    ):
        parts = plain.split("ITEM: TIMESTEP")[1:]
        timed = [f"ITEM: TIME\n{rate(k):.6f}\nITEM: TIMESTEP{part}" for k, part in enumerate(parts)]
        path.write_text("".join(timed))
        notes = read(path, timestep_fs=timestep).warnings
        assert len(notes) == (said is not None)
        assert said is None or said in notes[0]


def test_a_frame_may_be_a_step_but_a_run_is_not_a_millisecond_long(tmp_path):
    path = xdatcar(tmp_path / "XDATCAR", 1, 1)
    assert read(path, interval=1, timestep_fs=2000.0).warnings == ()
    assert "make a run of 178 µs" in read(path, interval=1, timestep_fs=2e9).warnings[0]


@pytest.mark.parametrize(("metal", "n", "anion", "bond"), [("Li", 2, "S", 2.05), ("Na", 1, "O", 1.3)])
@pytest.mark.parametrize(("stretch", "said"), [(1.0, False), (1.4, True)])
def test_polysulfides_and_peroxides_are_salts(metal, n, anion, bond, stretch, said):
    """Li2S4 and NaO2 by their S–S and O–O bonds; without these, metal and anion may be exchanged."""
    chain = np.array([[6.0, 6.0, 1.0 + bond * stretch * k] for k in range(2 * n)])
    ions = np.array([[2.0, 2.0, 2.0], [9.0, 9.0, 9.0]])[:n]
    symbols = np.array([metal] * n + [anion] * 2 * n)
    notes = identity.doubts(Frame(symbols, np.concatenate([ions, chain]), 12 * np.eye(3)), "frame 1")
    assert len(notes) == said
    assert not said or f"(taking {metal} +1, {anion} -2)" in notes[0]


@pytest.mark.parametrize("units_line", ["", "ITEM: UNITS\nmetal", "ITEM: UNITS\nreal", "real, unsaid"])
def test_velocities_of_another_temperature_are_said(tmp_path, units_line):
    """Maxwell's velocities of 700 K in a dump; eight Li in 90 frames tell 700 K from 600 and not from 680."""
    rng = np.random.default_rng(3)
    per_fs = units.fs * np.sqrt(units.kB * 700.0 / np.array([6.94] * 8 + [32.06] * 8))  # Å/fs
    unit = 1.0 if "real" in units_line else 1e3
    line = "" if units_line == "real, unsaid" else units_line
    velocity = lambda k: " ".join(f"{v:.7f}" for v in unit * per_fs[k] * rng.normal(size=3))  # noqa: E731
    run = read(dump(tmp_path / "t.dump", "vx vy vz", velocity, line))
    assert motion(run) < 1e-5
    resting = 16 / 15  # of a run whose 16 atoms rest as a whole, as these do not
    assert run.kinetic.kelvin == pytest.approx(700.0 * resting, abs=60.0)
    assert 10.0 < run.kinetic.error < 50.0
    said = {
        T: [w for w in analyse([run], T, AnalysisSettings()).warnings if "velocities of Li" in w]
        for T in (500.0, 680.0)
    }
    assert [len(notes) for notes in said.values()] == [1, 0]
    assert re.search(r"500 K: the velocities of Li are those of 7\d\d ± \d\d K, not 500 K", said[500.0][0])


def test_momenta_of_ase_tell_the_temperature(tmp_path):
    rng = np.random.default_rng(4)
    frames = []
    for frame in positions():
        atoms = Atoms(SYMBOLS, frame, cell=[CELL] * 3, pbc=True)
        atoms.set_masses([6.015] * 8 + [32.06] * 8)  # isotopes: p²/2m needs the file's own masses
        atoms.set_momenta(rng.normal(size=(16, 3)) * np.sqrt(atoms.get_masses() * units.kB * 400.0)[:, None])
        frames.append(atoms)
    write(tmp_path / "t.traj", frames)
    found = read(tmp_path / "t.traj", interval=10).kinetic
    assert abs(found.kelvin - 400.0) < 4 * found.error < 60.0


def test_a_run_named_twice_is_refused(tmp_path):
    path = dump(tmp_path / "600K.dump")
    copy = tmp_path / "copy.dump"
    copy.write_bytes(path.read_bytes())
    for second in ({"files": [str(path)], "temperature": 700}, {"files": [str(copy)], "temperature": 600}):
        runs = [{"files": [str(path)], "temperature": 600}, second]
        with pytest.raises(BadInput, match=r"holds the same motion as .*600K.dump: a run counts once"):
            conductivity({"species": "Li", "timestep": 2, "runs": runs})


def test_a_file_called_after_another_temperature_is_said(tmp_path):
    runs = [{"files": [str(dump(tmp_path / "600K.dump"))], "temperature": 800}]
    report = conductivity({"species": "Li", "timestep": 2, "runs": runs})
    assert "is called after 600 K, its temperature is 800 K: which is right?" in report.warnings[0]


def test_frames_of_a_minimisation_before_the_run_are_not_the_run(tmp_path):
    """Steps 0, 37 (where it converged), then 1000, 1010, …: the run is what is evenly spaced."""
    path = dump(tmp_path / "t.dump")
    steps = iter([0, 37, *range(1000, 1000 + 10 * (N - 2), 10)])
    path.write_text(re.sub(r"(?<=TIMESTEP\n)\d+", lambda _: str(next(steps)), path.read_text()))
    run = read(path)
    assert run.interval_fs == 20.0
    assert max(stop - start for start, stop in run.segments) == N - 2


def test_a_fast_ion_among_many_atoms_is_not_unwrapped_by_guess(tmp_path):
    """Its steps are a third of the cell: few among those of all atoms, many among its own."""
    rng = np.random.default_rng(2)
    sites = np.array([[i, j, k] for i in range(6) for j in range(6) for k in range(6)]) * 2.5
    x = np.repeat(np.concatenate([[[1.2] * 3], sites])[None], 60, axis=0) + rng.normal(0, 0.05, (60, 217, 3))
    x[:, 0] += np.cumsum(rng.normal(0, 3.5, (60, 3)), axis=0)
    write(tmp_path / "t.traj", [Atoms("Li" + "S" * 216, y % 15.0, cell=[15.0] * 3, pbc=True) for y in x])
    with pytest.raises(BadInput, match=r"of the mobile ions' 177 steps between frames are longer than 0.4"):
        read(tmp_path / "t.traj", interval=1)


def test_one_atom_alone_has_no_drift_to_remove(tmp_path):
    x = positions()[:, :1]
    write(tmp_path / "t.traj", [Atoms("Li", y, cell=[CELL] * 3, pbc=True) for y in x])
    with pytest.raises(
        BadInput, match="one atom only, which does not move relative to its own centre of mass"
    ):
        read(tmp_path / "t.traj", interval=10)
    run = read(tmp_path / "t.traj", interval=10, drift="none")
    np.testing.assert_allclose(run.displacements, x - x[0], atol=1e-12)
