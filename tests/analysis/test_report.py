"""The report: tables, figures and a page that needs no other file."""

import base64
import csv
import io
import re
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest

from mlplugins.analysis.arrhenius import arrhenius
from mlplugins.analysis.conductivity import AnalysisSettings, analyse
from mlplugins.analysis.report import Report, write_report
from mlplugins.analysis.trajectory import Trajectory
from mlplugins.errors import RunFailed
from mlplugins.testing.walks import LatticeWalk


def results(temperatures, collective=True):
    for number, temperature in enumerate(temperatures):
        moved = LatticeWalk(frames=600, ions=20, rate=0.1 + 0.2 * number, seed=number).displacements()
        run = Trajectory("Li", moved, 100.0, ((0, 600),), 8000.0, 40, {}, np.zeros((600, 3)), collective)
        yield analyse([run], temperature, AnalysisSettings())


@pytest.fixture(scope="module")
def report():
    runs = list(results([500.0, 600.0, 700.0]))
    law, notes = arrhenius(runs)
    return Report("Li", runs, law, [*notes, "a < b & c"], (("fit", "gls"), ("files", "<a&b>.dump")))


@pytest.fixture(scope="module")
def folder(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "new" / "out"
    return path, write_report(report, path)


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
    names = {"msd.png", "arrhenius.png", "results.csv", "msd.csv", "report.html"}
    assert {written.name for written in paths} == names
    assert {written.name for written in path.iterdir()} == names


def test_page_is_self_contained_and_complete(report, folder):
    page = (folder[0] / "report.html").read_text()
    parser = Strict()
    parser.feed(page)
    assert parser.open == []
    assert len(parser.sources) == 2
    for source, name in zip(parser.sources, ("msd.png", "arrhenius.png")):
        assert (
            base64.b64decode(source.removeprefix("data:image/png;base64,")) == (folder[0] / name).read_bytes()
        )
    assert "http" not in re.sub(r"data:[^']*", "", page)
    assert "a &lt; b &amp; c" in page
    assert "&lt;a&amp;b&gt;.dump" in page
    for text in report.warnings[:-1]:
        assert text.replace("&", "&amp;") in page
    assert f"Ea = {report.arrhenius.activation_ev.value:.3g}" in page
    assert "TOR unwrapping" in page
    assert "generalised least squares" in page


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
    for name in ("msd.png", "arrhenius.png"):
        image = matplotlib.image.imread(folder[0] / name)
        assert min(image.shape[:2]) >= 800
        ink = (image[..., :3].min(axis=2) < 0.7).mean()
        assert 0.005 < ink < 0.3


def test_one_temperature_without_collective_values(tmp_path):
    report = Report("Li", list(results([600.0], collective=False)), None, [])
    paths = write_report(report, tmp_path)
    assert "arrhenius.png" not in {path.name for path in paths}
    assert report.as_json()["arrhenius"] is None
    page = (tmp_path / "report.html").read_text()
    assert "<p>None.</p>" in page
    assert next(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text())))["haven_ratio"] == ""


def test_a_folder_that_cannot_be_written_is_named(report, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFailed, match="cannot write .*file/msd.png: "):
        write_report(report, tmp_path / "file")
