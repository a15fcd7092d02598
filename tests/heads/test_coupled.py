"""Energies as eigenvalues of a small matrix: against closed forms, and in engines."""

import numpy as np
import pytest
import torch
from ase import Atoms

from mlplugins import MLCalculator
from mlplugins.checks.suite import CheckOptions, check
from mlplugins.errors import BadInput
from mlplugins.heads import LabelSizes
from mlplugins.heads._coupled import adiabatic
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import mace, nequip
from mlplugins.models.base import TrainingStatistics
from mlplugins.structures.graph import Graph

STATES = ("energy/s0", "energy/s1", "energy/s2")


def graph(systems, n_nodes=None):
    nobody = torch.zeros(0, dtype=torch.long)
    species = torch.zeros(n_nodes or len(systems), dtype=torch.long)
    return Graph(species, nobody, nobody, torch.zeros(0, 3), torch.tensor(systems), len(systems))


def shared_out(x, y):
    """Halves of [[x, y], [y, −x]] that two atoms hold, unequal: x and y with their signs."""
    zero = torch.zeros_like(x)
    return torch.stack([torch.stack([x, zero, zero, -x]), torch.stack([zero, y, y, zero])]).reshape(2, 2, 2)


def states(point):
    return adiabatic(shared_out(point[0], point[1]), graph([0, 0])).sum(dim=0)


@pytest.mark.parametrize("point", [(0.3, -0.4), (0.02, 0.1), (-1.0, 0.05)])
def test_a_conical_intersection(point):
    """λ = ∓√(x² + y²), its gradient ∓(x, y)/r, and its second derivatives, ∓(1 − r̂ r̂ᵀ)/r. Constant y is an
    avoided crossing of two levels with a gap of 2 |y|."""
    p = torch.tensor(point, dtype=torch.float64)
    r = float(p.norm())
    unit = p / r
    for k, sign in enumerate((-1, 1)):
        assert float(states(p)[k]) == pytest.approx(sign * r, abs=1e-14)
        gradient = torch.func.grad(lambda q, k=k: states(q)[k])(p)
        torch.testing.assert_close(gradient, sign * unit, rtol=0, atol=1e-12)
        expected = sign * (torch.eye(2, dtype=torch.float64) - torch.outer(unit, unit)) / r
        hessian = torch.autograd.functional.hessian(lambda q, k=k: states(q)[k], p)
        torch.testing.assert_close(hessian, expected, rtol=4e-5, atol=1e-9)  # (ε/2r)² of the guard


def test_the_intersection_itself_is_finite():
    p = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    [gradient] = torch.autograd.grad(states(p)[1], p, create_graph=True)
    assert gradient.norm() <= 1.0 + 1e-12
    [second] = torch.autograd.grad(gradient.sum(), p)
    assert torch.isfinite(second).all()


def test_structures_of_a_batch_have_their_own_states():
    h = torch.randn(5, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    h = h + h.transpose(1, 2)
    found = adiabatic(h, graph([0, 0, 1, 1, 1]))
    for rows in (slice(0, 2), slice(2, 5)):
        expected = np.linalg.eigvalsh(h[rows].sum(dim=0).numpy())
        np.testing.assert_allclose(found[rows].sum(dim=0).numpy(), expected, rtol=0, atol=1e-12)
    with pytest.raises(RuntimeError, match="of all atoms together: expected one process"):
        adiabatic(h, graph([0, 0, 0, 0, 0], n_nodes=6))


def write(path, family=nequip, couplings=1.0):
    heads = {"energy/s1": {"width": 4, "coupled": True}, "energy/s2": {"width": 4, "coupled": True}}
    small = {"num_features": 4} if family is nequip else {"num_channels": 4, "l_max": 1, "correlation": 2}
    options = {"cutoff": 4.2, "zbl": True, **small, "heads": heads, "energy_name": "s0"}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        potential = family.Model(["H", "O"], family.Hyperparameters(**options))
        sizes = {name: LabelSizes((0.5,), (0.3 * k,)) for k, name in enumerate(potential.variants, start=1)}
        statistics = TrainingStatistics(4.0, 0.5, sizes)
        potential.initialise(statistics)
        potential.initialise_heads(statistics)
        for head in potential.heads.values():
            head.couplings.weights[-1].data *= couplings
    zero = [-1.0, -2.0]
    card = ModelCard(
        family.__name__.rpartition(".")[2],
        ["H", "O"],
        zero,
        details={"hyperparameters": options},
        baselines={"s1": zero, "s2": zero},
    )
    save(potential, path, card, "float64")
    return potential


def molecule():
    atoms = Atoms("OH2OH", [[0, 0, 0], [0.96, 0, 0.1], [-0.24, 0.93, 0], [2.6, 0.3, 0.2], [3.4, 0.8, -0.2]])
    atoms.info["frame"] = 0
    return atoms


@pytest.mark.parametrize("family", [nequip, mace])
def test_each_state_has_its_forces(tmp_path, family):
    """They are the derivatives of their own eigenvalue, also where others are asked for; the couplings count,
    and energies are in order."""
    potential = write(tmp_path / "model.pt", family)
    atoms = molecule()
    shift = np.random.default_rng(0).normal(size=(len(atoms), 3))
    shift /= np.linalg.norm(shift)
    found = {}
    for name in STATES:
        calculator = MLCalculator(tmp_path / "model.pt", variant=name)
        found[name] = calculator.get_property("energy", atoms)
        forces = calculator.get_forces(atoms)
        moved = []
        for x in (1e-4, -1e-4):
            other = atoms.copy()
            other.positions += x * shift
            moved.append(calculator.get_property("energy", other))
        assert (moved[0] - moved[1]) / 2e-4 == pytest.approx(-np.sum(forces * shift), rel=1e-6, abs=1e-7)
        at_once = [calculator.get_property(each, atoms) for each in STATES]
    assert at_once == pytest.approx(list(found.values()), abs=1e-9)
    assert at_once == sorted(at_once)
    assert potential.feature_width == 0  # no uncertainty of a last layer
    write(tmp_path / "diagonal.pt", family, couplings=0.0)
    others = [MLCalculator(tmp_path / "diagonal.pt").get_property(each, atoms) for each in STATES]
    assert sum(others) == pytest.approx(sum(at_once), abs=1e-9)  # the trace
    assert np.abs(np.subtract(others, at_once)).max() > 1e-3


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.usefixtures("native_build", "warm_start")
def test_engines_agree_and_several_ranks_are_refused(tmp_path):
    write(tmp_path / "model.pt")
    atoms = molecule()
    report = check(tmp_path / "model.pt", [atoms], CheckOptions(ranks=(1,), nve_steps=0, variants=("s1",)))
    assert report.passed, [row for row in report.rows if not row.passed]
    assert {row.engine for row in report.rows} == {"ase", "ipi", "lammps"}
    rows = check(tmp_path / "model.pt", [atoms], CheckOptions(("lammps",), (2,), nve_steps=0)).rows
    notes = {row.note for row in rows if row.engine == "lammps" and not row.passed}
    assert any("are of all atoms together and run on one MPI rank" in note for note in notes), notes
    with pytest.raises(BadInput, match="heat flux: coupled energies are of all atoms together"):
        MLCalculator(tmp_path / "model.pt").heat_flux(atoms)


def test_what_is_refused():
    heads = {"energy/s1": {"coupled": True}, "energy/s2": {}}
    options = nequip.Hyperparameters(num_layers=1, num_features=4, heads=heads, energy_name="s0")
    with pytest.raises(BadInput, match="energies: coupled: expected of all but the first, or none"):
        nequip.Model(["H", "O"], options)
