"""Spectra of input without meaning: refused or warned about by name."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from mlplugins import spectra
from mlplugins.analysis.spectra.settings import Settings
from mlplugins.errors import BadInput

from .test_spectra import KELVIN, STATE, dipoles, extras, oscillator  # noqa: F401


def test_jumps_by_cell_vectors(tmp_path, dipoles):  # noqa: F811
    """Refused; taken back where the cell is known."""
    cell = np.array([[8.0, 0, 0], [1.0, 7.0, 0], [0, 0.5, 9.0]])
    shifts = np.zeros_like(dipoles)
    shifts[4000:] += cell[0]
    shifts[9000:] -= cell[1] + cell[2]
    np.save(tmp_path / "mu.npy", dipoles)
    np.save(tmp_path / "jumps.npy", dipoles + shifts)
    given = {"interval_fs": 2.0, **STATE}
    smooth = spectra("ir", [tmp_path / "mu.npy"], Settings(**given))
    with pytest.raises(BadInput, match=r"jumps by 8.03 e·Å near sample 3999.*2 such jumps.*--cell LX LY LZ"):
        spectra("ir", [tmp_path / "jumps.npy"], Settings(**given))
    mended = spectra("ir", [tmp_path / "jumps.npy"], Settings(cell=tuple(cell.ravel()), **given))
    np.testing.assert_allclose(mended.main, smooth.main, rtol=1e-6, atol=1e-9 * smooth.main.max())
    with pytest.raises(BadInput, match="not by a cell vector"):
        spectra("ir", [tmp_path / "jumps.npy"], Settings(cell=(20.0, 20.0, 20.0), **given))


REFUSED = [
    ({"unit": None}, r"the unit of the dipole is not in the file and never guessed: --unit"),
    ({"unit": "debye"}, r"'debye': did you mean 'Debye'\?"),
    ({"temperature_k": None}, "the temperature of the runs: --temperature"),
    ({"interval_fs": None}, "the time between samples is not in the file: give --interval"),
    ({"width_cm": 0.5}, r"24 ps\), too few for lines of 0.5 cm⁻¹ \(48054 samples\)"),
    ({"width_cm": 5.0, "window_fs": 500.0}, "width_cm and window_fs: expected one"),
    ({"highest_cm": 9000.0}, r"nothing above 8339 cm⁻¹ \(Nyquist\), but the highest mode is at 9000"),
    ({"beads": 2}, "1 files cannot be runs of 2 beads"),
    ({"correction": "bader"}, "correction: 'bader': Valid: harmonic"),
    ({"cell": (1.0, 2.0)}, "expected 3 or 9 numbers, got 2"),
    ({"laser_nm": -5.0}, "laser_nm: expected a positive number"),
    ({"laser_nm": 18797.0}, "between 100 and 2500 nm, got 18797"),  # that is 532 nm in cm⁻¹
    ({"low_cm": 900.0, "high_cm": 100.0}, "expected low below high"),
]


@pytest.mark.parametrize(("settings", "text"), REFUSED)
def test_settings_without_meaning(tmp_path, dipoles, settings, text):  # noqa: F811
    np.save(tmp_path / "mu.npy", dipoles)
    with pytest.raises(BadInput, match=text):
        spectra("ir", [tmp_path / "mu.npy"], Settings(**({"interval_fs": 2.0} | STATE | settings)))


def test_tables_of_users(tmp_path, dipoles):  # noqa: F811
    """A column of times contradicts --interval; tables without names, or transposed, are named as such."""
    settings = Settings(interval_fs=2.0, columns=("x", "y", "z"), **STATE)
    for unit, factor in {"fs": 1.0, "ps": 1e-3}.items():
        rows = np.column_stack([2.0 * factor * np.arange(len(dipoles)), dipoles])
        np.savetxt(tmp_path / unit, rows, delimiter=",", header="time,x,y,z", comments="")
        assert spectra("ir", [tmp_path / unit], settings).peaks
    with pytest.raises(BadInput, match="grows by 2 from row to row, which is 0.5 fs in no unit"):
        spectra("ir", [tmp_path / "fs"], replace(settings, interval_fs=0.5))
    np.savetxt(tmp_path / "bare.txt", dipoles)
    with pytest.raises(BadInput, match="a table has a line of names above its columns"):
        spectra("ir", [tmp_path / "bare.txt"], settings)
    np.save(tmp_path / "turned.npy", dipoles.T)
    with pytest.raises(BadInput, match=r"x\[12\], … \(\d+ in all\): name them"):
        spectra("ir", [tmp_path / "turned.npy"], Settings(interval_fs=2.0, **STATE))


def test_files_without_meaning(tmp_path, dipoles):  # noqa: F811
    """Gaps, frames twice, damage, several systems, charges, constants: named with file and place."""
    timed = Settings(timestep_fs=0.5, temperature_k=KELVIN)
    with open(tmp_path / "gap", "w") as file:
        for k in [*range(300), *range(310, 600)]:
            file.write(f" #EXTRAS(dipole)# Step:  {4 * k} \n{k % 7} 0.1 0.2\n")
    with pytest.raises(BadInput, match="gap: after step 1196 comes step 1240, expected one every 4: a gap"):
        spectra("ir", [tmp_path / "gap"], timed)
    with open(tmp_path / "twice", "w") as file:
        for k in [*range(300), *range(298, 600)]:
            file.write(f" #EXTRAS(dipole)# Step:  {4 * k} \n{k % 7} 0.1 0.2\n")
    with pytest.raises(BadInput, match="after step 1196 comes step 1192.*there twice"):
        spectra("ir", [tmp_path / "twice"], timed)
    (tmp_path / "damaged").write_text(
        "".join(f" #EXTRAS(dipole)# Step: {k} \n0.1 0.2{' 0.3' * (k != 5)}\n" for k in range(9))
    )
    with pytest.raises(BadInput, match="damaged, step 5: 2 numbers, expected 3"):
        spectra("ir", [tmp_path / "damaged"], timed)
    (tmp_path / "raw").write_text(' #EXTRAS(raw)# Step: 0 \n{"dipole": [1, 2, 3]}\n')
    with pytest.raises(BadInput, match='no numbers in the first frame.*extra_type="dipole"'):
        spectra("ir", [tmp_path / "raw"], timed)
    np.save(tmp_path / "a.npy", dipoles)
    np.save(tmp_path / "still.npy", 0 * dipoles)
    broken = dipoles.copy()
    broken[77, 1] = np.nan
    np.save(tmp_path / "nan.npy", broken)
    given = Settings(interval_fs=2.0, **STATE)
    for files, text in (
        (["still.npy"], "the dipole does not change"),
        (["nan.npy"], "nan.npy: sample 77 is not finite"),
        (["a.npy", "a.npy"], "named twice"),
        (["none.npy"], "no such file"),
    ):
        with pytest.raises(BadInput, match=text):
            spectra("ir", [tmp_path / name for name in files], given)
    for name, symbols, info in (("h", "OH2", {}), ("d", "OHF", {}), ("ion", "OH2", {"charge": 1})):
        frames = [Atoms(symbols, info={**info, "mu": mu}) for mu in dipoles[:80]]
        write(tmp_path / f"{name}.extxyz", frames)
    named = Settings(interval_fs=2.0, columns=("mu",), **STATE)
    with pytest.raises(BadInput, match="hold different atoms: expected runs of one system"):
        spectra("ir", [tmp_path / "h.extxyz", tmp_path / "d.extxyz"], named)
    with pytest.raises(BadInput, match="the charge is 1 e: the dipole of a charged system moves"):
        spectra("ir", [tmp_path / "ion.extxyz"], named)


def test_warnings(tmp_path, dipoles):  # noqa: F811
    """Folded modes, few digits, short runs, runs that differ, free charges; a killed run."""
    given = {"interval_fs": 2.0, **STATE}

    def warned(values, **more):
        np.save(tmp_path / "mu.npy", values)
        return " ".join(spectra("ir", [tmp_path / "mu.npy"], Settings(**(given | more))).warnings)

    assert warned(dipoles) == ""
    slow = oscillator(300.0, 2.0, 4000, 10.0)
    assert "nothing above 1668 cm⁻¹: faster modes" in warned(slow, interval_fs=10.0)
    assert warned(slow, interval_fs=10.0, highest_cm=1600.0) == ""
    assert "32 % of the intensity lies in the highest tenth" in warned(dipoles[::5], interval_fs=10.0)
    assert "the numbers have too few digits" in warned(np.round(dipoles, 1), keep_jumps=True)
    assert re.search(r"lines are \d+ cm⁻¹ wide, which is what runs of 2 ps allow", warned(dipoles[:1000]))
    with pytest.raises(BadInput, match=r"99 samples \(0.198 ps\), too few for lines of 10 cm⁻¹"):
        warned(dipoles[:100])
    ions = np.cumsum(np.random.default_rng(0).normal(size=(12000, 3)), axis=0)
    assert "does not vanish at zero frequency" in warned(1e-2 * ions, highest_cm=4000.0, volume_a3=900.0)
    np.save(tmp_path / "b.npy", 2 * dipoles)
    np.save(tmp_path / "mu.npy", dipoles)
    both = spectra("ir", [tmp_path / "mu.npy", tmp_path / "b.npy"], Settings(**given))
    assert any("integrated intensities of the runs differ" in text for text in both.warnings)
    extras(tmp_path / "killed", dipoles)
    text = (tmp_path / "killed").read_text()
    (tmp_path / "killed").write_text(text[: len(text) - 30])
    cut = spectra("ir", [tmp_path / "killed"], Settings(timestep_fs=0.5, temperature_k=KELVIN))
    assert any("killed run" in each for each in cut.warnings)
    assert cut.length_ps[0] == pytest.approx(2e-3 * (len(dipoles) - 2))


def test_what_is_there_twice_is_refused(tmp_path):
    """A run as two files, a restart appended without step numbers, a component as two; oscillators repeat."""
    mu = np.cumsum(np.random.default_rng(3).normal(size=(3000, 3)), axis=0) % 5.0
    given = {"interval_fs": 2.0, "keep_jumps": True, **STATE}
    for name, values in {
        "a": mu,
        "b": mu,
        "appended": np.concatenate([mu[:2000], mu[1500:]]),
        "twin": mu[:, [0, 1, 1]],
        "periodic": np.tile(mu[:500], (6, 1)),
    }.items():
        np.save(tmp_path / f"{name}.npy", values)
    for files, columns, text in (
        (["a", "b"], (), "b.npy holds the same numbers as .*a.npy: a run counts once"),
        (["appended"], (), r"samples around 20\d\d are those around 15\d\d again"),
        (["twin"], (), "'μy' and 'μz' hold the same numbers"),
        (["a"], ("x[1]", "x[1]", "x[3]"), r"the column 'x\[1\]' is named twice"),
    ):
        with pytest.raises(BadInput, match=text):
            spectra("ir", [tmp_path / f"{name}.npy" for name in files], Settings(columns=columns, **given))
    assert spectra("ir", [tmp_path / "periodic.npy"], Settings(**given)).integral > 0


def test_polarizabilities_that_no_ground_state_has(tmp_path):
    """Six components row by row, read in Voigt's order: xx, xy, xz on the diagonal."""
    mode = oscillator(1200.0, 1.0, 4000, 1.0)[:, :1]
    alpha = np.array([10.0, 0.3, -0.2, 9.0, 0.1, 8.0]) + mode * [1.0, 0.2, 0.1, 0.5, 0.3, 0.4]
    np.save(tmp_path / "alpha.npy", alpha)
    np.save(tmp_path / "changes.npy", alpha - alpha.mean(axis=0))
    given = {"interval_fs": 1.0, "temperature_k": KELVIN, "unit": "A^3"}
    for name, order, wrong in (
        ("alpha", "xx xy xz yy yz zz", False),
        ("alpha", "xx yy zz yz xz xy", True),
        ("changes", "xx yy zz yz xz xy", False),
    ):
        found = spectra("raman", [tmp_path / f"{name}.npy"], Settings(order=order, **given))
        assert bool([text for text in found.warnings if "not positive definite" in text]) == wrong
