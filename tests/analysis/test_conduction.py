"""Thermal conductivity of fluxes whose κ is known, from every kind of file; what is wrong is named."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import units

from mlplugins import thermal
from mlplugins.analysis import heat_series
from mlplugins.analysis.cepstrum import cepstrum, spectra
from mlplugins.analysis.conduction import Settings
from mlplugins.cli.main import main
from mlplugins.errors import BadInput
from mlplugins.testing.fluxes import density_at_zero, ornstein_uhlenbeck

PARTS = [(20.0, 1.0)]
STATE = {"temperature_k": 300.0, "volume_a3": 1000.0}


def truth(parts, interval_fs=2.0):
    """κ of fluxes in eV Å/ps, W/(m K): S(0)/(2 V k T²) in SI."""
    density = density_at_zero(parts) * interval_fs * 1e-15  # (eV Å/ps)² s
    si = (units._e * 1e-10 / 1e-12) ** 2
    return density * si / (2 * 1000e-30 * units._k * 300.0**2)


@pytest.fixture(scope="module")
def flux():
    return ornstein_uhlenbeck(np.random.default_rng(3), (12000, 6), PARTS)


def test_intervals_hold_the_truth():
    """Of 40 fluxes with one and with two times, 95 % intervals (benchmarks/thermal_coverage.py: of 200)."""
    for parts in ([(10.0, 1.0)], [(5.0, 1.0), (80.0, 0.3)]):
        expected = np.log(density_at_zero(parts))
        scores, held = [], 0
        for seed in range(40):
            sample = ornstein_uhlenbeck(np.random.default_rng(seed), (8000, 3), parts)
            found = cepstrum(spectra(sample.T[:, :, None], 1.0), 1 / 8000, 3.0)
            scores.append((found.log_zero - expected) / found.error)
            held += found.low < expected < found.high
        assert held >= 36
        assert 0.5 < np.std(scores) < 1.3
        assert abs(np.mean(scores)) < 0.75


SCREEN = "Setting up Verlet run ...\n  Unit style    : {}\n  Current step  : 0\n  Time step     : {}\n"
LOG_FILE = "LAMMPS (22 Jul 2025)\nunits {}\ntimestep ${{dt}}\ntimestep {} # ps or fs\nrun 4000\n"


@pytest.mark.parametrize("head", [SCREEN, LOG_FILE])
def test_a_log_says_its_units_and_a_flux_per_volume_is_seen(tmp_path, flux, head):
    """LAMMPS' own example divides J by the volume. `Unit style` is on the screen, commands in the log."""
    rows = "\n".join(f"{k} " + " ".join(map(repr, row)) for k, row in enumerate(flux[:4000, :3].tolist()))
    log = tmp_path / "log.lammps"
    later = head.format("metal", 0.001) + "   Step Temp\n0 90.0\n"  # a run after it, with another step
    log.write_text(head.format("metal", 0.002) + "   Step c_J[1] c_J[2] c_J[3]\n" + rows + "\n" + later)
    assert not [w for w in thermal([log], Settings(timestep_fs=2.0, **STATE)).warnings if "known has" in w]
    with pytest.raises(BadInput, match="log says a time step of 2 fs, and --timestep is 1 fs"):
        thermal([log], Settings(timestep_fs=1.0, **STATE))
    log.write_text(log.read_text().replace("metal", "real"))
    with pytest.raises(BadInput, match=r"log says units real, .* expected --units real"):
        thermal([log], Settings(timestep_fs=2.0, **STATE))
    np.save(tmp_path / "j.npy", flux[:4000, :3] / STATE["volume_a3"])
    found = thermal([tmp_path / "j.npy"], Settings(interval_fs=2.0, **STATE))
    assert any("J seems to be divided by the volume" in text for text in found.warnings)


