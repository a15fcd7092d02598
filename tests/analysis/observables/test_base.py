"""One more observable is one file: it appears in the JSON, figures, page, methods text and terminal."""

import json
import re
import sys
from pathlib import Path

import ase.io
import matplotlib.image
import numpy as np
import pytest
from ase import Atoms

from mlplugins.analysis import observables
from mlplugins.analysis.conductivity import AnalysisSettings, analyse
from mlplugins.analysis.observables.base import Observable, registered
from mlplugins.analysis.trajectory import Trajectory
from mlplugins.cli.main import main
from mlplugins.errors import BadInput
from mlplugins.testing.walks import LatticeWalk

FILE = '''
"""Non-Gaussian parameter α2(t) = 3 ⟨r⁴⟩ / (5 ⟨r²⟩²) − 1."""

import numpy as np

from mlplugins import plotting
from mlplugins.analysis.markup import table
from mlplugins.analysis.observables.base import Observable


class NonGaussian(Observable):
    keys = ("non_gaussian",)
    references = {"rahman": "A. Rahman, Phys. Rev. 136, A405 (1964), 10.1103/PhysRev.136.A405."}

    def compute(self, sample, notes):
        path = sample.paths.displacements[0]
        lags = [lag for lag in (10, 40) if lag < len(path) / 2]
        squares = [((path[lag:] - path[:-lag]) ** 2).sum(axis=2) for lag in lags]
        if not lags:
            notes.append("no non-Gaussian parameter: fewer than 21 frames")
            return None
        values = [3 * (each**2).mean() / (5 * each.mean() ** 2) - 1 for each in squares]
        return list(zip((np.array(lags) * sample.paths.interval_fs / 1000).tolist(), map(float, values)))

    def as_json(self, found):
        return {"non_gaussian": {"lag_ps": [lag for lag, _ in found], "value": [value for _, value in found]}}

    def doubts(self, found, sample):
        return ["the ions do not move as one Gaussian process"] if found and found[-1][1] > 0.2 else []

    def figures(self, found):
        figure = plotting.canvas(4.0, 3.0, "α2 against the lag.")
        axes = figure.subplots()
        for (run, points), color in zip(found, plotting.colors(len(found))):
            axes.plot(*zip(*points), "o-", color=color, label=f"{run.temperature_k:g} K")
        plotting.finish(axes)
        return {"non_gaussian": figure}

    def section(self, found):
        rows = [[f"{run.temperature_k:g}", f"{points[-1][1]:.2f}"] for run, points in found]
        return ["<h2>Non-Gaussian parameter</h2>", table(["T (K)", "α2"], rows)]

    def sentence(self, found, cite):
        return f"The non-Gaussian parameter is that of Rahman {cite('rahman')}."

    def lines(self, run, found):
        return [f"{run.temperature_k:g} K: α2 = {found[-1][1]:.2f}"]


OBSERVABLE = NonGaussian()
'''


@pytest.fixture
def non_gaussian(tmp_path, monkeypatch):
    """A folder with the one file, on the path of the package."""
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "non_gaussian.py").write_text(FILE, encoding="utf-8")
    monkeypatch.setattr(observables, "__path__", [*observables.__path__, str(folder)])
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop(f"{observables.__name__}.non_gaussian", None)
    vars(observables).pop("non_gaussian", None)


def run_of(moved):
    still = np.zeros((len(moved), 3))
    return Trajectory("Li", moved, 100.0, ((0, len(moved)),), 8000.0, moved.shape[1], {}, still)


def gaussian(frames, ions, seed=0):
    return np.cumsum(0.5 * np.random.default_rng(seed).normal(size=(frames, ions, 3)), axis=0)


@pytest.mark.usefixtures("non_gaussian")
def test_the_toy_is_found_and_computes_its_closed_forms():
    """Zero for a Gaussian walk, 3/(5 Γ t) for Poisson hops on a cubic lattice."""
    assert list(registered())[-1] == "non_gaussian"
    chosen = {"non_gaussian": registered()["non_gaussian"]}
    free = analyse([run_of(gaussian(2000, 100))], 600.0, AnalysisSettings(), chosen)
    assert dict(free.observables["non_gaussian"]) == pytest.approx({1.0: 0.0, 4.0: 0.0}, abs=0.03)
    walk = LatticeWalk(frames=2000, ions=300, rate=1.0, vibration=0.0)
    hops = analyse([run_of(walk.displacements())], 600.0, AnalysisSettings(), chosen)
    assert dict(hops.observables["non_gaussian"]) == pytest.approx({1.0: 3 / 5, 4.0: 3 / 20}, abs=0.06)


