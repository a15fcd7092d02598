"""Where runs left what the model knows: shares, moments, and D of what lies within."""

import numpy as np
import pytest

from mlplugins.analysis.comparison import Comparison
from mlplugins.analysis.conductivity import analyse
from mlplugins.analysis.observables.known import OBSERVABLE
from mlplugins.analysis.report import Report
from mlplugins.analysis.report_files import write_report
from mlplugins.analysis.sample import AnalysisSettings
from mlplugins.analysis.study import load
from mlplugins.analysis.trajectory import Trajectory
from mlplugins.analysis.watched import Watched, read
from mlplugins.errors import BadInput
from mlplugins.units import CM2_S_PER_A2_PS

SLOW, FAST, FRAMES, IONS = 0.01, 0.1, 2000, 16
"""D, Å²/ps, of a walk that is slow where the model knows."""


def walk(seed, bad, discard=0):
    """Frames every 0.1 ps, the faster D where `bad`."""
    rng = np.random.default_rng(seed)
    width = np.sqrt(2 * np.where(bad, FAST, SLOW) * 0.1)[1:, None, None]
    steps = rng.normal(0.0, width, (FRAMES - 1, IONS, 3))
    paths = np.concatenate([np.zeros((1, IONS, 3)), np.cumsum(steps, axis=0)])
    return Trajectory("Li", paths, 100.0, ((0, FRAMES),), 1000.0, IONS, {}, np.zeros((FRAMES, 3)))


def looks(bad, stop=None):
    """A look every second frame."""
    time = np.arange(0, FRAMES, 2) * 0.1
    return Watched("model deviation of forces", "eV/Å", 0.2, stop, time, np.where(bad[::2], 0.9, 0.1))


def analysed(runs, watched, **settings):
    given = AnalysisSettings(watched=watched, window_ps=(2.0, 20.0), **settings)
    return analyse(runs, 600.0, given, {"known": OBSERVABLE})


@pytest.fixture(scope="module")
def found():
    """The third fifth of the first run is outside; the second run is not watched, the third ends outside."""
    bad = np.zeros(FRAMES, dtype=bool)
    bad[800:1200] = True
    end = np.zeros(FRAMES, dtype=bool)
    end[-1:] = True
    end[-2:] = True
    none = np.zeros(FRAMES, dtype=bool)
    runs = [walk(0, bad), walk(1, none), walk(2, none)]
    return analysed(runs, (looks(bad), None, looks(end, stop=0.5)))


def test_shares_and_moments(found):
    known = found.observables["known"]
    assert known.share == pytest.approx((200 + 1) / 2000)
    assert known.first_ps == pytest.approx(80.0)
    assert known.stopped == 1
    assert found.entries["uncertainty"]["runs"] == 2
    text = " ".join(found.warnings)
    assert "the model deviation of forces was above 0.2 eV/Å in 10 % of the time, first after 80 ps" in text
    assert "1 of 2 runs ended there" in text


def test_the_fast_stretch_is_in_d_and_not_in_d_within(found):
    known = found.observables["known"]
    truth = SLOW * CM2_S_PER_A2_PS
    assert known.within.low < truth < known.within.high
    assert known.within.value == pytest.approx(truth, rel=0.1)
    # a fifth of one run of three is ten times as fast
    assert known.whole.value / truth == pytest.approx(1 + 9 / 15, rel=0.2)


def test_a_run_within_keeps_its_d_and_warns_of_nothing():
    none = np.zeros(FRAMES, dtype=bool)
    found = analysed([walk(3, none)], (looks(none),), discard_ps=20.0)
    known = found.observables["known"]
    assert known.within == known.whole
    assert known.first_ps is None
    assert not any("beyond what it knows" in text for text in found.warnings)
    [line] = OBSERVABLE.lines(found, known)
    assert line == "600 K: model deviation of forces 0.1 eV/Å at most, within 0.2"


def test_frames_left_out_at_the_start_shift_no_stretch():
    """The outside is the first tenth and is left out as equilibration: what remains is all within."""
    bad = np.zeros(FRAMES, dtype=bool)
    bad[:200] = True
    known = analysed([walk(4, bad)], (looks(bad),), discard_ps=25.0).observables["known"]
    assert known.within.value == pytest.approx(known.whole.value, rel=1e-12)


def test_nothing_within_has_no_d():
    everywhere = np.ones(FRAMES, dtype=bool)
    known = analysed([walk(5, everywhere)], (looks(everywhere),)).observables["known"]
    assert (known.share, known.within) == (1.0, None)


def test_the_table_is_read_from_its_file(tmp_path):
    path = tmp_path / "uncertainty.dat"
    path.write_text("# what\n# step largest atom mean\n0 0.1 3 0.05\n50 0.3 1 0.1\n100 nan 2 0.1\n150 0.1 2")
    run = read(path, ("what", "eV"), (0.2, None), 50, 2.0)
    np.testing.assert_allclose(run.time_ps, [0.0, 0.1])
    assert run.outside.tolist() == [True, True]
    with pytest.raises(BadInput, match="no such table"):
        read(tmp_path / "no.dat", ("what", "eV"), (0.2, None), 0, 2.0)
    path.write_text("what is this\n")
    with pytest.raises(BadInput, match="is no table of steps and values"):
        read(path, ("what", "eV"), (0.2, None), 0, 2.0)


def test_a_table_needs_a_limit():
    content = {"species": "Li", "runs": [{"files": ["a"], "temperature": 1, "uncertainty": {"file": "u"}}]}
    with pytest.raises(BadInput, match="expected keep_above, stop_above or both"):
        load(content)


def test_the_page_has_its_section_and_figure(found, tmp_path):
    write_report(Report("Li", [found], None, list(found.warnings), (), {}, Comparison([], [])), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "Where the model knows" in page
    assert (tmp_path / "uncertainty.png").is_file()
