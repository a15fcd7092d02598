"""Green–Kubo: the exact conductivity of damped ions; dump against `fix ave/correlate` in LAMMPS."""

from dataclasses import replace

import numpy as np
import pytest

from mlplugins.analysis.current import CurrentSource, green_kubo_of
from mlplugins.analysis.green_kubo import autocorrelation, charge_current, green_kubo
from mlplugins.errors import BadInput
from mlplugins.units import conductivity_ms_cm
from tests.analysis.stock_lammps import run_lammps


def damped(frames, ions, memory, seed=0):
    """Ornstein–Uhlenbeck velocities of variance 1 (Å/ps)² per axis; 20 fs per frame."""
    random = np.random.default_rng(seed)
    kicks = np.sqrt(1 - memory**2) * random.normal(size=(frames, ions, 3))
    kicks[0] = random.normal(size=(ions, 3))
    from scipy.signal import lfilter

    return lfilter([1.0], [1.0, -memory], kicks, axis=0) * 1e-3  # Å/fs


def exact(ions, memory):
    """σ of the trapezoidal sum: D = v² Δt (1/2 + m + m² + …)."""
    d = 1e-6 * 20.0 * (0.5 + memory / (1 - memory)) * 0.1  # Å²/fs → cm²/s
    return conductivity_ms_cm(ions * d, 8000.0, 600.0)


def test_autocorrelation_is_the_direct_sum():
    series = np.random.default_rng(1).normal(size=(50, 3))
    direct = [(series[lag:] * series[: 50 - lag]).sum(axis=1).mean() for lag in range(50)]
    assert autocorrelation(series) == pytest.approx(np.array(direct), abs=1e-12)


def test_sigma_of_damped_ions_is_covered():
    inside = 0
    for seed in range(40):
        current = damped(20_000, 5, 0.9, seed).sum(axis=1)
        found = green_kubo(current, 20.0, 8000.0, 600.0)
        inside += found.sigma.low < exact(5, 0.9) < found.sigma.high
        assert 0.2 < found.plateau_ps < 3
        assert "within 2 standard errors of its noise" in found.reason
    assert inside >= 33  # about 90 %: the plateau is read a little early


def write_dump(path, velocities):
    with open(path, "w") as stream:
        for number, frame in enumerate(velocities):
            stream.write(
                f"ITEM: UNITS\nmetal\nITEM: TIMESTEP\n{10 * number}\nITEM: NUMBER OF ATOMS\n{len(frame)}\n"
            )
            stream.write("ITEM: BOX BOUNDS pp pp pp\n0 20\n0 20\n0 20\n")
            stream.write("ITEM: ATOMS id element x y z vx vy vz\n")
            for index, row in enumerate(frame):
                element = "Li" if index < 5 else "S"
                stream.write(f"{index + 1} {element} 1 1 1 " + " ".join(f"{1e3 * v:.9g}" for v in row) + "\n")


@pytest.mark.long
def test_from_a_dump_relative_to_the_framework(tmp_path):
    ions = damped(3000, 5, 0.9)
    drifting = np.concatenate([ions, np.zeros((3000, 2, 3))], axis=1) + 1e-4
    write_dump(tmp_path / "v.dump", drifting)
    source = CurrentSource(tmp_path / "v.dump", {"Li": 1.0}, 2.0)
    found = green_kubo_of(source, 8000.0, 6.0)  # K: 1 Å/ps per axis is slow
    expected = green_kubo(ions.sum(axis=1), 20.0, 8000.0, 6.0)
    assert found.sigma.value == pytest.approx(expected.sigma.value, rel=1e-5)
    later = green_kubo_of(replace(source, discard_ps=20.0), 8000.0, 6.0)
    expected = green_kubo(ions[1000:].sum(axis=1), 20.0, 8000.0, 6.0)
    assert later.sigma.value == pytest.approx(expected.sigma.value, rel=1e-5)
    with pytest.raises(BadInput, match=r"velocities are those of 6\.\d+ K, the run is at 600 K; wrong units"):
        green_kubo_of(source, 8000.0, 600.0)
    with pytest.raises(BadInput, match="no such file for Green–Kubo"):
        green_kubo_of(CurrentSource(tmp_path / "absent", {"Li": 1.0}, 2.0), 8000.0, 600.0)


def test_the_framework_is_held_by_its_centre_of_mass():
    """A heavy and a light host atom that recoil from each other move no charge."""
    velocities = np.zeros((50, 3, 3))
    velocities[:, 1], velocities[:, 2] = 207.2, -6.94  # momentum zero: Li7 host against Pb
    symbols = np.array(["Na", "Li", "Pb"])
    current = charge_current(((symbols, frame) for frame in velocities), {"Na": 1.0})
    assert np.abs(current).max() < 1e-9


