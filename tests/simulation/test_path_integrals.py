"""Path integrals and flexible cells through i-PI."""

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.io import write

from mlplugins import MLCalculator, engines
from mlplugins.analysis.trajectory import read_frames
from mlplugins.dynamics.output import table
from mlplugins.engines.ipi import host as ipi
from mlplugins.engines.ipi.input import xml
from mlplugins.simulation import campaign as campaigns
from mlplugins.simulation.config import load
from mlplugins.simulation.plan import plan

from .argon import write_campaign

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")


def _plan(folder, engine="ipi", **changes):
    return plan(load(write_campaign(folder, **changes), engine), folder / "out")


@pytest.mark.parametrize(
    ("beads", "kind", "mode"),
    [
        (1, "csvr", "svr"),
        (1, "langevin", "langevin"),
        (4, "csvr", "pile_g"),
        (4, "langevin", "pile_l"),
        (4, "pile", "pile_l"),
    ],
)
def test_thermostats_of_ring_polymers(tmp_path, beads, kind, mode):
    [run] = _plan(tmp_path, beads=beads, thermostat={"kind": kind}).runs
    text = xml(run, "simulation")
    assert f"<thermostat mode='{mode}'>" in text
    assert ("x_centroid" in text) == (beads > 1)
    assert f"<initialize nbeads='{beads}'>" in text
    assert ("kinetic_cv" in text) == (beads > 1)
    assert ("mode='pile_l'" if beads > 1 else "mode='langevin'") in xml(run, "equilibration")
    names = [path.name for path in ipi.trajectories(run)]
    assert names == (["simulation.xc.xyz"] if beads > 1 else ["simulation.pos_0.xyz"])


BEADS, COLD = 4, 12.0


@pytest.mark.slow
def test_the_quantum_kinetic_energy_of_a_crystal(tmp_path):
    """Four beads of a cold crystal: the closed form of its normal modes for four beads."""
    crystal = bulk("Ar", "fcc", a=5.25, cubic=True).repeat((2, 2, 2))
    path = write_campaign(
        tmp_path,
        structure="crystal.extxyz",
        temperatures=[COLD],
        beads=BEADS,
        timestep=8.0,
        steps=700,
        equilibration={"steps": 150, "time_constant": 200},
        thermostat={"kind": "langevin", "time_constant": 200},
        log_interval=5,
        dump_interval=10,
    )
    write(tmp_path / "crystal.extxyz", crystal)
    campaign = plan(load(path, "ipi"), tmp_path / "out")
    [outcome] = campaigns.run(campaign)
    assert outcome.state == "finished", outcome
    [run] = campaign.runs
    rows = table(run.directory / "simulation.out")[1:]
    blocks = rows[:, 4].reshape(10, -1).mean(axis=1)
    mean, error = blocks.mean(), blocks.std(ddof=1) / np.sqrt(10)
    wanted, classical = _kinetic(crystal, tmp_path / "model.pt"), 93 / 2 * units.kB * COLD
    assert wanted > 1.5 * classical
    assert error < 0.03 * wanted
    assert abs(mean - wanted) < 4 * error + 0.02 * wanted, (mean, error, wanted)  # 2 %: anharmonic
    centroids = np.array([frame.positions for frame in read_frames(ipi.trajectories(run)[0])])
    beads = [
        [frame.positions for frame in read_frames(run.directory / f"simulation.pos_{k}.xyz")]
        for k in range(BEADS)
    ]
    np.testing.assert_allclose(np.mean(beads, axis=0), centroids, atol=5e-5)
    temperatures = rows[:, 3]
    assert temperatures.mean() == pytest.approx(COLD, rel=0.03)


def _kinetic(crystal, model):
    """Sum over modes and k of kT/2 w²/(w² + w_k²) with w_k = 2 P kT/ħ sin(π k/P)."""
    atoms, step = crystal.copy(), 1e-3
    atoms.calc = MLCalculator(str(model))
    hessian = np.zeros((96, 96))
    for row in range(96):
        for sign in (1, -1):
            atoms.positions.ravel()[row] += sign * step
            hessian[row] -= sign * atoms.get_forces().ravel() / (2 * step)
            atoms.positions.ravel()[row] -= sign * step
    squares = np.sort(np.linalg.eigvalsh((hessian + hessian.T) / 2 / atoms.get_masses()[0]))[3:]
    hbar = units._hbar / units._e * units.second  # eV in ASE's unit of time
    rings = 2 * BEADS * units.kB * COLD / hbar * np.sin(np.pi * np.arange(BEADS) / BEADS)
    return float((units.kB * COLD / 2 * squares[:, None] / (squares[:, None] + rings**2)).sum())


@pytest.mark.parametrize("engine", ["lammps", pytest.param("ipi", marks=pytest.mark.slow)])
@pytest.mark.parametrize("coupling", ["aniso", "flexible"])
def test_a_sheared_crystal_relaxes_in_a_flexible_cell(tmp_path, engine, coupling):
    """Cubic by symmetry: `flexible` takes the shear out, `aniso` evens the lengths and keeps the angles."""
    crystal = bulk("Ar", "fcc", a=5.25, cubic=True).repeat((2, 2, 2))
    cell = crystal.cell.array * [[1.03], [1.0], [0.97]]
    cell[2, 0] = 0.4
    crystal.set_cell(cell, scale_atoms=True)
    path = write_campaign(
        tmp_path,
        structure="crystal.extxyz",
        temperatures=[10],
        ensemble="npt",
        steps=40,
        equilibration={"steps": 0, "npt_steps": 800, "time_constant": 100},
        barostat={"coupling": coupling, "time_constant": 200},
    )
    write(tmp_path / "crystal.extxyz", crystal)
    campaign = plan(load(path, engine), tmp_path / "out")
    [outcome] = campaigns.run(campaign)
    assert outcome.state == "finished", outcome
    frames = list(read_frames(engines.load(engine).trajectories(campaign.runs[0])[0]))
    lengths, angles = frames[0].cell, np.array(frames[0].cell)
    lengths = np.linalg.norm(lengths, axis=1)
    cosine = angles[2] @ angles[0] / lengths[0] / lengths[2]
    assert np.ptp(lengths) / lengths.mean() < 0.02  # from 6 %
    assert abs(cosine) < 0.012 if coupling == "flexible" else abs(cosine) > 0.03  # from 0.039
