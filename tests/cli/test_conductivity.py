"""`mlplugins conductivity` as a user runs it."""

import io
import json
import re

import ase.io
import numpy as np
import pytest
from rich.console import Console

from mlplugins.analysis.conductivity import AnalysisSettings, analyse
from mlplugins.analysis.numbers import Unit, conductivity_unit, parts
from mlplugins.analysis.report import Report
from mlplugins.analysis.trajectory import Trajectory
from mlplugins.cli.conductivity import _print as print_report
from mlplugins.cli.main import main
from mlplugins.testing.walks import Crystal, LatticeWalk, crystal, write_lammps_dump
from tests import pictures

OPTIONS = ["--species", "Li", "--charge", "1", "--temperature", "600", "--timestep", "2"]


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def walk(tmp_path):
    known = LatticeWalk(frames=800, ions=15, rate=0.4)
    write_lammps_dump(crystal(known), tmp_path / "run.dump", columns="id element x y z")
    return known


def interval(value):
    assert set(value) == {"value", "low", "high"}
    return value["low"], value["high"]


def test_one_run(walk, tmp_path, capsys):
    assert main(["conductivity", "run.dump", *OPTIONS, "--json", "out/result.json"]) == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result == json.loads((tmp_path / "conductivity" / "results.json").read_text())
    assert set(result) == {"species", "runs", "arrhenius", "jump_activation", "warnings"}
    assert (result["species"], result["arrhenius"]) == ("Li", None)
    (run,) = result["runs"]
    assert (run["T_K"], run["n_frames"]) == (600, 800)
    low, high = interval(run["D_cm2_s"])
    assert low < walk.exact_cm2_s < high
    low, high = interval(run["haven_ratio"])
    assert low < 1 < high
    e2_kt = (1.602176634e-19) ** 2 / (1.380649e-23 * 600)
    sigma = 15 / 8000e-24 * e2_kt * run["D_cm2_s"]["value"] * 1e3
    assert run["sigma_tracer_mS_cm"]["value"] == pytest.approx(sigma, rel=1e-6)
    assert interval(run["sigma_collective_mS_cm"])
    assert len(run["fit_window_ps"]) == 2
    names = {path.name for path in (tmp_path / "conductivity").iterdir()}
    drawn = ("msd", "convergence", "motion", "free_energy", "radial")
    figures = {f"{name}.{kind}" for name in drawn for kind in ("png", "pdf")}
    tables = {
        f"{name}.csv"
        for name in ("msd", "results", "vibrations", "jumps", "collective", "free_energy", "radial")
    }
    assert names == {*figures, *tables, "results.json", "report.html"}
    for name in ("D_bayes_cm2_s", "D_collective_bayes_cm2_s"):
        assert set(run[name]) == {"value", "low", "high"}
    assert run["D_bayes_cm2_s"]["low"] < walk.exact_cm2_s < run["D_bayes_cm2_s"]["high"]
    assert sum(run["D_tensor_cm2_s"]["principal"]) == pytest.approx(3 * run["D_cm2_s"]["value"], rel=1e-6)
    assert run["hops"]["n_hops"] > 100
    assert run["onsager"] is None
    shown = capsys.readouterr().out
    assert "σ collective" in shown
    assert "report: conductivity/report.html" in shown


@pytest.mark.long
def test_several_files_of_one_run_and_the_options(tmp_path):
    known = crystal(LatticeWalk(frames=800, ions=15, rate=0.4))
    frames = list(known.wrapped().atoms())
    ase.io.write("a.extxyz", frames[:300])
    ase.io.write("b.traj", frames[300:])
    options = [
        "--interval",
        "50",
        "--discard-ps",
        "10",
        "--fit-window",
        "2",
        "8",
        "--fit",
        "ols",
        "-o",
        "here",
    ]
    assert main(["conductivity", "a.extxyz", "b.traj", *OPTIONS, *options]) == 0
    (run,) = json.loads((tmp_path / "here" / "results.json").read_text())["runs"]
    assert run["n_frames"] == 700
    assert run["fit_window_ps"] == [2, 8]


def test_types_without_elements(tmp_path, capsys):
    known = crystal(LatticeWalk(frames=100, ions=5))
    write_lammps_dump(known, tmp_path / "a.dump", columns="id element x y z")
    text = (tmp_path / "a.dump").read_text().replace("id element", "id type")
    (tmp_path / "a.dump").write_text(text.replace(" Li ", " 2 ").replace(" S ", " 1 "))
    assert main(["conductivity", "a.dump", *OPTIONS]) == 2
    assert "--type-map Li P S Cl" in capsys.readouterr().err
    assert main(["conductivity", "a.dump", *OPTIONS, "--type-map", "S", "Li"]) == 0


