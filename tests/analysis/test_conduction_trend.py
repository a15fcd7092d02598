"""κ at several temperatures and of several systems: the trend is that of the truth, and nothing is mixed."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from ase import units

import mlplugins
from mlplugins.analysis.conduction import Settings
from mlplugins.analysis.conduction_trend import Inverse, KappaLaw
from mlplugins.cli.main import main
from mlplugins.errors import BadInput
from mlplugins.testing.fluxes import density_at_zero, ornstein_uhlenbeck

PARTS = [(3.0, 1.0)]
VOLUME, INTERVAL_FS, SAMPLES = 1000.0, 2.0, 8000
HEAD = "c_J[1],c_J[2],c_J[3],Temp,Volume"


def scale(kappa: float, temperature: float) -> float:
    """What fluxes of `PARTS` in eV Å/ps are multiplied by for a κ in W/(m K), by SI units."""
    density = density_at_zero(PARTS) * INTERVAL_FS * 1e-15 * (units._e * 1e-10 / 1e-12) ** 2
    return float(np.sqrt(kappa / (density / (2 * VOLUME * 1e-30 * units._k * temperature**2))))


def write(path, generator, kappa, temperature, volume=VOLUME):
    flux = scale(kappa, temperature) * ornstein_uhlenbeck(generator, (SAMPLES, 3), PARTS)
    state = np.tile([temperature, volume], (SAMPLES, 1)) + [[1.0, 0.0]] * generator.normal(size=(SAMPLES, 1))
    np.savetxt(path, np.column_stack([flux, state]), "%.8g", ",", header=HEAD, comments="")
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Salt: 1800 W/m/T, two runs at 300 K; glass: the same at all temperatures."""
    folder, generator = tmp_path_factory.mktemp("runs"), np.random.default_rng(4)
    salt = [(300, "a"), (300, "b"), (450, "a"), (600, "a"), (900, "a")]
    return {
        "salt": [write(folder / f"s{t}{k}.csv", generator, 1800 / t, t) for t, k in salt],
        "glass": [write(folder / f"g{t}.csv", generator, 1.0, t) for t in (300, 600, 900)],
    }


@pytest.mark.long
def test_systems_have_their_own_trends(runs, tmp_path, capsys):
    words = [word for name, files in runs.items() for word in ("--system", name, *map(str, files))]
    out = tmp_path / "out"
    assert (
        main(["thermal", *words, "--interval", "2", "-o", str(out), "--json", str(tmp_path / "k.json")]) == 0
    )
    printed = capsys.readouterr().out
    salt, glass = json.loads((tmp_path / "k.json").read_text())["systems"]
    assert [p["temperature_K"] for p in salt["points"]] == pytest.approx([300, 450, 600, 900], abs=0.2)
    assert [len(p["length_ps"]) for p in salt["points"]] == [2, 1, 1, 1]
    for system, exponent in ((salt, 1.0), (glass, 0.0)):
        found = system["power_law"]["exponent"]
        assert found["low"] < exponent < found["high"] < found["low"] + 1.0
        assert system["power_law"]["probability"] > 0.01
    a = salt["inverse"]["kappa_T_W_m"]
    assert a["low"] < 1800 < a["high"] < 1.5 * a["low"]
    assert salt["inverse"]["probability"] > 0.01
    assert glass["inverse"]["probability"] < 1e-4
    assert "salt: κ ∝ T⁻ⁿ with n = " in printed
    assert {path.name for path in out.iterdir() if path.is_dir()} == {
        *(f"salt-{t}-K" for t in (300, 450, 600, 900)),
        *(f"glass-{t}-K" for t in (300, 600, 900)),
    }
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert [row["system"] for row in rows] == ["salt"] * 4 + ["glass"] * 3
    law = [
        row for row in csv.DictReader((out / "trend.csv").read_text().splitlines()) if row["system"] == "salt"
    ]
    kappa = np.interp(450.0, [float(row["T_K"]) for row in law], [float(row["kappa_W_mK"]) for row in law])
    assert kappa == pytest.approx(4.0, rel=0.1)
    report = (out / "report.html").read_text()
    assert "href='salt-300-K/report.html'" in report
    assert (out / "salt-300-K" / "report.html").is_file()
    assert (out / "trend.pdf").is_file()


