"""Conductivities: units, drift, unwrapping, published trajectories, doubts."""

from dataclasses import replace

import numpy as np
import pytest

from mlplugins.analysis.conductivity import AnalysisSettings, analyse
from mlplugins.analysis.pooling import pool
from mlplugins.analysis.trajectory import ReadSettings, Trajectory, read_trajectory
from mlplugins.errors import BadInput
from mlplugins.testing.walks import LatticeWalk


def trajectory(displacements, interval_fs=100.0, collective=True):
    frames, ions, _ = displacements.shape
    drift = np.zeros((frames, 3))
    return Trajectory(
        "Li",
        displacements,
        interval_fs,
        ((0, frames),),
        8000.0,
        2 * ions,
        {"S": np.zeros(frames)},
        drift,
        collective,
    )


def test_sigma_is_nernst_einstein_with_the_square_of_the_charge():
    run = trajectory(LatticeWalk(frames=1000, ions=20).displacements())
    single = analyse([run], 600.0, AnalysisSettings(charge=1))
    double = analyse([run], 600.0, AnalysisSettings(charge=-2))
    ions_per_cm3, e, kt = 20 / 8000e-24, 1.602176634e-19, 1.380649e-23 * 600
    expected = ions_per_cm3 * e**2 * single.diffusion.tracer.value / kt * 1000  # mS/cm
    assert single.sigma_tracer.value == pytest.approx(expected, rel=1e-9)
    assert double.sigma_tracer.value == pytest.approx(4 * expected, rel=1e-9)
    assert single.as_json()["sigma_tracer_S_cm"]["value"] == pytest.approx(expected / 1000, rel=1e-9)
    ratio = single.sigma_tracer.value / single.sigma_collective.value
    assert single.diffusion.haven.value == pytest.approx(ratio, rel=1e-12)


def test_all_ions_together_conduct_n_times_nernst_einstein():
    one = LatticeWalk(frames=3000, ions=1).displacements()
    result = analyse([trajectory(np.repeat(one, 12, axis=1))], 600.0, AnalysisSettings())
    assert result.sigma_collective.value == pytest.approx(12 * result.sigma_tracer.value, rel=1e-9)


def test_without_framework_there_is_no_collective_conductivity():
    run = trajectory(LatticeWalk(frames=1000, ions=20).displacements(), collective=False)
    result = analyse([run], 600.0, AnalysisSettings()).as_json()
    assert result["sigma_collective_mS_cm"] is None
    assert result["haven_ratio"] is None


def test_equilibration_is_left_out():
    walk = LatticeWalk(frames=3000, ions=40)
    moved = walk.displacements()
    moved[:500] += np.linspace(900, 0, 500)[:, None, None]  # something else happens first
    result = analyse([trajectory(moved)], 600.0, AnalysisSettings(discard_ps=50))
    assert result.n_frames == 2500
    assert result.diffusion.tracer.low < walk.exact_cm2_s < result.diffusion.tracer.high


def test_runs_that_contradict_each_other_are_reported():
    runs = [trajectory(LatticeWalk(frames=1500, ions=30, rate=rate).displacements()) for rate in (0.15, 0.4)]
    texts = analyse(runs, 600.0, AnalysisSettings()).warnings
    assert any("the 2 runs contradict each other" in text for text in texts)


def test_runs_of_one_temperature_are_thinned_to_one_spacing():
    fine = LatticeWalk(frames=2000, ions=20, frame_ps=0.1)
    coarse = LatticeWalk(frames=1000, ions=20, frame_ps=0.2, seed=1)
    runs = [trajectory(fine.displacements(), 100.0), trajectory(coarse.displacements(), 200.0)]
    result = analyse(runs, 600.0, AnalysisSettings())
    assert result.n_frames == 2000
    assert result.interval_fs == 200
    assert "thinned to 200 fs" in result.warnings[0]
    assert result.diffusion.tracer.low < fine.exact_cm2_s < result.diffusion.tracer.high


