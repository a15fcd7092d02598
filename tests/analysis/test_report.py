"""The report: tables, figures and a page that needs no other file."""

import base64
import csv
import io
import re
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from mlplugins import plotting
from mlplugins.analysis.arrhenius import arrhenius
from mlplugins.analysis.conductivity import AnalysisSettings, analyse
from mlplugins.analysis.methods_text import methods
from mlplugins.analysis.numbers import span
from mlplugins.analysis.observables.base import registered
from mlplugins.analysis.report import Report
from mlplugins.analysis.report_files import write_report
from mlplugins.analysis.trajectory import Trajectory
from mlplugins.errors import RunFailed
from mlplugins.testing.walks import LatticeWalk


def results(temperatures, collective=True, observables=None):
    for number, temperature in enumerate(temperatures):
        moved = LatticeWalk(frames=600, ions=20, rate=0.1 + 0.2 * number, seed=number).displacements()
        run = Trajectory("Li", moved, 100.0, ((0, 600),), 8000.0, 40, {}, np.zeros((600, 3)), collective)
        yield analyse([run], temperature, AnalysisSettings(), observables)


@pytest.fixture(scope="module")
def report():
    runs = list(results([500.0, 600.0, 700.0], observables=registered()))
    law, notes = arrhenius(runs)
    return Report("Li", runs, law, [*notes, "a < b & c"], (("fit", "gls"), ("files", "<a&b>.dump")))


@pytest.fixture(scope="module")
def folder(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "new" / "out"
    return path, write_report(report, path)


FIGURES = ("msd", "convergence", "arrhenius", "motion")


class Strict(HTMLParser):
    """Collects tags; every opened tag has to be closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.rows = [], [], 0

    def handle_starttag(self, tag, attributes):
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        self.rows += tag == "tr"
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_all_files_and_no_other(folder):
    path, paths = folder
    figures = {f"{name}.{kind}" for name in FIGURES for kind in ("png", "pdf")}
    names = {*figures, "results.csv", "msd.csv", "report.html"}
    assert {written.name for written in paths} == names
    assert {written.name for written in path.iterdir()} == names


def test_methods_say_what_was_done():
    """A window that was given, ordinary least squares, no drift removed."""
    walk = LatticeWalk(frames=600, ions=20).displacements()
    run = Trajectory("Li", walk, 100.0, ((0, 600),), 8000.0, 40, {}, np.zeros((600, 3)))
    text = methods([analyse([run], 600.0, AnalysisSettings(window_ps=(2, 8), estimator="ols"))], None, "none")
    assert "given by the user" in text
    assert "ordinary least squares on at most 100 even lags" in text
    assert "no drift was removed" in text
    assert "contradicts" not in text
    assert "generalised least squares" not in text.split("<ol>")[0]
    chosen = methods([analyse([run], 600.0, AnalysisSettings())], None, "centre of mass of all atoms but Li")
    assert "the earliest one whose ordinary slope agrees" in chosen
    assert "the drift of the centre of mass of all atoms but Li was removed" in chosen
    assert "generalised least squares" in chosen


def test_page_is_self_contained_and_complete(report, folder):
    page = (folder[0] / "report.html").read_text()
    parser = Strict()
    parser.feed(page)
    assert parser.open == []
    assert len(parser.sources) == 4
    for source, name in zip(parser.sources, FIGURES):
        image = (folder[0] / f"{name}.png").read_bytes()
        assert base64.b64decode(source.removeprefix("data:image/png;base64,")) == image
    assert "http" not in re.sub(r"data:[^']*", "", page)
    assert "a &lt; b &amp; c" in page
    assert "&lt;a&amp;b&gt;.dump" in page
    for text in report.warnings[:-1]:
        assert text.replace("&", "&amp;") in page
    assert f"Ea = {span(report.arrhenius.activation_ev)} eV" in page
    assert "fractional coordinates times the mean of the two cells" in page
    assert "TOR unwrapping" in page  # where the cell is constant
    assert "generalised least squares" in page
    assert "Independent checks" in page
    assert "Self-diffusion tensor" in page
    cited = {
        int(number)
        for group in re.findall(r"\[(\d+(?:, \d+)*)\]", page.split("to paste")[1])
        for number in group.split(", ")
    }
    assert cited == set(range(1, page.split("to paste")[1].count("<li>") + 1))


def test_tables_hold_the_numbers(report, folder):
    rows = list(csv.DictReader(io.StringIO((folder[0] / "results.csv").read_text())))
    assert [row["T_K"] for row in rows] == ["500", "600", "700"]
    for row, run in zip(rows, report.runs):
        assert float(row["D_cm2_s"]) == pytest.approx(run.diffusion.tracer.value, rel=1e-5)
        assert float(row["sigma_collective_mS_cm_high"]) == pytest.approx(run.sigma_collective.high, rel=1e-5)
    curve = list(csv.DictReader(io.StringIO((folder[0] / "msd.csv").read_text())))
    assert len(curve) == 3 * 299
    assert float(curve[0]["lag_ps"]) == pytest.approx(0.1)
    total = sum(float(curve[7][f"msd_{axis}_A2"]) for axis in "xyz")
    assert float(curve[7]["msd_A2"]) == pytest.approx(total, rel=1e-4)


def test_figures_are_drawn(folder):
    for name in FIGURES:
        image = matplotlib.image.imread(folder[0] / f"{name}.png")
        assert min(image.shape[:2]) >= 600
        assert (folder[0] / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        ink = (image[..., :3].min(axis=2) < 0.7).mean()
        assert 0.005 < ink < 0.3


@pytest.mark.parametrize("highest", [4e-5, 3e-4])
def test_logarithmic_axes_have_numbers(highest):
    """Also where no power of ten lies between the ends."""
    figure = Figure()
    axes = figure.subplots()
    axes.plot([12, 16], [1.3e-5, highest])
    axes.set_yscale("log")
    plotting.finish(axes)
    figure.canvas.draw()
    ends = axes.get_ylim()
    labels = [
        t
        for t in axes.get_yticklabels(which="both")
        if t.get_text() and ends[0] < t.get_position()[1] < ends[1]
    ]
    assert len(labels) >= (2 if highest < 1e-4 else 1)


def test_one_temperature_without_collective_values(tmp_path):
    report = Report("Li", list(results([600.0], collective=False)), None, [])
    paths = write_report(report, tmp_path)
    assert "arrhenius.png" not in {path.name for path in paths}
    assert report.as_json()["arrhenius"] is None
    page = (tmp_path / "report.html").read_text()
    assert "<p>No warnings.</p>" in page
    assert next(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text())))["haven_ratio"] == ""


def test_a_folder_that_cannot_be_written_is_named(report, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFailed, match="cannot write .*file/msd.png: "):
        write_report(report, tmp_path / "file")