def test_velocities_in_an_unnamed_unit_are_refused(tmp_path):
    """units real (Å/fs) without a line that says so would pass for metal (Å/ps)."""
    write_dump(tmp_path / "v.dump", damped(50, 5, 0.9) * 1e-3)
    text = (tmp_path / "v.dump").read_text().replace("ITEM: UNITS\nmetal\n", "")
    (tmp_path / "v.dump").write_text(text)
    with pytest.raises(BadInput, match="dump_modify ID units yes"):
        green_kubo_of(CurrentSource(tmp_path / "v.dump", {"Li": 1.0}, 2.0), 8000.0, 6.0)


def test_frames_too_far_apart_for_the_correlation_say_so():
    """An ion that vibrates with a period of 100 fs, seen every 10 and every 40 fs: σ is zero."""
    time = np.arange(4000)
    random = np.random.default_rng(0)
    for every, warned in ((10.0, False), (40.0, True)):
        noise = 1e-5 * random.normal(size=(4000, 3))
        current = 1e-3 * np.cos(2 * np.pi * time[:, None] * every / 100.0) + noise
        found = green_kubo(current, every, 8000.0, 600.0)
        assert any("too far apart" in text for text in found.warnings) == warned


HEAD = "# Time-correlated data\n# Timestep Number-of-time-windows\n# Index TimeDelta Ncount c c c\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "# fix ave/time\n100 1.0 2.0 3.0\n200 1.0 2.0 3.0\n",
            "line 2: 4 numbers; expected the output of LAMMPS",
        ),
        (HEAD + "100 3\n1 0 9 1 1 1\n2 5 8 1 1\n3 10 7 1 1 1\n", "line 6: 5 numbers"),
        (HEAD + "100 3\n1 0 9 1 1 1\n2 5 8 a 1 1\n", "line 6: could not convert"),
        (HEAD + "100 3\n1 0 9 1 1 1\n", "no complete block"),
        (HEAD + "100 3\n1 0 9 1 1 1\n2 5 0 0 0 0\n3 10 0 0 0 0\n", "1 times with data"),
    ],
)
def test_a_file_that_is_no_correlation_is_refused(tmp_path, text, message):
    (tmp_path / "c.txt").write_text(text)
    with pytest.raises(BadInput, match=message):
        green_kubo_of(CurrentSource(tmp_path / "c.txt", {"Li": 1.0}, 2.0), 8000.0, 600.0)


DECK = """
units metal
atom_style atomic
lattice fcc 5.9
region box block 0 3 0 3 0 3
create_box 2 box
create_atoms 1 box
set group all type/ratio 2 0.5 7
mass 1 39.9
mass 2 39.9
velocity all create 240 11 mom yes
pair_style lj/cut 8.0
pair_coeff * * 0.0104 3.4
timestep 0.004
fix 1 all nve
run 500
reset_timestep 0
variable jx atom "((type==1)-(type==2))*vx"
variable jy atom "((type==1)-(type==2))*vy"
variable jz atom "((type==1)-(type==2))*vz"
compute J all reduce sum v_jx v_jy v_jz
fix C all ave/correlate 5 200 6000 c_J[1] c_J[2] c_J[3] type auto ave running file {folder}/correlate.txt
dump V all custom 5 {folder}/v.dump id type x y z vx vy vz
dump_modify V units yes time yes
run 6000
"""


@pytest.mark.slow
@pytest.mark.engine
def test_dump_and_fix_ave_correlate_of_lammps_agree(tmp_path):
    run_lammps(DECK.format(folder=tmp_path) + 'print "$(vol)" file volume', tmp_path)
    volume = float((tmp_path / "volume").read_text())
    charges = {"Ar": 1.0, "Ne": -1.0}
    dumped = green_kubo_of(CurrentSource(tmp_path / "v.dump", charges, 4.0, ("Ar", "Ne")), volume, 120.0)
    summed = green_kubo_of(CurrentSource(tmp_path / "correlate.txt", charges, 4.0), volume, 120.0)
    assert summed.time_ps[:50] == pytest.approx(dumped.time_ps[:50])
    # LAMMPS takes the same origins; the dump has six digits and one more frame
    assert summed.running[1:50] == pytest.approx(dumped.running[1:50], rel=0.02)
    assert dumped.sigma.value > 0
    assert dumped.sigma.value == pytest.approx(summed.sigma.value, rel=0.3)