def test_thinning_keeps_all_segments_of_a_run():
    """It kept the first or the last, whichever was longer, without saying so."""
    run = trajectory(LatticeWalk(frames=300, ions=4).displacements(), 100.0)
    paths, _, _ = pool(
        [replace(run, segments=((0, 40), (50, 250), (250, 300))), replace(run, interval_fs=200.0)], 0.0
    )
    assert paths.segments == [((0, 20), (25, 125), (125, 150)), ((0, 300),)]
    np.testing.assert_array_equal(paths.displacements[0], run.displacements[::2])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"temperature": 0.0}, "temperature 0 K; expected a positive number"),
        ({"charge": 0.0}, "a neutral species carries no current"),
        ({"discard": 1e4}, "--discard-ps 10000 leaves nothing of a run of 100 ps"),
        ({"other": 21}, "only runs of the same system can be pooled"),
        ({"interval": 130.0}, "frames every 100 and 130 fs"),
    ],
)
def test_nonsense_is_refused(change, text):
    runs = [trajectory(LatticeWalk(frames=1000, ions=20).displacements())]
    if "other" in change or "interval" in change:
        walk = LatticeWalk(frames=1000, ions=change.get("other", 20)).displacements()
        runs.append(trajectory(walk, change.get("interval", 100.0)))
    settings = AnalysisSettings(charge=change.get("charge", 1.0), discard_ps=change.get("discard", 0.0))
    with pytest.raises(BadInput, match=text):
        analyse(runs, change.get("temperature", 600.0), settings)


def test_few_hops_and_rattling_are_said_loudly():
    slow = analyse(
        [trajectory(LatticeWalk(frames=600, ions=20, rate=0.002).displacements())], 600.0, AnalysisSettings()
    )
    texts = " ".join(slow.warnings)
    assert "less than one hop (3 Å squared)" in texts
    assert "(fewer than 50): D is an order of magnitude at best" in texts
    assert "not diffusive: log–log slope" in texts
    fast = analyse(
        [trajectory(LatticeWalk(frames=6000, ions=40, rate=1.0).displacements())], 600.0, AnalysisSettings()
    )
    assert fast.warnings == ()
    assert 0.5 < fast.hops / (1.0 * 600 * 40 * 2.5**2 / 9) < 2


def test_straight_flight_has_no_diffusion_coefficient():
    """A gas without collisions: MSD = ⟨v²⟩t²."""
    v = np.random.default_rng(0).normal(0, 0.5, (40, 3))
    result = analyse([trajectory(np.arange(400)[:, None, None] * 0.1 * v)], 600.0, AnalysisSettings())
    assert result.loglog_slope == pytest.approx(2.0, abs=1e-6)
    values = result.diffusion.tracer, result.sigma_tracer, result.diffusion.collective
    assert [value.determined for value in values] == [False] * 3
    assert (values[0].low, values[0].high) == (0.0, np.inf)
    assert result.diffusion.haven is None
    [said] = [text for text in result.warnings if "straight flight" in text]
    assert "log–log slope 2.00 up to" in said


def test_a_moving_framework_is_noticed():
    run = trajectory(LatticeWalk(frames=1000, ions=20).displacements())
    run.framework_rms["S"][-1] = 4.0
    warnings = analyse([run], 600.0, AnalysisSettings()).warnings
    assert any("the framework moves (S 4.0 Å rms at the end)" in text for text in warnings)


@pytest.mark.reference
@pytest.mark.parametrize(
    ("disorder", "expected", "after_10_ps"), [("0p", 3.84e-6, 7.43), ("100p", 4.49e-6, 7.11)]
)
def test_argyrodite_aimd(reference_data, disorder, expected, after_10_ps):
    """Ordinary fit of 5–30 ps, drift of all atoms; data of 10.1021/acs.chemmater.0c03738."""
    files = sorted((reference_data / "argyrodite_aimd").glob(f"Li6PS5Cl_{disorder}_run*.gz"))
    run = read_trajectory(files, ReadSettings("Li", timestep_fs=2.0, interval=50, drift="all"))
    assert run.displacements.shape == (700, 192, 3)
    result = analyse([run], 500.0, AnalysisSettings(window_ps=(5.0, 30.0), estimator="ols"))
    assert np.interp(10.0, result.curve.time_ps, result.curve.tracer) == pytest.approx(after_10_ps, abs=0.01)
    assert result.diffusion.tracer.value == pytest.approx(expected, rel=0.01)
    # this MSD is not a line: the tool has to say so
    assert any("not diffusive" in text for text in result.warnings)
    assert any("curved inside the fit window" in text for text in result.warnings)
