"""Spectra of series whose spectrum is known in closed form, from every kind of file; bad input is named."""

from __future__ import annotations

import csv
import json
import re
import tracemalloc

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.vibrations import Infrared
from ase.vibrations.placzek import PlaczekStatic
from ase.vibrations.raman import StaticRamanCalculator

from mlplugins import spectra
from mlplugins.analysis.spectra.experiment import experiment
from mlplugins.analysis.spectra.settings import Settings
from mlplugins.analysis.trajectory import read_frames
from mlplugins.cli.main import main
from mlplugins.errors import BadInput

KELVIN = 300.0
C = units._c  # m/s
KT = units._k * KELVIN  # J
STATE = {"temperature_k": KELVIN, "unit": "e*A"}


def angular(per_cm):
    """rad/s."""
    return 2 * np.pi * 100 * C * np.asarray(per_cm)


def oscillator(per_cm, mass_u, samples, step_fs, kelvin=KELVIN):
    """Three directions with exactly ⟨x²⟩ = kT/mω², Å: (samples, 3)."""
    time = step_fs * 1e-15 * np.arange(samples)[:, None]
    amplitude = np.sqrt(2 * units._k * kelvin / (mass_u * units._amu)) / angular(per_cm) * 1e10
    return amplitude * np.cos(angular(per_cm) * time + np.array([0.3, 1.1, 2.2]))


def absorption_per_cm2(charge, mass_u, volume_a3):
    """∫ nα dν̃ = q²/(4 m V ε₀ c²), cm⁻²: independent of the units of the package."""
    si = (charge * units._e) ** 2 / (4 * mass_u * units._amu * volume_a3 * 1e-30 * units._eps0 * C**2)
    return si * 1e-4


@pytest.mark.parametrize(("per_cm", "step_fs"), [(200.0, 4.0), (1500.0, 0.5), (3500.0, 2.0)])
def test_absorption_of_an_oscillator(tmp_path, per_cm, step_fs):
    """Per volume in cm⁻², of a molecule in km/mol, to 1e-5, whatever the time between samples."""
    mu = 0.4 * oscillator(per_cm, 2.0, int(60000 / step_fs), step_fs) + [1.0, -2.0, 0.3]
    np.save(tmp_path / "mu.npy", mu)
    settings = {"interval_fs": step_fs, **STATE}
    dense = spectra("ir", [tmp_path / "mu.npy"], Settings(volume_a3=700.0, **settings))
    assert dense.integral == pytest.approx(absorption_per_cm2(0.4, 2.0, 700.0), rel=1e-5)
    single = spectra("ir", [tmp_path / "mu.npy"], Settings(**settings))
    # three modes of N_A |∂μ/∂Q|²/(12 ε₀ c²), with the factor that quantum chemistry uses
    per_mode = 42.2561 * (0.4 * units.Debye**-1) ** 2 / 2.0
    assert single.integral == pytest.approx(3 * per_mode, rel=1e-5)
    [peak] = single.peaks
    assert peak.position == pytest.approx(per_cm, abs=0.05)
    assert peak.intensity == pytest.approx(single.integral, rel=1e-5)
    above_half = single.per_cm[single.main > 0.5 * peak.height]  # the width that is said
    assert np.ptp(above_half) == pytest.approx(single.width_cm, abs=2 * single.per_cm[1])