def test_rows_read_many_at_a_time_are_those_read_one_by_one(tmp_path, flux, monkeypatch):
    """Between rows, where pieces of 50 lines end or begin: warnings, empty lines, another run or table."""
    rows = [f"{k} {' '.join(map(repr, row))}\n" for k, row in enumerate(flux[:900, :3].tolist())]
    title = "   Step c_J[1] c_J[2] c_J[3]\n"
    other = "Step Temp\n" + "".join(f"{k} 300\n" for k in range(250))
    middle = [rows[0], "WARNING: neighbours\n", *rows[1:299], "\n", *rows[299:]]
    text = (
        title
        + "".join(rows[:298])
        + "Loop time of 1\n"
        + other
        + title
        + "".join(middle)
        + "Loop time of 1\n"
    )
    log, table = tmp_path / "log.lammps", tmp_path / "j.csv"
    log.write_text(text)
    table.write_text("step,J[1],J[2],J[3]\n" + "".join(row.replace(" ", ",") for row in rows))
    monkeypatch.setattr(heat_series, "LINES", 50)
    fast = [heat_series.read(path) for path in (log, table)]
    monkeypatch.setattr(heat_series, "_rows", lambda lines, width: None)
    for path, found in zip((log, table), fast):
        slow = heat_series.read(path)
        assert np.array_equal(found.table[:, 1:], flux[:900, :3])
        assert np.array_equal(found.table, slow.table)
        assert (found.columns, found.chosen, found.doubtful) == (slow.columns, slow.chosen, slow.doubtful)


def test_which_run_of_a_log_was_taken_is_said(tmp_path, flux):
    """A long equilibration before the run, two runs of one length, or a short equilibration."""
    title, timed = "   Step c_J[1] c_J[2] c_J[3]\n", Settings(timestep_fs=2.0, **STATE)

    def log(name, *lengths):
        path = tmp_path / name
        rows = [f"{k} {' '.join(map(repr, row))}\n" for k, row in enumerate(flux[:, :3].tolist())]
        path.write_text("Loop time of 1\n".join(title + "".join(rows[:n]) for n in lengths))
        return thermal([path], timed)

    for name, lengths, number in (("long", (3000, 1000), 1), ("same", (2000, 2000), 1)):
        found = log(name, *lengths)
        [said] = [text for text in found.warnings if "the longest" in text]
        assert f"taken is the longest of 2 tables, number {number}: {max(lengths)} of 4000 rows" in said
    found = log("usual", 300, 3000)
    assert not [text for text in found.warnings if "the longest" in text]
    assert dict(found.assumptions)["tables"] == "usual: the longest of 2 tables, number 2: 3000 of 3300 rows"
    assert "tables" not in dict(log("one", 3000).assumptions)


def test_what_particles_carry_is_projected_out():
    """J + 30 M has the S(0) of J when M, in other units, is known; without it 900 times as much and more."""
    generator = np.random.default_rng(2)
    j, m = (ornstein_uhlenbeck(generator, (20000, 3), [(tau, 1.0)]) for tau in (10.0, 40.0))
    both = np.stack([j + 30 * m, 1e-6 * m], axis=2).transpose(1, 0, 2)
    found = cepstrum(spectra(both, 1.0), 1 / 20000, 2.0)
    assert abs(found.log_zero - np.log(density_at_zero([(10.0, 1.0)]))) < 2.5 * found.error
    assert found.error < 0.2
    alone = cepstrum(spectra(both[:, :, :1], 1.0), 1 / 20000, 3.0)
    assert alone.log_zero - found.log_zero > np.log(900.0)


def write_log(path: Path, flux: np.ndarray) -> None:
    """As LAMMPS writes it: a first short table without the flux, warnings between rows."""
    lines = [
        "LAMMPS (22 Jul 2025)",
        "   Step          Temp",
        "         0   300",
        "        10   301",
        "Loop time",
    ]
    lines += ["   Step          Temp          Volume         c_J[1]         c_J[2]         c_J[3]    "]
    for k, row in enumerate(flux):
        lines.append(f"{20 * k:9d} {300.0 + (-1) ** k:.6g} 1000 " + " ".join(f"{x:.10g}" for x in row))
        lines += ["WARNING: something (src/x.cpp:1)"] if k == 7 else []
    path.write_text("\n".join([*lines, "Loop time of 1 on 1 procs", ""]))