@pytest.fixture
def series(tmp_path):
    """Three temperatures with Ea = 0.2 eV, the middle one as two runs."""
    lines = ["species: Li", "charge: 1", "timestep: 2", "runs:"]
    (tmp_path / "data").mkdir()
    for seed, temperature in enumerate([500, 600, 600, 750]):
        rate = 20 * np.exp(-0.2 / (8.617333e-5 * temperature))
        system = crystal(LatticeWalk(frames=700, ions=15, rate=rate, seed=seed))
        write_lammps_dump(system, tmp_path / "data" / f"{seed}.dump", columns="id element xu yu zu")
        lines.append(f"  - {{files: [data/{seed}.dump], temperature: {temperature}}}")
    (tmp_path / "runs.yaml").write_text("\n".join(lines))
    return tmp_path / "runs.yaml"


@pytest.mark.slow
def test_several_temperatures(series, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir("/")  # the files are found beside the configuration
    out = str(tmp_path / "out")
    with pictures.drawn("png"):
        assert main(["conductivity", str(series), "-o", out, "--json", str(tmp_path / "r.json")]) == 0
    result = json.loads((tmp_path / "r.json").read_text())
    assert [run["T_K"] for run in result["runs"]] == [500, 600, 750]
    assert [run["n_frames"] for run in result["runs"]] == [700, 1400, 700]
    low, high = interval(result["arrhenius"]["Ea_eV"])
    assert low < 0.2 < high
    for name in ("D0_cm2_s", "D_300K_cm2_s", "sigma_300K_mS_cm"):
        low, high = interval(result["arrhenius"][name])
        assert 0 < low < result["arrhenius"][name]["value"] < high
    assert (tmp_path / "out" / "arrhenius.png").stat().st_size > 10_000
    assert any("300 K is" in text for text in result["warnings"])
    assert "σ(300 K) =" in capsys.readouterr().out


@pytest.mark.long
def test_options_win_over_the_file(series, tmp_path):
    series.write_text("\n".join(series.read_text().split("\n")[:-3]))  # one temperature is enough
    assert main(["conductivity", "runs.yaml", "--charge", "2", "--fit", "ols"]) == 0
    doubled = json.loads((tmp_path / "conductivity" / "results.json").read_text())["runs"][0]
    assert main(["conductivity", "runs.yaml", "--fit", "ols"]) == 0
    single = json.loads((tmp_path / "conductivity" / "results.json").read_text())["runs"][0]
    ratio = doubled["sigma_tracer_mS_cm"]["value"] / single["sigma_tracer_mS_cm"]["value"]
    assert ratio == pytest.approx(4, rel=1e-9)


BAD_CONFIGS = [
    (
        "runs:",
        "temprature: 5\nruns:",
        "unknown key 'temprature': ",
    ),
    ("timestep:", "timstep:", "unknown key 'timstep': did you mean 'timestep'\\?"),
    ("temperature: 500", "temprature: 500", "unknown key 'runs.0.temprature': did you mean 'temperature'\\?"),
    ("temperature: 500", "temperature: hot", "'runs.0.temperature': .*got 'hot'"),
    ("temperature: 500", "temperature: -5", "'runs.0.temperature': .*greater than 0, got -5"),
    ("species: Li\n", "", "missing key 'species'"),
    ("charge: 1", "charge: [1", "not valid YAML"),
    ("data/0.dump", "data/9.dump", "no such trajectory: .*data/9.dump"),
]


@pytest.mark.parametrize(("old", "new", "text"), BAD_CONFIGS)
def test_bad_configurations_are_refused(tmp_path, capsys, old, new, text):
    good = "species: Li\ncharge: 1\ntimestep: 2\nruns:\n  - {files: [data/0.dump], temperature: 500}\n"
    (tmp_path / "runs.yaml").write_text(good.replace(old, new, 1))
    assert main(["conductivity", "runs.yaml"]) == 2
    message = capsys.readouterr().err
    assert re.search(text, message), message
    assert not (tmp_path / "conductivity").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["run.dump", "--charge", "1"], "--species is missing, e.g. --species Li"),
        (["run.dump", "--species", "Li"], "--temperature is missing"),
        (["run.dump", *OPTIONS[:-2]], "give --timestep, the MD time step in fs"),
        (["run.dump", *OPTIONS[:-1], "-1"], "'timestep': input should be greater than 0, got -1.0"),
        (
            ["run.dump", *OPTIONS, "--interval", "0"],
            "'interval': input should be greater than or equal to 1, got 0",
        ),
        (
            ["run.dump", "--species", "Na", *OPTIONS[2:]],
            "no atom of species 'Na'; the trajectory holds Li, S",
        ),
        (["other.dump", *OPTIONS], "no such trajectory: 'other.dump'"),
        (["runs.yaml", "run.dump"], "runs.yaml is a configuration; give it alone"),
        (["runs.yaml", "--temperature", "5"], "--temperature cannot be given with a YAML file"),
        (["runs.yaml"], "no such configuration file: 'runs.yaml'"),
        (["run.dump", *OPTIONS, "--fit-window", "5", "2"], "--fit-window 5 2 ps; expected 0 ≤ LO < HI"),
        (["run.dump", *OPTIONS, "--discard-ps", "500"], "--discard-ps 500 leaves nothing of a run of 80 ps"),
    ],
)
def test_bad_command_lines_are_refused(walk, tmp_path, capsys, words, text):
    assert main(["conductivity", *words]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "conductivity").exists()