def test_activities_and_depolarisation(tmp_path):
    """45 ᾱ'² + 7 γ'² and 3γ'²/(45ᾱ'² + 4γ'²) of one mode; six components in either order."""
    derivative = np.array([[1.0, 0.2, -0.3], [0.2, 0.4, 0.1], [-0.3, 0.1, 0.7]])  # Å³ u^(−1/2) / Å
    mode = oscillator(1200.0, 1.0, 60000, 1.0)[:, :1]
    alpha = (mode * derivative.ravel()) + np.eye(3).ravel() * 1.4
    np.save(tmp_path / "nine.npy", alpha)
    np.save(tmp_path / "voigt.npy", alpha[:, [0, 4, 8, 5, 2, 1]] / 14.399645)
    np.save(tmp_path / "rows.npy", alpha[:, [0, 1, 2, 4, 5, 8]])
    mean = np.trace(derivative) / 3
    beta = derivative - mean * np.eye(3)
    gamma2 = 1.5 * (beta**2).sum()
    settings = {"interval_fs": 1.0, "temperature_k": KELVIN}
    given = {
        "nine": Settings(unit="A^3", **settings),
        "voigt": Settings(unit="e^2*A^2/eV", order="xx yy zz yz xz xy", **settings),
        "rows": Settings(unit="A^3", order="xx,xy,xz,yy,yz,zz", **settings),
    }
    for name, each in given.items():
        found = spectra("raman", [tmp_path / f"{name}.npy"], each)
        step = np.gradient(found.per_cm)
        areas = {part: float(curve @ step) for part, curve in found.curves.items()}
        assert found.integral == pytest.approx(45 * mean**2 + 7 * gamma2, rel=1e-5), name
        assert areas["isotropic"] == pytest.approx(45 * mean**2, rel=1e-5)
        assert areas["VV"] == pytest.approx(45 * mean**2 + 4 * gamma2, rel=1e-5)
        assert areas["VH"] == pytest.approx(3 * gamma2, rel=1e-5)
        ratio = found.ratio.value[found.main.argmax()]
        assert ratio == pytest.approx(3 * gamma2 / (45 * mean**2 + 4 * gamma2), rel=1e-5)
    with pytest.raises(BadInput, match="six components of the polarizability in an unknown order"):
        spectra("raman", [tmp_path / "rows.npy"], Settings(unit="A^3", **settings))
    green = spectra("raman", [tmp_path / "nine.npy"], Settings(unit="A^3", laser_nm=532.0, **settings))
    shift, light = 1.2e5, 1e9 / 532
    factor = (2 * np.pi) ** 4 / 45 * (light - shift) ** 4 * units._hplanck / (8 * np.pi**2 * C * shift)
    thermal = 1 - np.exp(-units._hplanck * C * shift / KT)
    si = factor * found.integral * 1e-40 / units._amu / thermal  # m²/sr
    assert green.integral == pytest.approx(si * 1e34, rel=1e-4)  # the factor varies over the line


def test_isotopes_of_the_files(tmp_path):
    """Deuterium called H: its mass is in the dump, or in the column `mass` of extended xyz."""
    nu, mass, step, n = 1100.0, 2.014, 4.0, 1000
    amplitude = np.sqrt(2 * units._k * KELVIN / (mass * units._amu)) * 1e-5  # Å/fs
    phase = angular(nu) * step * 1e-15 * np.arange(n)[:, None] + np.array([0.3, 1.1, 2.2])
    with open(tmp_path / "v.lammpstrj", "w") as dump, open(tmp_path / "v.extxyz", "w") as xyz:
        for k, v in enumerate(amplitude * np.cos(phase)):
            dump.write(
                f"ITEM: UNITS\nmetal\nITEM: TIMESTEP\n{4 * k}\nITEM: NUMBER OF ATOMS\n1\n"
                "ITEM: BOX BOUNDS pp pp pp\n0 9\n0 9\n0 9\nITEM: ATOMS id element mass x y z vx vy vz\n"
                f"1 H {mass} 0 0 0 " + " ".join(f"{1000 * x:.10g}" for x in v) + "\n"
            )
            momentum = " ".join(f"{mass * x / units.fs:.10g}" for x in v)
            xyz.write(f"1\nProperties=species:S:1:pos:R:3:mass:R:1:momenta:R:3\nH 0 0 0 {mass} {momentum}\n")
    for name, time in (("v.lammpstrj", {"timestep_fs": 1.0}), ("v.extxyz", {"interval_fs": step})):
        found = spectra("vdos", [tmp_path / name], Settings(**time))
        assert found.state.temperature_k == pytest.approx(KELVIN, rel=2e-3), name
    frames = list(read_frames(tmp_path / "v.lammpstrj"))
    kinetic = np.mean([frame.kinetic for frame in frames if frame.kinetic is not None])
    assert kinetic == pytest.approx(1.5 * units.kB * KELVIN, rel=0.1)