def test_one_state_is_what_it_was(runs):
    """Of one temperature, by files or as the only system: the same κ; files of several are not mixed."""
    settings, cold = Settings(interval_fs=INTERVAL_FS), runs["salt"][:2]
    one = mlplugins.thermal(cold, settings)
    several = mlplugins.thermal({"salt": cold}, settings)
    assert several.single is not None
    assert several.as_json() == one.as_json()
    with pytest.raises(
        BadInput, match=r"differ in their temperature \(s300a.csv 300.*expected runs of one state"
    ):
        mlplugins.thermal(runs["salt"][:3], settings)


def test_laws_have_honest_intervals():
    """Of 200 draws with known errors the 95 % intervals hold n and a; two temperatures give no n."""
    generator = np.random.default_rng(7)
    t = np.array([300.0, 400.0, 500.0, 700.0])
    held = np.zeros(3)
    for _ in range(200):
        errors = generator.uniform(0.03, 0.1, 4)
        kappa = 1800.0 / t * np.exp(errors * generator.normal(size=4))
        power, inverse = KappaLaw.fit(t, kappa, errors), Inverse.fit(t, kappa, errors)
        _, low, high = power.predict(np.array([350.0]))
        held += [
            power.exponent.low < 1 < power.exponent.high,
            inverse.factor.low < 1800 < inverse.factor.high,
            low[0] < 1800 / 350 < high[0],
        ]
    assert (held >= 186).all()
    assert (held <= 200).all()
    twice = Inverse.fit(t[:2], np.array([6.0, 4.5]), np.array([0.01, 0.01]))
    assert twice.factor.value == pytest.approx(1800.0)
    far = Inverse.fit(t, np.array([6.0, 6.0, 6.0, 6.0]), np.full(4, 0.02))
    assert far.probability < 1e-6
    assert far.factor.high / far.factor.low > 1.5  # widened by the scatter


def test_what_would_be_mixed_is_refused(runs, tmp_path, capsys):
    settings, salt = Settings(interval_fs=INTERVAL_FS), runs["salt"]
    with pytest.raises(BadInput, match=r"s300a.csv is named twice, for 'a' and 'b'"):
        mlplugins.thermal({"a": salt[:1], "b": salt[:1]}, settings)
    with pytest.raises(BadInput, match="named twice, for the same runs"):
        mlplugins.thermal({"a": [salt[0], salt[0]]}, settings)
    other = write(tmp_path / "other.csv", np.random.default_rng(1), 4.0, 450, volume=1300.0)
    with pytest.raises(BadInput, match="differ in their volume"):
        mlplugins.thermal({"a": [*salt[:3], other]}, settings)
    steps = [str(write(tmp_path / f"{t}.csv", np.random.default_rng(t), 1.0, t)) for t in (300, 312, 324)]
    with pytest.raises(BadInput, match="differ in their temperature"):  # a chain of steps below 5 %
        mlplugins.thermal({"a": steps}, settings)
    for words, text in (
        (["--system", "a", steps[0], "--system", "a", steps[1]], "--system a: named twice"),
        (["--system", "a"], "expected its files behind the name"),
        ([steps[0], "--system", "a", steps[1]], "belongs to no system"),
        (["--system", "a/b", steps[0]], "system 'a/b': expected a name that a folder can have"),
        ([], "expected one file with a heat flux or more, got none"),
    ):
        assert main(["thermal", *words, "--interval", "2", "-o", str(tmp_path / "no")]) == 2
        assert text in capsys.readouterr().err
    assert not (tmp_path / "no" / "report.html").exists()
