"""The report: tables, figures and a page that needs no other file."""

import base64
import csv
import io
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from mlplugins import plotting
from mlplugins.analysis.arrhenius import arrhenius
from mlplugins.analysis.conductivity import AnalysisSettings, analyse
from mlplugins.analysis.markup import table
from mlplugins.analysis.methods_text import methods
from mlplugins.analysis.numbers import span
from mlplugins.analysis.observables.base import registered
from mlplugins.analysis.page import STYLE, report_html
from mlplugins.analysis.report import Report, not_quotable
from mlplugins.analysis.report_files import results_csv, write_report
from mlplugins.analysis.trajectory import Trajectory
from mlplugins.errors import RunFailed
from mlplugins.testing.walks import LatticeWalk
from tests import pictures


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
    with pictures.drawn():
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
    row = next(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text())))
    assert (row["haven_ratio"], row["undetermined"]) == ("", "")


def test_the_table_of_results_names_what_is_undetermined(tmp_path):
    [run] = results([600.0])
    wide = replace(run.diffusion.tracer, low=1e-9, high=1e-5, limit=30.0)
    text = results_csv(Report("Li", [replace(run, diffusion=replace(run.diffusion, tracer=wide))], None, []))
    assert next(csv.DictReader(io.StringIO(text)))["undetermined"].split()[0] == "D_cm2_s"


def test_tables_and_figures_are_numbered_and_have_captions(folder):
    page = (folder[0] / "report.html").read_text()
    for word, tag in (("Table", "caption"), ("Figure", "figcaption")):
        found = re.findall(rf"<{tag}><b>{word} (\d+)\.</b> (.+?)</{tag}>", page)
        assert [int(number) for number, _ in found] == list(range(1, len(found) + 1))
        assert len(found) >= 4
    assert page.count("<table") == page.count("<caption>")
    assert page.count("<figure>") == page.count("<figcaption>") == len(FIGURES)


def test_every_table_keeps_its_columns():
    """What the pages were looked at for: an interval wraps below its number, nothing is cut off on paper."""
    rules = STYLE.replace("\n", "")
    screen, paper = rules.split("@media print")
    assert "td span,th span{display:inline-block;white-space:nowrap}" in screen
    assert ".wide{overflow-x:auto" in screen
    assert ".wide{overflow:visible}" in paper
    assert "overflow:hidden" not in rules
    assert "max-width:none" in paper
    assert re.search(r"figure,tr,\.key,li,\.short\{break-inside:avoid\}", paper)
    assert "@page{margin" in rules
    assert "size:" not in rules.replace("font-size:", "")  # A4 or Letter, as the reader's printer has it
    html = table(["T (K)", "D (10⁻⁵ cm²/s)"], [["600", ("1.23", "[1.00, 1.50]")]])
    assert "<th scope='col'>D <span>(10⁻⁵ cm²/s)</span></th>" in html
    assert "<td><span>1.23</span> <span>[1.00, 1.50]</span></td>" in html


def test_the_page_is_made_for_phones_and_paper(folder):
    page = (folder[0] / "report.html").read_text()
    assert "<meta name='viewport' content='width=device-width,initial-scale=1'>" in page
    assert "prefers-color-scheme:dark" in page


def test_warnings_stand_below_the_numbers_that_they_mark(report, folder):
    page = (folder[0] / "report.html").read_text()
    places = [
        page.index(text)
        for text in ("Not quotable while the warnings", "Ea = ", "class='warn'", "Results</h2>")
    ]
    assert places == sorted(places)
    one = replace(report, warnings=["a doubt"])
    assert not_quotable(one) == "Not quotable while the warning below stands"
    clean = report_html(replace(report, warnings=[]), {})
    assert "quotable" not in clean
    assert "No warnings." in clean