def test_density_of_states_from_every_trajectory(tmp_path):
    """One mode for every degree of freedom, divided among the elements; files of all engines agree."""
    step, n = 4.0, 1000
    parts = [(500.0, 15.999), (1500.0, 1.008), (1800.0, 1.008)]
    moved = np.stack([oscillator(nu, mass, n, step) for nu, mass in parts], axis=1)
    speed = np.stack([oscillator(nu, m, n, step) for nu, m in parts], axis=1)
    for k, (nu, _) in enumerate(parts):  # v = −ω A sin: as x a quarter of a period later
        time = step * 1e-15 * np.arange(n)[:, None]
        amplitude = np.abs(speed[:, k]).max()
        speed[:, k] = (
            -amplitude * angular(nu) * 1e-15 * np.sin(angular(nu) * time + np.array([0.3, 1.1, 2.2]))
        )
    v = speed  # Å/fs
    frames = [Atoms("OH2", x, cell=[9, 9, 9], velocities=u / units.fs) for x, u in zip(moved, v)]
    write(tmp_path / "v.traj", frames)
    np.save(tmp_path / "v.npy", 1000 * v)
    with open(tmp_path / "v.lammpstrj", "w") as dump, open(tmp_path / "v.xyz", "w") as ipi:
        for k, u in enumerate(v):
            dump.write(
                f"ITEM: UNITS\nmetal\nITEM: TIMESTEP\n{4 * k}\nITEM: NUMBER OF ATOMS\n3\n"
                "ITEM: BOX BOUNDS pp pp pp\n0 9\n0 9\n0 9\nITEM: ATOMS id element vx vy vz\n"
            )
            ipi.write(
                f"3\n# CELL(abcABC): 17 17 17 90 90 90 Step: {4 * k} Bead: 0 velocities{{m/s}} cell{{}}\n"
            )
            for i, row in enumerate(u):
                dump.write(f"{i + 1} {'OHH'[i]} " + " ".join(f"{1000 * x:.10g}" for x in row) + "\n")
                ipi.write(f"{'OHH'[i]} " + " ".join(f"{1e5 * x:.10g}" for x in row) + "\n")
    timed = {"timestep_fs": 1.0}
    found = {
        "traj": spectra("vdos", [tmp_path / "v.traj"], Settings(interval_fs=step)),
        "npy": spectra(
            "vdos", [tmp_path / "v.npy"], Settings(interval_fs=step, unit="A/ps", species=("O", "H", "H"))
        ),
        "dump": spectra("vdos", [tmp_path / "v.lammpstrj"], Settings(**timed)),
        "ipi": spectra("vdos", [tmp_path / "v.xyz"], Settings(**timed)),
    }
    for name, each in found.items():
        assert each.state.temperature_k == pytest.approx(KELVIN, rel=2e-3), name
        assert each.integral == pytest.approx(9.0, rel=1e-3), name
        np.testing.assert_allclose(each.curves["H"], found["npy"].curves["H"], rtol=1e-6, atol=1e-9)
    step_cm = np.gradient(found["npy"].per_cm)
    assert found["npy"].curves["O"] @ step_cm == pytest.approx(3.0, rel=2e-3)
    assert [round(peak.position) for peak in found["npy"].peaks] == [500, 1500, 1800]
    with pytest.raises(BadInput, match="in units that it states, not in A/fs: leave out --unit"):
        spectra("vdos", [tmp_path / "v.lammpstrj"], Settings(unit="A/fs", **timed))
    text = (tmp_path / "v.lammpstrj").read_text()
    (tmp_path / "bare.lammpstrj").write_text(text.replace("ITEM: UNITS\nmetal\n", ""))
    bare = spectra("vdos", [tmp_path / "bare.lammpstrj"], Settings(unit="A/fs", temperature_k=300.0, **timed))
    assert bare.integral == pytest.approx(9e6, rel=2e-3)
    assert re.search(r"velocities of 3\S*e\+08 K .*\(A/fs was taken\)", bare.warnings[0])
    bare = spectra("vdos", [tmp_path / "bare.lammpstrj"], Settings(unit="A/fs", **timed))
    assert re.search(r"velocities of 3\S*e\+08 K in A/fs: .*another unit", bare.warnings[0])