@pytest.mark.long
def test_every_kind_of_file_gives_the_same(tmp_path, flux):
    one = flux[:, :3]
    write_log(tmp_path / "log.lammps", one)
    np.save(tmp_path / "j.npy", one)
    np.savetxt(tmp_path / "j.csv", one, "%.10g", ",", header="c_J[1],c_J[2],c_J[3]", comments="")
    steps = np.column_stack([20 * np.arange(len(one)), one])
    head = "Time-averaged data for fix J\n# TimeStep c_J[1] c_J[2] c_J[3]"
    np.savetxt(tmp_path / "flux.dat", steps, "%.10g", header=head)
    np.save(tmp_path / "real.npy", one * 1e-3 * 23.060547830619)
    np.save(tmp_path / "ase.npy", one * 1e-3 / units.fs)
    timed, given = Settings(timestep_fs=0.1), Settings(interval_fs=2.0, **STATE)
    found = {
        "log": thermal([tmp_path / "log.lammps"], timed),
        "fix": thermal([tmp_path / "flux.dat"], Settings(timestep_fs=0.1, **STATE)),
        "csv": thermal([tmp_path / "j.csv"], given),
        "npy": thermal([tmp_path / "j.npy"], given),
        "real": thermal([tmp_path / "real.npy"], Settings(interval_fs=2.0, units="real", **STATE)),
        "ase": thermal([tmp_path / "ase.npy"], Settings(interval_fs=2.0, units="ase", **STATE)),
    }
    for name, each in found.items():
        assert each.kappa.value == pytest.approx(found["npy"].kappa.value, rel=1e-6), name
        assert each.interval_fs == pytest.approx(2.0), name
    kappa, integral = found["npy"].kappa, found["npy"].integral
    assert kappa.low < truth(PARTS) < kappa.high < 2.0 * kappa.low
    assert integral.low < truth(PARTS) < integral.high
    assert found["npy"].warnings == ()
    assert len(found["npy"].axes) == 3
    assert found["npy"].correlation_ps == pytest.approx(0.04, rel=0.2)  # τ = 20 samples of 2 fs


def test_runs_add_up_and_the_report_says_all(tmp_path, flux, capsys):
    for k, part in enumerate((flux[:, :3], flux[:6000, 3:])):
        np.save(tmp_path / f"{k}.npy", part)
    words = ["--interval", "2", "--temperature", "300", "--volume", "1000", "-o", str(tmp_path / "out")]
    files = [str(tmp_path / f"{k}.npy") for k in (0, 1)]
    assert main(["thermal", *files, *words, "--json", str(tmp_path / "k.json")]) == 0
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "k.json").read_text())
    kappa = result["kappa_W_mK"]
    assert kappa["low"] < truth(PARTS) < kappa["high"]
    shown = float(re.search(r"^κ\(300 K\) = ([\d.]+) \[.*10⁻³ W/\(m K\)$", printed, re.M)[1])
    assert shown == pytest.approx(1e3 * kappa["value"], abs=0.051)
    assert len(result["kappa_runs_W_mK"]) == 3  # two pieces of the first run, of the length of the second
    assert result["length_ps"] == [24.0, 12.0]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        *(f"{name}.{kind}" for name in ("spectrum", "integral") for kind in ("png", "pdf", "csv")),
        "results.csv",
        "report.html",
    }
    rows = list(csv.reader((tmp_path / "out" / "results.csv").read_text().splitlines()))
    assert float(rows[1][1]) == pytest.approx(kappa["value"], rel=1e-5)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "No warnings." in page
    assert "10.1038/s41598-017-15843-2" in page
    assert page.count("<figure>") == 2


def test_axes_that_differ_scatter_as_fewer(tmp_path, flux):
    """A crystal that conducts along z alone, and a flux that particles carry, each of one run."""
    layered = ornstein_uhlenbeck(np.random.default_rng(5), (20000, 3), PARTS) * [0.1, 0.1, 1.0]
    np.save(tmp_path / "j.npy", layered)
    found = thermal([tmp_path / "j.npy"], Settings(interval_fs=2.0, **STATE))
    assert found.kappa.low < truth(PARTS) * 1.02 / 3 < found.kappa.high
    assert found.axes[2].low / 3 < found.kappa.value < found.axes[2].high / 3
    np.save(tmp_path / "mixed.npy", flux + 3 * np.roll(flux, 3, axis=1))
    names = tuple(f"J[{k}]" for k in range(4, 7))
    mixed = thermal([tmp_path / "mixed.npy"], Settings(interval_fs=2.0, others=names, **STATE))
    assert mixed.as_json()["kappa_axes_W_mK"] == {}  # of one run, the axes together are enough


