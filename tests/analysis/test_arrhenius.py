"""Arrhenius fits: exact data, published values, intervals."""

import numpy as np
import pytest

from mlplugins.analysis.arrhenius import Arrhenius, arrhenius
from mlplugins.analysis.conductivity import AnalysisSettings, analyse
from mlplugins.analysis.trajectory import Trajectory
from mlplugins.errors import BadInput
from mlplugins.testing.walks import LatticeWalk
from mlplugins.units import BOLTZMANN_EV_K

TEMPERATURES = np.array([500.0, 620.0, 700.0, 850.0])


def law(temperatures, activation=0.31, prefactor=2.4e-3):
    return prefactor * np.exp(-activation / (BOLTZMANN_EV_K * temperatures))


def test_exact_data_return_the_exact_law():
    fit = Arrhenius.fit(TEMPERATURES, law(TEMPERATURES), np.array([0.2, 0.05, 0.1, 0.02]))
    assert fit.activation_ev == pytest.approx(0.31, rel=1e-10)
    assert fit.prefactor == pytest.approx(2.4e-3, rel=1e-9)
    assert fit.at(300.0).value == pytest.approx(law(np.array([300.0]))[0], rel=1e-9)
    # on the line by chance or not: the error bars of the points remain
    assert fit.activation().high - fit.activation().low > 0.005


def test_weights_follow_the_errors():
    values = law(TEMPERATURES)
    values[0] *= 3  # wrong, and known to be uncertain
    good = Arrhenius.fit(TEMPERATURES, values, np.array([3.0, 0.02, 0.02, 0.02]))
    equal = Arrhenius.fit(TEMPERATURES, values, np.full(4, 0.02))
    assert good.activation_ev == pytest.approx(0.31, abs=1e-3)
    assert abs(equal.activation_ev - 0.31) > 0.05


def test_errors_against_many_noisy_repeats():
    random = np.random.default_rng(3)
    errors = np.array([0.3, 0.1, 0.15, 0.05])
    fits, inside = [], 0
    for _ in range(2000):
        fit = Arrhenius.fit(TEMPERATURES, law(TEMPERATURES) * np.exp(errors * random.normal(size=4)), errors)
        fits.append(fit.activation_ev)
        inside += fit.activation().low < 0.31 < fit.activation().high
    assert np.std(fits) == pytest.approx(np.sqrt(1 / fit.spread), rel=0.05)
    assert 0.945 < inside / 2000 <= 1.0


def test_prediction_band_is_wider_than_confidence_and_grows_outwards():
    fit = Arrhenius.fit(TEMPERATURES, law(TEMPERATURES), np.full(4, 0.1))
    where = np.array([600.0, 400.0, 300.0])
    middle, low, high = fit.predict(where)
    _, inner_low, inner_high = fit.predict(where, prediction=False)
    assert (low < inner_low).all()
    assert (inner_high < high).all()
    assert np.all(np.diff(high / middle) > 0)
    # equation by hand: t of n − 2 = 2 degrees of freedom is not used for points on the line, z is
    x = 1 / (BOLTZMANN_EV_K * 300.0)
    variance = 1 / fit.total_weight + (x - fit.center) ** 2 / fit.spread + 1 / fit.mean_weight
    assert high[2] / middle[2] == pytest.approx(np.exp(1.959964 * np.sqrt(variance)), rel=1e-6)


def test_llzo_of_the_gpumd_tutorial():
    """σ at four temperatures; the tutorial's own fit says 0.278 eV and 8.04e-4 S/cm at 300 K."""
    temperatures = np.array([950.0, 1000.0, 1100.0, 1200.0])
    sigma_t = np.array([393.1, 448.0, 541.2, 630.7]) * temperatures
    fit = Arrhenius.fit(temperatures, sigma_t, np.full(4, 0.01))
    assert fit.activation_ev == pytest.approx(0.278, abs=0.003)
    assert fit.activation().low < 0.278 < fit.activation().high
    assert fit.at(300.0).value / 300 == pytest.approx(0.804, rel=0.05)


def test_nagapo4f_of_the_published_figure():
    """Digitised to 5 %: 300 K 4.3e-7 cm²/s, band 1.5e-7 to 1.2e-6, Ea 0.13–0.14 eV."""
    temperatures = np.array([600.0, 800.0, 1000.0, 1200.0])
    fit = Arrhenius.fit(temperatures, np.array([5.7e-6, 1.07e-5, 1.47e-5, 2.15e-5]), np.full(4, 0.01))
    assert 0.13 < fit.activation_ev < 0.14
    room = fit.at(300.0)
    assert room.value == pytest.approx(4.3e-7, rel=0.05)
    assert room.low == pytest.approx(1.5e-7, rel=0.15)
    assert room.high == pytest.approx(1.2e-6, rel=0.15)


def test_two_temperatures_are_refused():
    with pytest.raises(BadInput, match=r"2 temperature\(s\); an error bar needs at least 3"):
        Arrhenius.fit(TEMPERATURES[:2], law(TEMPERATURES[:2]), np.full(2, 0.1))


def results(temperatures, activation=0.25, **changes):
    for number, temperature in enumerate(temperatures):
        rate = 40 * np.exp(-activation / (BOLTZMANN_EV_K * temperature))
        walk = LatticeWalk(frames=2500, ions=30, rate=rate, seed=number, **changes)
        run = Trajectory("Li", walk.displacements(), 100.0, ((0, 2500),), 8000.0, 60, {}, np.zeros((2500, 3)))
        yield analyse([run], temperature, AnalysisSettings())


def test_from_walks_to_room_temperature():
    runs = list(results([500.0, 600.0, 700.0, 850.0]))
    result, warnings = arrhenius(runs)
    assert result.activation_ev.low < 0.25 < result.activation_ev.high
    assert result.activation_ev.high - result.activation_ev.low < 0.07
    exact = LatticeWalk(1, 1, rate=40 * np.exp(-0.25 / (BOLTZMANN_EV_K * 300.0))).exact_cm2_s
    assert result.room_d.low < exact < result.room_d.high
    # σ = N e² D/(V k T): 30 ions in 8000 Å3
    assert result.room_sigma.value / result.room_d.value == pytest.approx(
        30 / 8000e-24 * (1.602176634e-19) ** 2 / (1.380649e-23 * 300) * 1e3, rel=1e-9
    )
    assert len(warnings) == 1
    assert "300 K is far extrapolated: 200 K below the coldest run, 1.6 times the fitted range" in warnings[0]


def test_two_temperatures_give_null_and_say_why():
    result, warnings = arrhenius(list(results([600.0, 700.0])))
    assert result is None
    assert "2 usable temperature(s), at least 3 are needed" in warnings[0]
    assert arrhenius(list(results([600.0]))) == (None, [])


def test_two_slopes_are_noticed():
    runs = [*results([500.0, 550.0, 600.0], 0.45), *results([700.0, 800.0, 900.0], 0.1)]
    result, warnings = arrhenius(runs)
    assert any("perhaps two slopes or a phase change" in text for text in warnings)
    assert result.activation_ev.high - result.activation_ev.low > 0.1


def test_a_run_without_diffusion_is_left_out():
    frozen = Trajectory("Li", np.zeros((300, 5, 3)), 100.0, ((0, 300),), 8000.0, 10, {}, np.zeros((300, 3)))
    runs = [analyse([frozen], 300.0, AnalysisSettings()), *results([500.0, 600.0, 700.0])]
    result, warnings = arrhenius(runs)
    assert result.law.points == 3
    assert warnings[0] == "300 K: left out of the Arrhenius fit (no measurable diffusion)"