def extras(path, values, first=0, stride=4):
    """As i-PI writes them."""
    with open(path, "w") as file:
        for k, row in enumerate(values):
            file.write(f" #EXTRAS(dipole)# Step:  {first + stride * k:10d} \n")
            file.write(" ".join(f"{x:16.10e}" for x in row) + "\n")


@pytest.fixture(scope="module")
def dipoles():
    """A noisy line in e·Å, and so small a step that nothing jumps."""
    noise = np.random.default_rng(2).normal(size=(12000, 3))
    return oscillator(1500.0, 2.0, 12000, 2.0) + 1e-4 * noise


def test_the_same_series_in_every_file(tmp_path, dipoles):
    """Units, beads of a path integral, tables; and the report."""
    bohr, dipoles = units.Bohr, dipoles[:1200]
    split = 0.03 * np.sin(0.9 * np.arange(len(dipoles)))[:, None]
    extras(tmp_path / "a.mu_0", (dipoles + split) / bohr)
    extras(tmp_path / "a.mu_1", (dipoles - split) / bohr)
    both = np.stack([dipoles + split, dipoles - split], axis=1) / bohr
    with open(tmp_path / "component", "w") as file:  # all beads of a step in one frame
        for k, rows in enumerate(both):
            file.write(f" #EXTRAS_COMPONENT_RAW(dipole)# Step:  {4 * k:10d}  Bead:      0  \n")
            file.writelines(" ".join(f"{x:.10e}" for x in row) + "\n" for row in rows)
    steps = 4 * np.arange(len(dipoles))
    head = "# Time-averaged data for fix mu\n# TimeStep c_t c_mu[1] c_mu[2] c_mu[3]"
    table = np.column_stack([steps, steps, dipoles])
    np.savetxt(tmp_path / "mu.dat", table, "%.12g", header=head, comments="")
    np.savetxt(tmp_path / "mu.csv", dipoles / units.Debye, "%.12g", ",", header="x,y,z", comments="")
    frames = [Atoms("H", calculator=SinglePointCalculator(Atoms("H"), dipole=mu)) for mu in dipoles]
    write(tmp_path / "mu.traj", frames)
    timed = Settings(timestep_fs=0.5, temperature_k=KELVIN)
    reference = spectra("ir", [tmp_path / "mu.traj"], Settings(interval_fs=2.0, temperature_k=KELVIN))
    found = {
        "beads": spectra(
            "ir",
            [tmp_path / "a.mu_0", tmp_path / "a.mu_1"],
            Settings(timestep_fs=0.5, temperature_k=KELVIN, beads=2),
        ),
        "component": spectra("ir", [tmp_path / "component"], timed),
        "lammps": spectra("ir", [tmp_path / "mu.dat"], timed),
        "csv": spectra(
            "ir", [tmp_path / "mu.csv"], Settings(interval_fs=2.0, temperature_k=KELVIN, unit="Debye")
        ),
    }
    for name, each in found.items():
        np.testing.assert_allclose(each.main, reference.main, rtol=1e-6, err_msg=name)
    pair = [tmp_path / "a.mu_0", tmp_path / "a.mu_1"]
    with pytest.raises(BadInput, match="look like the beads of one path integral .*--beads 2"):
        spectra("ir", pair, timed)
    runs = spectra("ir", pair, Settings(timestep_fs=0.5, temperature_k=KELVIN, beads=1))
    assert len(runs.runs) == 2
    assert runs.integral > 1.1 * reference.integral  # with what is different in each
    measured = np.column_stack([np.linspace(1000, 2000, 101), np.ones(101)])
    np.savetxt(tmp_path / "measured.txt", measured, header="cm-1 intensity")
    words = ["--timestep", "0.5", "--temperature", "300", "--experiment", str(tmp_path / "measured.txt")]
    output = ["-o", str(tmp_path / "out"), "--json", str(tmp_path / "s.json")]
    assert main(["spectra", "ir", str(tmp_path / "mu.dat"), *words, *output]) == 0
    written = json.loads((tmp_path / "s.json").read_text())
    assert written["integral"]["value"] == pytest.approx(reference.integral)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html",
        "spectrum.png",
        "spectrum.pdf",
        "spectrum.csv",
        "peaks.csv",
    }
    rows = list(csv.DictReader((tmp_path / "out" / "peaks.csv").read_text().splitlines()))
    assert float(rows[0]["position_cm-1"]) == pytest.approx(1500, abs=0.5)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "scaled to the same area" in page
    assert "LAMMPS in units metal or real" in page


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1000,5;0,25\n2000,5; 0,75\n", None),
        ("1000,5\t0,25\n2000,5\t0,75\n", None),
        ("wavenumber (cm-1), eps (a.u.)\n1000.5, 0.25\n2000.5,0.75\n", None),
        ("# x: frequency (THz)\n1000.5 0.25\n2000.5 0.75\n", "line 1: .* says THz: expected wave numbers"),
        ("E_meV g\nmeV 1/meV\n1000.5 0.25\n2000.5 0.75\n", "line 2: .* says meV"),
        ("wavenumber,transmittance\n1000.5,0.25\n2000.5,0.75\n", "says transmittance"),
    ],
)
def test_what_a_measured_spectrum_is(tmp_path, text, said):
    """Decimal commas are read as such; another axis, or a transmittance, is not drawn as an absorption."""
    (tmp_path / "m.txt").write_text(text)
    axis = np.linspace(900, 2100, 13)
    if said is None:
        found = experiment(tmp_path / "m.txt", axis, np.ones(13), 1.0)
        assert found.per_cm.tolist() == [1000.5, 2000.5]
        assert found.values.tolist() == [0.25, 0.75]
    else:
        with pytest.raises(BadInput, match=said):
            experiment(tmp_path / "m.txt", axis, np.ones(13), 1.0)