def test_a_run_that_is_too_short_is_refused(tmp_path, capsys):
    short = crystal(LatticeWalk(frames=12, ions=3))
    write_lammps_dump(short, tmp_path / "a.dump")
    assert main(["conductivity", "a.dump", *OPTIONS]) == 2
    assert "12 frames; a fit needs at least 20" in capsys.readouterr().err


def test_the_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["conductivity", "--help"])
    assert stop.value.code == 0
    assert (
        "mlplugins conductivity run.lammpstrj --species Li --charge 1 --temperature 600"
        in capsys.readouterr().out
    )


@pytest.mark.long
def test_long_files_show_progress(walk, monkeypatch, capsys):
    monkeypatch.setattr("mlplugins.analysis.study.BYTES_WITH_PROGRESS", 0)
    assert main(["conductivity", "run.dump", *OPTIONS]) == 0
    assert "report:" in capsys.readouterr().out


def test_ions_that_do_not_move_are_reported_not_hidden(tmp_path, capsys):
    random = np.random.default_rng(0)
    rattle = 10 + 0.1 * random.normal(size=(300, 8, 3))
    cells = np.repeat(20 * np.eye(3)[None], 300, axis=0)
    write_lammps_dump(
        Crystal(["Li"] * 4 + ["S"] * 4, rattle, cells), tmp_path / "a.dump", columns="id element x y z"
    )
    assert main(["conductivity", "a.dump", *OPTIONS, "--json", "r.json"]) == 0
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["runs"][0]["D_cm2_s"]["low"] < 1e-7
    assert any("less than one hop" in text for text in result["warnings"])


@pytest.fixture(scope="module")
def wide_and_unknown():
    """A report with long intervals, and with values that are not determined."""
    runs = []
    for temperature, rate in ((600.0, 0.4), (1000.5, 0.004)):
        moved = LatticeWalk(frames=200, ions=6, rate=rate, seed=4).displacements()
        still = np.zeros((200, 3))
        run = Trajectory("Li", moved, 100.0, ((0, 200),), 8000.0, 12, {}, still)
        runs.append(analyse([run], temperature, AnalysisSettings()))
    return Report("Li", runs, None, ["a doubt"])


@pytest.mark.parametrize("columns", [80, 119, 120, 200])
def test_the_table_survives_narrow_terminals_and_pipes(wide_and_unknown, columns):
    """Every number and every interval is in one piece, on lines that are not folded."""
    screen = Console(file=io.StringIO(), width=columns, markup=False)  # a pipe has 80, or COLUMNS
    print_report(screen, wide_and_unknown)
    shown = screen.file.getvalue()
    table = shown.split("600 K: D*")[0]
    assert all(len(line.rstrip()) <= columns for line in table.splitlines())
    assert "…" not in table
    for run in wide_and_unknown.runs:
        for value in (run.diffusion.haven, run.sigma_collective):
            for text in filter(None, parts(value, conductivity_unit_of(wide_and_unknown, value))):
                assert text in table
    assert "undetermined" in table
    assert "Not quotable while the warning below stands" in shown
    assert shown.index("Not quotable") < shown.index("warning: a doubt")


def conductivity_unit_of(report, value):
    """The unit of the table for σ, none for the Haven ratio."""
    sigmas = [sigma for run in report.runs for sigma in (run.sigma_tracer, run.sigma_collective)]
    return conductivity_unit(sigmas) if value in sigmas else Unit()