@pytest.mark.slow
@pytest.mark.usefixtures("non_gaussian", "drawn")
def test_the_toy_is_in_every_output_of_the_command(capsys):
    start = 20 * np.random.default_rng(5).random((10, 3))
    symbols = ["Li"] * 6 + ["S"] * 4
    moved = np.concatenate([gaussian(200, 6), np.zeros((200, 4, 3))], axis=1) + start
    ase.io.write("a.extxyz", [Atoms(symbols, each, cell=[20.0] * 3, pbc=True) for each in moved])
    options = ["--species", "Li", "--temperature", "600", "--timestep", "2", "--interval", "50"]
    assert main(["conductivity", "a.extxyz", *options]) == 0
    [run] = json.loads(Path("conductivity/results.json").read_text())["runs"]
    assert run["non_gaussian"]["lag_ps"] == [1.0, 4.0]
    value = f"{run['non_gaussian']['value'][-1]:.2f}"
    page = Path("conductivity/report.html").read_text(encoding="utf-8")
    assert "<h2>Non-Gaussian parameter</h2>" in page
    assert f"<td>600</td><td>{value}</td>" in page
    assert "<img alt='non_gaussian.png'" in page
    assert re.search(r"<b>Figure \d+\.</b> α2 against the lag\.", page)
    methods = page.split("to paste")[1]
    number = methods.split("that of Rahman [")[1].split("]")[0]
    assert "A. Rahman" in methods.split("<li>")[int(number)]
    assert matplotlib.image.imread("conductivity/non_gaussian.png").shape[:2] == (900, 1200)
    assert f"600 K: α2 = {value}" in capsys.readouterr().out


@pytest.mark.usefixtures("non_gaussian")
def test_what_cannot_be_had_is_null_with_a_warning():
    chosen = {"non_gaussian": registered()["non_gaussian"]}
    result = analyse([run_of(gaussian(20, 30))], 600.0, AnalysisSettings(), chosen)
    assert result.observables == {"non_gaussian": None}
    assert result.as_json()["non_gaussian"] is None
    assert "600 K: no non-Gaussian parameter: fewer than 21 frames" in result.warnings
    hops = LatticeWalk(frames=100, ions=20, rate=0.1).displacements()
    doubted = analyse([run_of(hops)], 600.0, AnalysisSettings(), chosen)
    assert "600 K: the ions do not move as one Gaussian process" in doubted.warnings


def test_those_of_the_package_have_keys_and_references_of_their_own():
    each = registered()
    assert set(each) == {path.stem for path in Path(observables.__path__[0]).glob("*.py")} - {
        "__init__",
        "base",
    }
    result = analyse([run_of(gaussian(400, 6))], 600.0, AnalysisSettings(), each)
    keys = [key for one in each.values() for key in one.keys]
    assert len(set(keys)) == len(keys)
    own = set(analyse([run_of(gaussian(400, 6))], 600.0, AnalysisSettings()).as_json())
    assert not own & set(keys)
    assert set(result.as_json()) == own | set(keys)
    for name, one in each.items():
        assert isinstance(one, Observable)
        if result.observables[name] is not None:
            assert set(one.as_json(result.observables[name])) == set(one.keys)
    cited = [key for one in each.values() for key in one.references]
    assert len(set(cited)) == len(cited)


def test_settings_that_make_no_sense_are_refused():
    run = run_of(gaussian(400, 6))
    still = Trajectory(
        "Li", run.displacements, 100.0, run.segments, 8000.0, 9, {"S": np.zeros(400)}, run.drift
    )
    chosen = {"finite_size": registered()["finite_size"]}
    with pytest.raises(BadInput, match="a framework that stands still"):
        analyse([still], 600.0, AnalysisSettings(viscosity_mpa_s=1.0), chosen)