def test_modes_of_a_molecule_at_rest(tmp_path):
    """Two atoms whose centre rests have three degrees of freedom, not six: no halved temperature."""
    masses, root = np.array([1.0, 3.0]), np.sqrt(units._k * KELVIN / units._amu) * 1e-5  # Å/fs
    waves = np.sqrt(2.0) * np.cos(
        angular(800.0) * 1e-15 * np.arange(2000)[:, None] + np.array([0.3, 1.1, 2.2])
    )
    reduced = masses.prod() / masses.sum()
    speed = root / np.sqrt(reduced) * waves
    values = np.stack([speed * reduced / masses[0], -speed * reduced / masses[1]], axis=1)
    frames = []
    for v in values:
        frames.append(Atoms("H2", positions=np.zeros((2, 3)), masses=masses))
        frames[-1].set_velocities(v / units.fs)
    write(tmp_path / "v.traj", frames)
    found = spectra("vdos", [tmp_path / "v.traj"], Settings(interval_fs=1.0, width_cm=60.0))
    assert found.state.temperature_k == pytest.approx(KELVIN, rel=1e-2)
    assert found.integral == pytest.approx(3.0, rel=1e-2)


def test_times_of_a_dump_are_compared(tmp_path):
    """A dump that says its times needs no time step, and contradicts the inner one of multiple time steps."""
    speed = oscillator(500.0, 1.0, 400, 8.0)[:, 0]
    frames = [
        f"ITEM: UNITS\nmetal\nITEM: TIME\n{0.008 * k:.6g}\nITEM: TIMESTEP\n{k}\nITEM: NUMBER OF ATOMS\n1\n"
        "ITEM: BOX BOUNDS pp pp pp\n0 9\n0 9\n0 9\nITEM: ATOMS id element x y z vx vy vz\n"
        f"1 O 0 0 0 {v:.9g} 0 0\n"
        for k, v in enumerate(speed)
    ]
    (tmp_path / "v.dump").write_text("".join(frames))
    found = spectra("vdos", [tmp_path / "v.dump"], Settings(width_cm=60.0))
    assert found.state.interval_fs == 8.0
    assert found.peaks[0].position == pytest.approx(500.0, abs=3.0)
    with pytest.raises(BadInput, match="8 fs by the times in the file, 2 fs by its steps and --timestep"):
        spectra("vdos", [tmp_path / "v.dump"], Settings(width_cm=60.0, timestep_fs=2.0))


