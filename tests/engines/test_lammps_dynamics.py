"""Runs in LAMMPS: NVE, minimisation, NPT, restarts."""

from __future__ import annotations

import numpy as np
import pytest

from mlplugins import MLCalculator
from mlplugins.engines import lammps

from .conftest import crystal, triclinic
from .lammps_tools import deck, start, thermo, velocities

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")

DIGITS = "thermo_modify format float %.16g"


def nve(tmp_path, model, ranks, mode, steps=100):
    atoms = crystal(3)
    lines = deck(tmp_path, model, atoms, f"mode {mode}", velocities=velocities(atoms, 60.0))
    lines += [
        "fix 1 all nve",
        "timestep 0.002",
        "thermo 20",
        "thermo_style custom step pe etotal press",
        DIGITS,
    ]
    return thermo(tmp_path, [*lines, "neighbor 0.5 bin", f"run {steps}"], ranks)[0]


@pytest.mark.slow
def test_one_rank_equals_two_ranks(tmp_path, argon_model):
    """100 steps through several rebuilds of the neighbour list, to 1e-8 eV."""
    one = nve(tmp_path, argon_model, 1, "fold")
    two = nve(tmp_path, argon_model, 2, "ghost")
    for name in ("PotEng", "TotEng"):
        np.testing.assert_allclose(two[name], one[name], rtol=0, atol=1e-8)
    assert np.ptp(one["PotEng"]) > 1e-3


@pytest.mark.slow
def test_message_passing_conserves_energy_across_ranks(tmp_path, passing_model):
    one = nve(tmp_path, passing_model, 1, "fold", steps=40)
    two = nve(tmp_path, passing_model, 2, "exchange", steps=40)
    # random weights make stiff forces of several eV/Å: trajectories part slowly
    np.testing.assert_allclose(two["TotEng"], one["TotEng"], rtol=0, atol=1e-7)


@pytest.mark.slow
def test_energy_drift(tmp_path, argon_model):
    table = nve(tmp_path, argon_model, 1, "fold", steps=1000)
    drift = abs(table["TotEng"] - table["TotEng"][0]).max() / len(crystal(3))
    assert drift < 2e-6  # eV per atom; the potential energy moves by 1e-3


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_minimize(tmp_path, argon_model, ranks):
    atoms = crystal()
    lines = deck(tmp_path, argon_model, atoms)
    lines += ["thermo_style custom step pe fmax", DIGITS, "minimize 0 1e-8 500 5000"]
    lines += ["write_data relaxed.lmp nocoeff nofix"]
    table = thermo(tmp_path, lines, ranks)[0]
    assert table["Fmax"][-1] < 1e-6
    assert table["PotEng"][-1] < table["PotEng"][0] - 0.1
    perfect = crystal()
    perfect.positions = (crystal().get_scaled_positions() * 4).round() / 4 @ perfect.cell.array
    perfect.calc = MLCalculator(argon_model)
    assert table["PotEng"][-1] == pytest.approx(perfect.get_potential_energy(), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_npt_conserves_its_invariant(tmp_path, argon_model, ranks):
    atoms = triclinic()
    lines = deck(tmp_path, argon_model, atoms, velocities=velocities(atoms, 40.0))
    lines += [
        "fix 1 all npt temp 40 40 0.1 tri 0 0 0.5",
        "timestep 0.001",
        "thermo 50",
        "thermo_style custom step econserve etotal vol xy",
        DIGITS,
        "run 300",
    ]
    table = thermo(tmp_path, lines, ranks)[0]
    assert abs(table["Volume"][-1] / table["Volume"][0] - 1) > 0.02
    assert np.ptp(table["Xy"]) > 0.05
    # a wrong virial drives the box and breaks this by far more
    assert np.ptp(table["Econserve"]) < 2e-3 * np.ptp(table["TotEng"]) + 2e-3


@pytest.mark.slow
def test_restart_continues(tmp_path, argon_model):
    atoms = crystal()
    head = deck(tmp_path, argon_model, atoms, velocities=velocities(atoms, 60.0))
    tail = ["fix 1 all nve", "timestep 0.002", "thermo 10", "thermo_style custom step pe etotal", DIGITS]
    whole = thermo(tmp_path, [*head, *tail, "restart 20 restart.*", "run 40"])[0]
    resumed = thermo(tmp_path, [head[0], "read_restart restart.20", *head[-2:], *tail, "run 20"])[0]
    np.testing.assert_allclose(resumed["PotEng"][-1], whole["PotEng"][-1], rtol=0, atol=1e-10)

    complete = tmp_path / "restart.20"
    assert lammps.restart_is_readable(complete)
    cut = tmp_path / "cut"
    cut.write_bytes(complete.read_bytes()[:-100])
    assert not lammps.restart_is_readable(cut)
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    assert not lammps.restart_is_readable(empty)
    result = start(tmp_path, [head[0], "read_restart cut"])
    assert result.returncode != 0  # LAMMPS agrees


@pytest.mark.slow
def test_neighbor_list_is_reused_and_rebuilt(tmp_path, argon_model):
    """The graph kept between rebuilds gives the same trajectory as a rebuild at every step."""
    atoms = crystal()
    tail = ["fix 1 all nve", "timestep 0.002", "thermo_style custom step pe", DIGITS, "run 60"]
    lines = deck(tmp_path, argon_model, atoms, velocities=velocities(atoms, 200.0))
    kept = start(tmp_path, [*lines, "neighbor 1.0 bin", *tail])
    builds = int(kept.stdout.split("Neighbor list builds = ")[1].split()[0])
    assert 1 <= builds < 30
    kept_energy = lammps.read_log(tmp_path / "log.lammps")[0]["PotEng"][-1]
    always = thermo(tmp_path, [*lines, "neighbor 1.0 bin", "neigh_modify every 1 delay 0 check no", *tail])[0]
    assert kept_energy == pytest.approx(always["PotEng"][-1], abs=1e-9)


@pytest.mark.slow
def test_run_without_setup(tmp_path, argon_model):
    """`run … pre no` keeps lists from the run before."""
    atoms = crystal()
    lines = deck(tmp_path, argon_model, atoms, velocities=velocities(atoms, 60.0))
    tail = ["fix 1 all nve", "timestep 0.002", "thermo_style custom step pe", DIGITS]
    once = thermo(tmp_path, [*lines, *tail, "run 20"])[0]
    twice = thermo(tmp_path, [*lines, *tail, "run 10", "run 10 pre no"])
    assert twice[-1]["PotEng"][-1] == pytest.approx(once["PotEng"][-1], abs=1e-9)
