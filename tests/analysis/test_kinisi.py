"""D against kinisi (Bayesian regression with the full covariance) on the same trajectory."""

import warnings

import ase.io
import numpy as np
import pytest

from mlplugins.analysis.conductivity import AnalysisSettings, analyse
from mlplugins.analysis.trajectory import ReadSettings, read_trajectory
from mlplugins.testing.walks import LatticeWalk, crystal

WALK = LatticeWalk(frames=300, ions=16, rate=0.4, frame_ps=0.5)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    path = tmp_path_factory.mktemp("kinisi") / "a.traj"
    ase.io.write(path, list(crystal(WALK).wrapped().atoms()))
    return path


def kinisi_interval(analyzer, start_ps):
    """95 % credible interval of D in cm²/s, and its value."""
    import scipp as sc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analyzer.diffusion(
            sc.scalar(start_ps, unit="ps"), progress=False, random_state=np.random.RandomState(1)
        )
        samples = analyzer.D.values  # cm²/s
    return np.percentile(samples, [2.5, 97.5]), samples.mean()


@pytest.mark.slow
def test_the_intervals_overlap_and_are_alike(files):
    sc = pytest.importorskip("scipp")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kinisi.analyze import DiffusionAnalyzer

        other = DiffusionAnalyzer.from_ase(
            ase.io.read(files, index=":"),
            specie="Li",
            time_step=sc.scalar(0.002, unit="ps"),
            step_skip=sc.scalar(250, unit="dimensionless"),
            progress=False,
        )
    (low, high), value = kinisi_interval(other, 2.0)
    run = read_trajectory([files], ReadSettings("Li", timestep_fs=2.0, interval=250))
    ours = analyse([run], 600.0, AnalysisSettings()).diffusion.tracer
    assert max(low, ours.low) < min(high, ours.high)
    assert low < ours.value < high
    assert ours.low < value < ours.high
    assert 0.4 < (high - low) / (ours.high - ours.low) < 1.5