def test_errors_are_those_of_repetitions():
    """The standard error of one series against the scatter of 100 of them; blocks are joined on the way."""
    from mlplugins.analysis.spectra.welch import MOST_BLOCKS, Periodogram

    random = np.random.default_rng(5)
    means, errors = [], []
    for _ in range(100):
        estimate = Periodogram(64, 1.0, np.zeros(1, dtype=np.intp))
        noise = random.normal(size=64 * 100)
        estimate.add((noise + 0.9 * np.roll(noise, 1))[:, None])
        found = estimate.finish()
        assert MOST_BLOCKS // 2 <= len(found.blocks) < MOST_BLOCKS
        blocks = found.blocks[:, 0] @ estimate.weights
        means.append(found.mean[0] @ estimate.weights)
        errors.append(blocks.std(ddof=1) / np.sqrt(len(blocks)))
    assert np.mean(means) == pytest.approx(1.81 / 2, rel=0.01)  # half of the variance: of f > 0
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(means), rel=0.2)


class Water(Calculator):
    """Springs, charges on the atoms, and polarizabilities of the bonds, which depend on their lengths."""

    implemented_properties = ("energy", "forces", "dipole")

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        x, energy, forces = self.atoms.positions, 0.0, np.zeros((3, 3))
        for i, j, k, r0 in ((0, 1, 48.0, 0.96), (0, 2, 48.0, 0.96), (1, 2, 9.0, 1.52)):
            v = x[j] - x[i]
            r = np.linalg.norm(v)
            energy += 0.5 * k * (r - r0) ** 2
            forces[i] += k * (r - r0) * v / r
            forces[j] -= k * (r - r0) * v / r
        self.results = {"energy": energy, "forces": forces, "dipole": dipole(x)}


def dipole(x):
    """(…, 3), e·Å: of charges that grow with the bonds."""
    bonds = x[..., 1:, :] - x[..., :1, :]
    return (bonds * (0.35 + 0.2 * np.linalg.norm(bonds, axis=-1, keepdims=True))).sum(axis=-2)


def polarizability(x):
    """(…, 3, 3), Å³."""
    bonds = x[..., 1:, :] - x[..., :1, :]
    r = np.linalg.norm(bonds, axis=-1)[..., None, None]
    axis = np.einsum("...i,...j->...ij", bonds, bonds) / r**2
    return ((0.5 + 0.3 * (r - 0.96)) * np.eye(3) + (0.2 + 1.1 * (r - 0.96)) * axis).sum(axis=-3)


class Alpha:
    """For ASE, e²Å²/eV."""

    def __call__(self, atoms):
        return polarizability(atoms.positions) / (units.Hartree * units.Bohr)