def test_numbers_are_those_of_the_json(report, folder):
    """Each value and end of Table 1 is that of results.json to the digits printed."""
    page = (folder[0] / "report.html").read_text()
    body = page.split("Table 1.")[1].split("</table>")[0]
    heads = re.findall(r"<th scope='col'>(.*?)</th>", body)
    assert [re.sub("<.*?>", "", head) for head in heads][2:4] == [
        "σ Nernst–Einstein (S/cm)",
        "σ collective (S/cm)",
    ]
    power = "".join(str("⁰¹²³⁴⁵⁶⁷⁸⁹".index(c)) for c in re.search("10⁻([⁰-⁹¹²³]+)", heads[1])[1])
    names = ("D_cm2_s", "sigma_tracer_mS_cm", "sigma_collective_mS_cm", "haven_ratio")
    factors = (10.0 ** int(power), 1e-3, 1e-3, 1.0)
    rows = re.findall(r"<tr>(.*?)</tr>", body.split("<tbody>")[1])
    assert len(rows) == 3
    for row, run in zip(rows, report.as_json()["runs"]):
        cells = re.findall(r"<td>(.*?)</td>", row)[1:]
        for cell, name, factor in zip(cells, names, factors):
            value = run[name]
            if value.get("determined", True):
                shown = [float(text) for text in re.findall(r"\d[\d.]*", re.sub("<.*?>", " ", cell))]
                true = [factor * value[key] for key in ("value", "low", "high")]
                assert shown == pytest.approx(true, abs=0.05 * (true[2] - true[1]))


def test_how_the_trajectories_were_made_is_said_or_missed(report):
    assert "Not recorded" in report_html(report, {})
    made = replace(report, dynamics={"ensemble": "NVT; csvr <thermostat>", "seeds": "1, 2"})
    page = report_html(made, {})
    assert "<td>ensemble</td><td>NVT; csvr &lt;thermostat&gt;</td>" in page
    assert "Not recorded" not in page


def test_scatter_between_seeds():
    """Two runs: each by itself, and their standard deviation; one run: what is not known."""
    walks = [LatticeWalk(frames=600, ions=20, seed=seed).displacements() for seed in (1, 2)]
    pair = [Trajectory("Li", w, 100.0, ((0, 600),), 8000.0, 40, {}, np.zeros((600, 3))) for w in walks]
    chosen = {"seeds": registered()["seeds"]}
    both = analyse(pair, 600.0, AnalysisSettings(), chosen)
    each = [analyse([one], 600.0, AnalysisSettings()).diffusion.tracer.value for one in pair]
    found = both.observables["seeds"]
    assert [value.value for value in found.values] == pytest.approx(each)
    assert found.scatter == pytest.approx(np.std(each, ddof=1) / np.mean(each))
    assert both.as_json()["scatter_between_runs"] == found.scatter
    alone = analyse(pair[:1], 700.0, AnalysisSettings(), chosen)
    assert alone.as_json()["scatter_between_runs"] is None
    html = "".join(chosen["seeds"].section([(run, run.observables["seeds"]) for run in (both, alone)]))
    assert f"{100 * found.scatter:.2g} %" in html
    assert "One run at 700 K: the scatter between seeds is not known there" in html


def test_a_used_folder_keeps_no_figure_of_an_earlier_report(report, folder, tmp_path):
    """Those of the report alone go; whatever else is there stays."""
    shutil.copytree(folder[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "mine.png").write_bytes(b"x")
    fewer = Report("Li", [replace(report.runs[0], observables={})], None, [])
    written = {path.name for path in write_report(fewer, tmp_path)}
    assert written == {"results.csv", "msd.csv", "report.html"}
    assert {path.name for path in tmp_path.iterdir()} == {*written, "mine.png"}
    (tmp_path / "msd.png").write_bytes(b"x")
    (tmp_path / "report.html").write_text("<img alt='msd.png' src=''> of another program")
    write_report(fewer, tmp_path)
    assert (tmp_path / "msd.png").exists()


def test_a_folder_that_cannot_be_written_is_named(report, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFailed, match="cannot write .*file/msd.png: "):
        write_report(report, tmp_path / "file")
