"""Measured values and other reports beside the results."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlplugins import plotting
from mlplugins.analysis.arrhenius import Arrhenius, arrhenius
from mlplugins.analysis.arrhenius_figure import arrhenius_figure
from mlplugins.analysis.comparison import Comparison, Measured, compared, read_system
from mlplugins.analysis.conductivity import AnalysisSettings, analyse
from mlplugins.analysis.page import report_html
from mlplugins.analysis.report import Report
from mlplugins.analysis.study import conductivity
from mlplugins.analysis.trajectory import Trajectory
from mlplugins.errors import BadInput
from mlplugins.testing.walks import LatticeWalk


@pytest.fixture(scope="module")
def runs():
    found = []
    for number, temperature in enumerate([500.0, 600.0, 700.0]):
        moved = LatticeWalk(frames=400, ions=20, rate=0.2 + 0.2 * number, seed=number).displacements()
        run = Trajectory("Li", moved, 100.0, ((0, 400),), 8000.0, 40, {}, np.zeros((400, 3)))
        found.append(analyse([run], temperature, AnalysisSettings()))
    return found


@pytest.fixture(scope="module")
def report(runs):
    measured = [Measured(300.0, 2.4, None, "impedance"), Measured(600.0, None, 1.2e-5, "NMR")]
    return Report("Li", runs, arrhenius(runs)[0], [], comparison=Comparison(measured))


def test_a_measured_value_stands_beside_the_run_or_the_line(report):
    cold, warm = compared(report.comparison.measured, report.runs, report.arrhenius)
    assert (cold.source, warm.source) == ("line", "run")
    assert warm.d_cm2_s is report.runs[1].diffusion.tracer
    law = report.arrhenius
    assert cold.d_cm2_s.value == pytest.approx(law.room_d.value)
    assert cold.sigma_tracer.value == pytest.approx(law.room_sigma.value)
    assert cold.sigma_tracer.high == pytest.approx(law.room_sigma.high)
    assert cold.sigma_collective.value == pytest.approx(law.room_collective.value)
    other = compared([Measured(400.0, 1.0, None, "x")], report.runs, law)[0]
    e2 = law.room_sigma.value * 300 / law.room_d.value  # σ T/D is one number
    assert other.sigma_tracer.value * 400 / other.d_cm2_s.value == pytest.approx(e2)
    assert compared([Measured(400.0, 1.0, None, "x")], report.runs, None)[0].d_cm2_s is None


def test_the_page_shows_both(report):
    page = report_html(report, {})
    assert "Measured and computed conductivity." in page
    assert "<td>impedance</td><td>300</td><td>2.4</td>" in page
    assert "<td>NMR</td><td>600</td><td>1.2</td>" in page
    assert "Arrhenius line" in page
    assert "at this temperature" in page


def test_results_of_another_report_are_read_as_they_were(report, tmp_path):
    content = json.loads(json.dumps(report.as_json()))
    content["runs"][0]["sigma_collective_mS_cm"] = {
        "value": 1.0,
        "low": 0.01,
        "high": None,
        "determined": False,
    }
    (tmp_path / "results.json").write_text(json.dumps(content))
    for place in (tmp_path, tmp_path / "results.json"):
        system = read_system(place)
        assert system.label == f"Li, {tmp_path.name}"
        assert [point.temperature_k for point in system.points] == [500, 600, 700]
        assert system.points[1].d_cm2_s.value == report.runs[1].diffusion.tracer.value
        assert system.points[1].sigma_tracer.high == report.runs[1].sigma_tracer.high
        assert system.points[0].sigma_collective.high == math.inf
        assert not system.points[0].sigma_collective.determined


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"runs": 3}', '{"runs": [{}], "species": "Li"}', '{"runs": []}']
)
def test_another_file_is_refused(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(BadInput, match=r"compare: '.*results\.json' is not the results.json of a report"):
        read_system(tmp_path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"compare": [{"results": "no"}]}, "compare: no such file: 'no'; expected the results.json"),
        ({"compare": [{"result": "no"}]}, "unknown key 'compare.0.result'"),
        ({"experiment": [{"temperature": 300}]}, r"expected sigma \(mS/cm\), D \(cm²/s\) or both"),
        (
            {"experiment": [{"temperature": 300, "sigma": -1}]},
            "'experiment.0.sigma': .*greater than 0, got -1",
        ),
        ({"experiment": [{"temperature": 300, "sigma_mS": 1}]}, "unknown key 'experiment.0.sigma_mS'"),
    ],
)
def test_mistakes_are_named_before_anything_is_read(change, text):
    runs = [{"files": ["no.dump"], "temperature": 600}]
    with pytest.raises(BadInput, match=text):
        conductivity({"species": "Li", "runs": runs, **change})


def test_the_figure_shows_d_and_sigma_t_of_all(report, tmp_path):
    """Both panels hold the computed points, the other system's and the measured value's, in their units."""
    (tmp_path / "results.json").write_text(json.dumps(report.as_json()))
    all_of_them = Comparison(report.comparison.measured, [read_system(Path(tmp_path), "bromide")])
    with plotting.style():
        figure = arrhenius_figure(report.runs, report.arrhenius, all_of_them)
    left, right = figure.axes[:2]
    assert "cm²/s" in left.get_ylabel()
    assert "S K/cm" in right.get_ylabel()
    for axes, measured in ((left, (1 / 0.6, 1.2e-5)), (right, (1 / 0.3, 2.4e-3 * 300))):
        labels = axes.get_legend_handles_labels()[1]
        assert "bromide" in labels
        points = {
            (line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_xdata().size == 1
        }
        assert any(point == pytest.approx(measured) for point in points)
    run = report.runs[0]
    drawn = {round(float(y), 12) for line in right.lines for y in line.get_ydata()}
    for sigma in (run.sigma_tracer, run.sigma_collective):
        assert round(sigma.value * 500 / 1000, 12) in drawn
    assert "Measured: impedance, NMR." in figure.get_label()


def test_bands_and_bars_that_are_wide_are_cut_by_the_frame_alone(report):
    """The band that is drawn is that of the law, also where it spans many decades, without corners."""
    d = np.array([run.diffusion.tracer.value for run in report.runs])
    wide = Arrhenius.fit(np.array([run.temperature_k for run in report.runs]), d, np.full(3, 3.0))
    law = replace(report.arrhenius, law=wide, room_d=wide.at(300.0))
    with plotting.style():
        figure = arrhenius_figure(report.runs, law, Comparison([]))
    axes = figure.axes[0]
    band = axes.collections[0].get_paths()[0].vertices[:-1]
    low, high = np.split(band, 2)
    _, below, above = wide.predict(1000 / low[:, 0])
    assert above[-1] > 1e6 * below[-1]
    assert low[:, 1] == pytest.approx(below)
    assert high[::-1, 1] == pytest.approx(above)
    bottom, top = axes.get_ylim()
    assert bottom < min(run.diffusion.tracer.low for run in report.runs)
    assert top < 1e4 * d.max()
    bar = [line.get_ydata()[0] for line in axes.lines if line.get_xdata().tolist() == [1000 / 300.0]]
    assert sorted(bar) == pytest.approx([law.room_d.low, law.room_d.high])  # undetermined: no mark
    assert "300 K, extrapolated: undetermined" in axes.get_legend_handles_labels()[1]