def test_a_molecule_against_ase(tmp_path, monkeypatch):
    """Modes of kT each, moved exactly: ASE's infrared intensities and Placzek's activities, within 1 %."""
    monkeypatch.chdir(tmp_path)
    height = np.sqrt(0.96**2 - 0.76**2)
    atoms = Atoms("OH2", [[0, 0, 0], [0.76, height, 0], [-0.76, height, 0]], calculator=Water())
    infrared = Infrared(atoms, delta=0.002)
    infrared.run()
    frequencies = infrared.get_frequencies()[-3:].real
    modes = np.array([infrared.get_mode(k) for k in range(9)])[-3:]  # Å u^(1/2) over the mass
    factor = 42.2561
    intensities = factor * infrared.intensities[-3:]
    raman = StaticRamanCalculator(atoms, Alpha, name="raman", delta=0.002)
    raman.run()
    placzek = PlaczekStatic(atoms, name="raman", delta=0.002)  # which does not know that of its files
    activities = placzek.get_absolute_intensities()[-3:].real
    kelvin, step = 2.0, 1.0
    time = step * 1e-15 * np.arange(60000)
    moved = np.repeat(atoms.positions[None], len(time), axis=0)
    for k, (nu, mode) in enumerate(zip(frequencies, modes)):
        mode = mode / np.sqrt((atoms.get_masses()[:, None] * mode**2).sum())  # u^(−1/2)
        amplitude = np.sqrt(2 * units._k * kelvin / units._amu) / angular(nu) * 1e10  # Å u^(1/2)
        moved += amplitude * np.cos(angular(nu) * time + k)[:, None, None] * mode
    np.save("mu.npy", dipole(moved))
    np.save("alpha.npy", polarizability(moved))
    given = {"interval_fs": step, "temperature_k": kelvin, "high_cm": 5000.0}
    ir = spectra("ir", ["mu.npy"], Settings(unit="e*A", **given))
    active = spectra("raman", ["alpha.npy"], Settings(unit="A^3", **given))
    for found, expected in ((ir, intensities), (active, activities)):
        np.testing.assert_allclose([peak.position for peak in found.peaks], frequencies, atol=0.2)
        np.testing.assert_allclose([peak.intensity for peak in found.peaks], expected, rtol=0.01)
    assert min(intensities) > 0.1
    assert min(activities) > 0.1


def test_memory_does_not_grow_with_the_length(tmp_path):
    peak = {}
    for samples in (100_000, 400_000):
        np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(samples, 3)))
        tracemalloc.start()
        spectra("power", [tmp_path / "x.npy"], Settings(interval_fs=2.0, width_cm=40.0))
        peak[samples] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak[400_000] < 1.3 * peak[100_000] < 60e6


def test_power_is_the_variance_and_corrections_are_factors(tmp_path, dipoles):
    np.save(tmp_path / "x.npy", 5.0 + dipoles)
    found = spectra("power", [tmp_path / "x.npy"], Settings(interval_fs=2.0, unit="e*A"))
    assert found.integral == pytest.approx(dipoles.var(axis=0).sum(), rel=1e-4)
    np.save(tmp_path / "mu.npy", dipoles)
    given = {"interval_fs": 2.0, "high_cm": 3000.0, **STATE}
    whole = {
        name: spectra("ir", [tmp_path / "mu.npy"], Settings(correction=name, **given)).peaks[0].height
        for name in ("harmonic", "standard", "schofield", "none")
    }
    x = units._hplanck * C * 1.5e5 / KT
    assert whole["standard"] / whole["harmonic"] == pytest.approx(np.tanh(x / 2) / (x / 2), rel=1e-3)
    assert whole["schofield"] / whole["harmonic"] == pytest.approx(np.sinh(x / 2) / (x / 2), rel=1e-3)
    assert whole["none"] / whole["harmonic"] == pytest.approx((1 - np.exp(-x)) / x, rel=1e-3)