def test_a_flux_that_does_not_vanish_on_the_average_is_said(tmp_path, flux):
    given = Settings(interval_fs=2.0, **STATE)
    for name, mean in {"still": 0.0, "drifting": 3.0}.items():
        np.save(tmp_path / f"{name}.npy", flux[:, :3] + [0, mean, 0])
        found = thermal([tmp_path / f"{name}.npy"], given)
        assert any("standard errors from zero" in text for text in found.warnings) == (mean > 0)
    assert found.kappa.low < truth(PARTS) < found.kappa.high


C_J = ("c_J[1]", "c_J[2]", "c_J[3]")
WRONG = {
    "none": ({}, "time between samples is not in the file: give --interval"),
    "no temperature": ({"interval_fs": 2.0, "volume_a3": 1000.0}, "no column Temp: give --temperature"),
    "no volume": ({"interval_fs": 2.0, "temperature_k": 300.0}, "no column Volume: give --volume"),
    "units": ({"interval_fs": 2.0, "units": "si", **STATE}, "units of the flux: 'si'"),
    "negative": ({"interval_fs": -2.0, **STATE}, "interval_fs: expected a positive number, got -2.0"),
    "column": ({"interval_fs": 2.0, "columns": ("J[1]", "J[2]", "J[9]"), **STATE}, "no column 'J\\[9\\]'"),
    "two": ({"interval_fs": 2.0, "columns": ("J[1]", "J[2]"), **STATE}, "expected three columns"),
    "discarded": ({"interval_fs": 2.0, "discard_ps": 23.9, **STATE}, "samples after the first 23.9 ps"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_known_is_asked_for(tmp_path, flux, case):
    np.save(tmp_path / "j.npy", flux[:, :3])
    settings, text = WRONG[case]
    with pytest.raises(BadInput, match=text):
        thermal([tmp_path / "j.npy"], Settings(**settings))


def test_files_that_do_not_fit_are_named(tmp_path, flux):
    given, timed = Settings(interval_fs=2.0, **STATE), Settings(timestep_fs=0.1, **STATE)
    np.save(tmp_path / "short.npy", flux[:150, :3])
    np.save(tmp_path / "flat.npy", flux[:, 0])
    np.save(tmp_path / "nan.npy", np.where(np.arange(12000)[:, None] == 7, np.nan, flux[:, :3]))
    np.save(tmp_path / "still.npy", flux[:, :3] * [1, 1, 0])
    np.save(tmp_path / "complex.npy", flux[:, :3] + 0j)
    np.save(tmp_path / "turned.npy", flux[:, :3].T)
    np.save(tmp_path / "timed.npy", np.column_stack([2.0 * np.arange(12000), flux[:, :3]]))
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "prose.txt").write_text("no numbers here\n")
    steps = 20 * np.arange(12000)
    for name, at in {"even": steps, "uneven": steps + (steps == 400), "other": 2 * steps}.items():
        table = np.column_stack([at, flux[:, :3]])
        np.savetxt(tmp_path / f"{name}.dat", table, "%.8g", header="TimeStep c_J[1] c_J[2] c_J[3]")
    table = np.column_stack([steps, flux[:, :6]])
    head = "TimeStep c_J[1] c_J[2] c_J[3] c_K[1] c_K[2] c_K[3]"
    np.savetxt(tmp_path / "both.dat", table, "%.8g", header=head)
    for files, settings, text in (
        (["short.npy"], given, "150 samples of the flux, expected at least 200"),
        (["flat.npy"], given, r"expected .* real numbers \(samples, 3 or more\), got float64 \(12000,\)"),
        (["complex.npy"], given, r"expected an array of real numbers .* got complex128"),
        (["turned.npy"], given, r"got \(3, 12000\): transpose it"),
        (["timed.npy"], given, r"'J\[1\]' rises in every sample, as a time does"),
        (["even.dat"], Settings(interval_fs=3.0, timestep_fs=0.1, **STATE), "20 steps of 0.1 fs are 2 fs"),
        (["both.dat"], replace(timed, columns=C_J, others=C_J), "depend on one another"),
        (["nan.npy"], given, "sample 7 is not finite"),
        (["still.npy"], given, "must be finite and not constant"),
        (["text.npy"], given, "not an array of numpy"),
        (["prose.txt"], given, "no table: expected a LAMMPS log"),
        (["absent.npy"], given, "no such file"),
        (["uneven.dat"], timed, "samples 19 and 20 are 21 steps apart"),
        (["even.dat", "other.dat"], timed, "runs with samples every 2, 4 fs: expected one"),
        (["both.dat"], timed, "expected one vector of 3 or 6 components .*got c_J, c_K"),
        (["even.dat"], Settings(**STATE), "counts MD steps: give their length, --timestep"),
    ):
        with pytest.raises(BadInput, match=text):
            thermal([tmp_path / name for name in files], settings)


def test_what_is_there_twice_is_refused(tmp_path, flux):
    """A run as two files, a restart appended without step numbers, a component as two."""
    given, one = Settings(interval_fs=2.0, **STATE), flux[:3000, :3]
    for name, values in {
        "a": one,
        "b": one,
        "appended": np.concatenate([one[:2000], one[1500:]]),
        "twin": one[:, [0, 1, 1]],
        "periodic": np.tile(one[:500], (6, 1)),
    }.items():
        np.save(tmp_path / f"{name}.npy", values)
    for files, settings, text in (
        (["a", "b"], given, "b.npy holds the same numbers as .*a.npy: a run counts once"),
        (["a", "a"], given, "a run counts once"),
        (["appended"], given, r"samples around 20\d\d are those around 15\d\d again"),
        (["twin"], given, r"'J\[2\]' and 'J\[3\]' hold the same numbers"),
        (["a"], replace(given, columns=("J[1]", "J[1]", "J[3]")), r"the column 'J\[1\]' is named twice"),
    ):
        with pytest.raises(BadInput, match=text):
            thermal([tmp_path / f"{name}.npy" for name in files], settings)
    assert thermal([tmp_path / "periodic.npy"], given).kappa.value > 0


def test_runs_of_different_states_and_poor_sampling(tmp_path, flux):
    for name, volume in {"a": 1000.0, "b": 1100.0}.items():
        table = np.column_stack([flux[:2000, :3], np.full((2000, 1), 300.0), np.full((2000, 1), volume)])
        np.savetxt(
            tmp_path / f"{name}.csv", table, "%.8g", ",", header="J[1],J[2],J[3],Temp,Volume", comments=""
        )
    with pytest.raises(BadInput, match=r"differ in their volume \(a.csv 1000, b.csv 1100\)"):
        thermal([tmp_path / "a.csv", tmp_path / "b.csv"], Settings(interval_fs=2.0))
    with pytest.raises(BadInput, match=r"b.csv: the mean of its column Volume is 1100, --volume says 1000"):
        thermal([tmp_path / "a.csv", tmp_path / "b.csv"], Settings(interval_fs=2.0, volume_a3=1000.0))
    with pytest.raises(BadInput, match=r"a.csv: the mean of its column Temp is 300, --temperature says 600"):
        thermal([tmp_path / "a.csv"], Settings(interval_fs=2.0, temperature_k=600.0))
    np.save(tmp_path / "sparse.npy", flux[::60, :3])
    sparse = thermal([tmp_path / "sparse.npy"], Settings(interval_fs=120.0, **STATE))
    assert any("too far apart" in text for text in sparse.warnings)
    np.save(tmp_path / "brief.npy", flux[:600, :3])
    brief = thermal([tmp_path / "brief.npy"], Settings(interval_fs=2.0, **STATE))
    assert any("short for a correlation time" in text for text in brief.warnings)
