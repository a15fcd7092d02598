"""The hosts' own input files, and the same physics from each of them."""

import contextlib

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from mlplugins.dynamics.output import table
from mlplugins.engines.ase import host as ase_host
from mlplugins.engines.ipi import host as ipi
from mlplugins.engines.lammps import deck as lammps
from mlplugins.simulation import campaign as campaigns
from mlplugins.simulation.config import load
from mlplugins.simulation.plan import plan

from .argon import write_campaign

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")


def _run(folder, engine="lammps", **changes):
    return plan(load(write_campaign(folder, **changes), engine), folder / "out")


def test_deck(tmp_path):
    [run] = _run(tmp_path, thermostat={"kind": "nose-hoover", "time_constant": 80}).runs
    deck = lammps.deck(run)
    assert "timestep        0.004" in deck
    assert "velocity        all create 100 1 mom yes" in deck
    assert "pair_coeff      * * Ar" in deck
    assert "nvt temp 100 100 0.08 tchain 3" in deck
    assert "id element xu yu zu" in deck
    assert "run             140 upto" in deck


def test_resumed_deck_leaves_out_what_is_done(tmp_path):
    [run] = _run(tmp_path).runs
    in_equilibration = lammps.deck(run, "restart.20", 20)
    assert "langevin" in in_equilibration
    assert "append yes" not in in_equilibration.split("# production")[1]
    in_production = lammps.deck(run, "restart.60", 60)
    assert "langevin" not in in_production
    assert "velocity  " not in in_production
    assert "flush yes append yes" in in_production


def test_write_only_leaves_files_to_run_by_hand(tmp_path):
    campaign = _run(tmp_path, "ipi")
    campaigns.write(campaign)
    folder = campaign.runs[0].directory
    assert {p.name for p in folder.iterdir()} >= {"init.xyz", "equilibration.xml", "simulation.xml", "run.sh"}
    assert "mlplugins ipi-driver" in (folder / "run.sh").read_text()
    assert (folder.parent.parent / "conductivity.yaml").is_file()


def _mean_volume(run, engine):
    log = {"lammps": "log.lammps", "ase": "md.log", "ipi": "simulation.out"}[engine]
    column = {"lammps": 7, "ase": 4, "ipi": 7}[engine]
    rows = table(run.directory / log)
    return rows[:, column]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["lammps", "ase", "ipi"])
def test_npt_equilibration_finds_the_mean_cell(tmp_path, engine):
    """The crystal starts 7 % too large in volume; the cell of the production run is near equilibrium."""
    campaign = _run(
        tmp_path,
        engine,
        temperatures=[20],
        equilibration={"steps": 40, "npt_steps": 600, "time_constant": 100},
        barostat={"time_constant": 300},
        pressure=0.0,
    )
    [outcome] = campaigns.run(campaign)
    assert outcome.state == "finished", outcome
    volumes = _mean_volume(campaign.runs[0], engine)
    fixed = volumes[-8:]
    assert np.ptp(fixed) == 0
    assert 0.80 < fixed[0] / campaign.runs[0].atoms.get_volume() < 0.93


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["lammps", "ase", "ipi"])
def test_a_molecule_without_a_cell(tmp_path, engine):
    steps = 0 if engine == "ipi" else 40  # each stage of i-PI is a start of two programs
    path = write_campaign(
        tmp_path, structure="cluster.xyz", temperatures=[10], equilibration={"steps": steps}
    )
    cluster = bulk("Ar", "fcc", a=5.3, cubic=True).repeat((2, 2, 2))
    cluster.pbc, cluster.cell = False, np.zeros((3, 3))
    write(tmp_path / "cluster.xyz", cluster)
    campaign = plan(load(path, engine), tmp_path / "out")
    [outcome] = campaigns.run(campaign)
    assert outcome.state == "finished", outcome


@pytest.mark.slow
def test_the_three_engines_sample_the_same_state(tmp_path):
    """Temperature and potential energy of a crystal agree within their error bars."""
    found = {}
    for engine in ("lammps", "ase", "ipi"):
        folder = tmp_path / engine
        folder.mkdir()
        campaign = _run(
            folder,
            engine,
            temperatures=[40],
            steps=1500,
            equilibration={"steps": 400},
            log_interval=5,
            restart_interval=1000,
        )
        [outcome] = campaigns.run(campaign)
        assert outcome.state == "finished", outcome
        found[engine] = _averages(campaign.runs[0], engine)
    for name in ("temperature", "potential"):
        for engine in ("ase", "ipi"):
            (a, error_a), (b, error_b) = found["lammps"][name], found[engine][name]
            assert abs(a - b) < 4 * np.hypot(error_a, error_b), (name, engine, found)
    for engine in found:
        mean, error = found[engine]["temperature"]
        assert abs(mean - 40) < 4 * error, found


def _averages(run, engine):
    log = {"lammps": "log.lammps", "ase": "md.log", "ipi": "simulation.out"}[engine]
    columns = {"lammps": (2, 3), "ase": (1, 2), "ipi": (3, 5)}[engine]
    rows = table(run.directory / log)
    rows = rows[-300:]
    results = {}
    for name, column in zip(("temperature", "potential"), columns):
        blocks = rows[:, column].reshape(10, -1).mean(axis=1)
        results[name] = (blocks.mean(), blocks.std(ddof=1) / np.sqrt(10))
    return results


def _ase_production(run):
    """The dynamics object of the script of a run, made as the script makes it."""
    run.directory.mkdir(parents=True)
    ase_host.write(run)
    head = ase_host.script(run).split("\nlog = open")[0]
    names = {}
    with contextlib.chdir(run.directory):
        exec(compile(head, "run.py", "exec"), names)
    return names["production"]()


def test_the_thermostat_counts_the_degrees_of_freedom_that_move(tmp_path):
    """The centre of mass rests: 3N − 3 degrees of freedom, in ASE's script too."""
    [run] = _run(tmp_path, "ase").runs
    assert run.degrees_of_freedom == 93
    assert _ase_production(run).ndof == 93


def test_ipi_turns_the_cell_upright(tmp_path):
    [run] = _run(tmp_path, "ipi").runs
    run.directory.mkdir(parents=True)
    ipi.write(run)
    head = (run.directory / "init.xyz").read_text().splitlines()[1]
    cell = np.array(head.split("CELL{H}:")[1].split()[:9], float).reshape(3, 3)
    np.testing.assert_allclose(cell, run.atoms.cell.array.T, atol=1e-12)
