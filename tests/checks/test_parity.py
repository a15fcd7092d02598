"""The same model in the real engines, and a difference that must not pass."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk, molecule

from mlplugins import engines
from mlplugins.checks.parity import _compare, parity
from mlplugins.engines.base import Way
from mlplugins.errors import RunFailed
from mlplugins.model_file import artifact
from mlplugins.quantities import Results

from ..simulation.argon import write_model

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return artifact.load(write_model(tmp_path_factory.mktemp("model") / "model.pt"))


def _small():
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.set_cell(atoms.cell.array @ [[1, 0.1, 0], [0, 1, 0.2], [0, 0, 1]], scale_atoms=True)
    atoms.rattle(0.1, seed=4)
    atoms.rotate(30, (1, 1, 0), rotate_cell=True)
    return atoms


def _cluster():
    atoms = molecule("CH4")
    atoms.positions *= 3
    atoms.symbols = "Ar5"
    return atoms


def _rows(model, structures, chosen, ranks):
    return parity(model, structures, chosen, ranks, lambda text: None)


def test_lammps_on_two_ranks(model):
    rows = _rows(model, [("small", _small())], ["lammps"], [2])
    assert [row for row in rows if not row.passed] == []
    assert {row.name.split()[0] for row in rows} == {"energy", "forces", "stress"}


@pytest.mark.slow
def test_lammps(model):
    rows = _rows(model, [("small", _small()), ("cluster", _cluster())], ["lammps"], [1, 2])
    assert [row for row in rows if not row.passed] == []
    assert {(row.structure, row.ranks, row.name.split()[0]) for row in rows} == {
        *{("small", ranks, what) for ranks in (1, 2) for what in ("energy", "forces", "stress")},
        *{("cluster", ranks, what) for ranks in (1, 2) for what in ("energy", "forces")},
    }


@pytest.mark.slow
def test_ipi(model):
    rows = _rows(model, [("small", _small()), ("cluster", _cluster())], ["ipi"], [1])
    assert [row for row in rows if not row.passed] == []
    assert {row.name for row in rows if row.structure == "small"} == {
        f"{what} = ASE ({how})" for what in ("energy", "forces", "stress") for how in ("ffdirect", "socket")
    }


@pytest.mark.slow
def test_a_structure_that_fails_in_ipi_does_not_hide_the_others(model):
    collided = bulk("Ar", "fcc", a=5.3, cubic=True)
    collided.positions[1] = collided.positions[0]
    cases, ipi = [_small(), collided], engines.load("ipi")
    [good, bad] = ipi.single_points(model, cases, ipi.ways(model, cases, [1])[0])
    assert isinstance(good, Results)
    assert isinstance(bad, RunFailed)
    assert "not finite" in str(bad)


def test_a_difference_of_the_size_of_the_promise_fails(model):
    [reference] = engines.load("ase").single_points(model, [_small()], Way((0,)))
    how = ("lammps", Way((0,), 2, "exchange"))
    assert all(row.passed for row in _compare(model, "x", reference, reference, how))
    wrong = [
        replace(reference, energy=reference.energy + 5e-8),
        replace(reference, forces=reference.forces + np.eye(4, 3) * 1.1e-8),
        replace(reference, stress=-reference.stress),
        replace(reference, energy=float("nan")),
        RunFailed("lost atoms"),
    ]
    for outcome, name in zip(wrong, ("energy", "forces", "stress", "energy", "energy")):
        failed = [row for row in _compare(model, "x", reference, outcome, how) if not row.passed]
        assert [row.name.split()[0].rstrip(",") for row in failed] == [name]
    assert "lost atoms" in failed[0].note
