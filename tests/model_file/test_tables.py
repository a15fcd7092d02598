"""Radial tables: their error is what they say, and is below round-off where they are the default."""

import copy

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.data import chemical_symbols

from mlplugins import MLCalculator
from mlplugins.checkpoints import exported
from mlplugins.errors import BadInput
from mlplugins.model_file import artifact
from mlplugins.model_file.card import RADIAL, ModelCard
from mlplugins.model_file.radial import RadialFunctions, RadialTables
from mlplugins.model_file.tables import chosen, on_knots, samples
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones, mace, nequip, zbl
from mlplugins.models import sum as sums
from mlplugins.models.base import TrainingStatistics, energy_derivatives
from mlplugins.nn.radial_table import RadialTable
from mlplugins.ops.reference import interpolate
from mlplugins.structures.batch import graph_of

ELEMENTS = ["Li", "S"]
CARD = ModelCard("nequip", ELEMENTS, [0.0, 0.0])
PARAMETERS = {"num_layers": 2, "num_features": 4, "l_max": 1}


@pytest.fixture(scope="module")
def model():
    return nequip_model()


def nequip_model(**more):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nequip.Model(ELEMENTS, nequip.Hyperparameters(**PARAMETERS, **more)).double()
    made.average_neighbors.fill_(30.0)
    return made.requires_grad_(False)


def forces(potential, atoms, dtype=torch.float64):
    graph = graph_of(atoms, ELEMENTS, potential.cutoff, dtype)
    graph.vectors.requires_grad_()
    energy = potential(graph)["energy"]
    return energy_derivatives(energy, graph, 1)[0].detach().double().numpy()


def measured(model, n_knots, structures=(), dtype="float64"):
    return chosen(model, ELEMENTS, dtype, False, RadialTables(n_knots, structures))


def test_error_falls_with_the_third_power_of_the_knots(model):
    coarse, fine = (measured(model, n)[1] for n in (65, 257))
    assert 0 < fine.force_eV_A < coarse.force_eV_A / 20  # 4³ = 64
    assert fine.relative_force < 1e-3


def test_tables_of_float32_err_less_than_round_off(model, tmp_path):
    """Both errors are recomputed with the plain model; half of the knots are not enough."""
    radial = save(model, tmp_path / "m.pt", CARD)
    assert artifact.load(tmp_path / "m.pt").record[RADIAL] == vars(radial)
    assert radial.certified
    assert radial.n_knots > 257
    table, rounded = copy.deepcopy(model), copy.deepcopy(model).float()
    table.use_radial_tables(radial.n_knots)
    errors, round_off = [], []
    for atoms in samples(ELEMENTS, model.cutoff):
        exact = forces(model, atoms)
        errors.append(np.abs(forces(table, atoms) - exact).max())
        round_off.append(np.abs(forces(rounded, atoms, torch.float32) - exact).max())
        assert errors[-1] < 3 * round_off[-1]
    assert radial.force_eV_A == pytest.approx(max(errors), rel=1e-3)
    assert 0.3 < radial.round_off_eV_A / max(round_off) < 3  # other operations round otherwise
    few = measured(model, 129, dtype="float32")[1]
    assert not few.certified
    assert few.force_eV_A > few.round_off_eV_A
    assert "NOT below the float32 round-off of the exact model" in str(few)


def test_rounded_tables_err_as_little_as_the_rounded_model(model):
    """With differences of rounded values for rises, four times the knots would have four times the error."""
    for n_knots in (513, 2049):
        radial = measured(model, n_knots, dtype="float32")[1]
        assert radial.float32_eV_A < 2 * radial.round_off_eV_A + radial.force_eV_A


def test_training_goes_on_from_the_networks(model, tmp_path):
    save(
        model,
        tmp_path / "m.pt",
        ModelCard("nequip", ELEMENTS, [0.0, 0.0], "m", {"hyperparameters": PARAMETERS}),
    )
    read = exported.read(tmp_path / "m.pt")
    assert RADIAL not in read.details
    for name, value in read.potential.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_kinks_of_the_cutoff_lie_on_knots():
    kinked = nequip_model(xplor_onset=4.5)
    radial = chosen(kinked, ELEMENTS, "float32", False, RadialTables())[1]
    assert radial.certified
    assert (radial.n_knots - 1) % 10 == 0
    beside = measured(kinked, radial.n_knots + 4)[1]
    assert beside.force_eV_A > 3 * radial.force_eV_A
    assert on_knots(256, [0.5, 2 / 3]) == 258


def test_what_is_written_exact_and_why(model, tmp_path):
    for dtype, knots, why in (("float32", "off", "as asked for"), ("float64", None, "as always in float64")):
        inside, radial = measured(model, knots, dtype=dtype)
        assert inside is model
        assert str(radial).startswith(f"radial functions: exact ({why}")
    argon = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters(cutoff=6.0))
    assert chosen(argon, ["Ar"], "float32", False, RadialTables())[1] is None


DENSITY = {"interaction_first": "RealAgnosticDensity", "interaction": "RealAgnosticDensityResidual"}
NON_LINEAR = dict.fromkeys(DENSITY, "RealAgnosticResidualNonLinear")
PAIRS = {  # hyper-parameters, tables of three elements
    "agnesi, density": ({**DENSITY, "distance_transform": "agnesi"}, 6),
    "density": (DENSITY, 1),
    "envelope on the weights": ({"envelope_on_weights": True, "interaction": DENSITY["interaction"]}, 1),
    "non-linear": ({**NON_LINEAR, "envelope_on_weights": True}, 9),
}


def mace_model(elements, **more):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parameters = mace.Hyperparameters(num_channels=2, l_max=1, correlation=2, **more)
        made = mace.Model(elements, parameters).double()
        for name, embedding in made.named_parameters():
            if name.endswith(("of_neighbor", "of_center")):
                torch.nn.init.normal_(embedding)
    made.initialise(TrainingStatistics(average_neighbors=30.0, force_rms=1.0))
    return made.requires_grad_(False)


@pytest.mark.parametrize("name", PAIRS)
def test_tables_of_pairs_of_elements(name):
    """Certified on exact forces that depend on the pair; on the compiled ops they are derivatives."""
    hyperparameters, n_tables = PAIRS[name]
    elements = ["Li", "O", "S"]
    exact = mace_model(elements, **hyperparameters)
    table, radial = chosen(exact, elements, "float32", False, RadialTables())
    assert radial.certified
    knots = [block.knots for block in table.modules() if isinstance(block, RadialTable)]
    assert {k.shape[0] if k.dim() == 4 else 1 for k in knots} == {n_tables}
    assert {k.shape[-3] for k in knots} == {radial.n_knots}
    table.use_native_ops()
    graph = graph_of(samples(elements, exact.cutoff)[2], elements, exact.cutoff)

    def energy(model, vectors):
        return model(graph._replace(vectors=vectors))["energy"].sum()

    vectors = graph.vectors.requires_grad_()
    expected, found = (torch.autograd.grad(energy(m, vectors), vectors)[0] for m in (exact, table))
    assert float(expected.abs().max()) > 1e4 * radial.force_eV_A
    torch.testing.assert_close(found, expected, rtol=0, atol=2 * radial.force_eV_A)
    step = 1e-4 * found / found.norm()
    ends = [float(energy(table, (vectors + sign * step).detach())) for sign in (1, -1)]
    assert (ends[0] - ends[1]) / 2e-4 == pytest.approx(float(found.norm()), rel=1e-6)


def test_no_certificate_of_pairs_that_no_structure_holds():
    """Of very many elements the samples hold not all; fewer elements are the way out."""
    elements = ["Li", "O", "S"]
    exact = mace_model(elements, **PAIRS["agnesi, density"][0])
    oxide = bulk("LiO", "rocksalt", a=4.1)
    inside, radial = chosen(exact, elements, "float32", False, RadialTables(None, [oxide]))
    assert inside is exact
    assert (
        "3 of 6 kinds of pairs of elements are in no structure to measure on; a file of fewer" in radial.why
    )
    several = mace_model(chemical_symbols[1:90], distance_transform="agnesi")
    assert (
        "kinds of pairs of elements are in no"
        in chosen(several, chemical_symbols[1:90], "float32", False, RadialTables())[1].why
    )


def test_no_certificate_without_an_end(model, monkeypatch):
    """Tables that would be too large, or never good enough, are not written."""
    monkeypatch.setattr("mlplugins.model_file.tables.MOST_BYTES", 10_000)
    inside, radial = measured(model, None, dtype="float32")
    assert inside is model
    assert "tables of 257 knots would take more than" in radial.why
    monkeypatch.undo()
    monkeypatch.setattr("mlplugins.model_file.tables.MOST_INTERVALS", 256)
    inside, radial = measured(model, None, dtype="float32")
    assert inside is model
    assert "tables of 257 knots err by" in radial.why


def test_a_repulsion_beside_the_network_is_left_alone(model):
    total = sums.Model.of([model, zbl.Model(ELEMENTS, zbl.Hyperparameters())])
    inside, radial = chosen(total, ELEMENTS, "float32", False, RadialTables())
    assert radial == measured(model, None, dtype="float32")[1]
    assert inside.parts()[1].state_dict().keys() == total.parts()[1].state_dict().keys()


def test_samples_are_honest():
    """All elements, distances from short to the cutoff, and neighbours however small the cutoff is."""
    many = chemical_symbols[1:90]
    for elements, cutoff in ((many, 5.0), (["H"], 6.0), (["Cs"], 3.0)):
        structures = samples(elements, cutoff)
        found = {symbol for atoms in structures for symbol in atoms.symbols}
        assert found == set(elements)
        r = [np.linalg.norm(graph_of(atoms, elements, cutoff).vectors, axis=1) for atoms in structures]
        for atoms, lengths in zip(structures, r, strict=True):
            assert 8 < len(lengths) / len(atoms) < 90
            assert (lengths > 0.9 * cutoff).sum() > 50
        if elements is many:  # hydrides, and no noble gas
            assert r[2].min() < 0.7
            assert not {"He", "Ne"} & set(structures[2].symbols)


def test_before_the_first_knots_and_beyond_the_cutoff(model):
    """Distances that no simulation sees are interpolated as well as others; beyond the cutoff all is zero."""
    table = copy.deepcopy(model)
    table.use_radial_tables(1025)
    network, basis = model.interactions[0].convolution.radial, model.basis
    r = torch.tensor([1e-4, 2e-3, 0.01, 4.9999, 5.0, 5.1], dtype=torch.float64)
    exact = network(basis(r))
    found = interpolate(r / 5.0, table.interactions[0].convolution.radial.knots)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-7 * float(exact.abs().max()))
    assert bool((found[4:] == 0).all())
    assert bool((exact[5:] == 0).all())


@pytest.mark.long
def test_printed_error_holds_in_an_engine(model, tmp_path):
    save(model, tmp_path / "exact.pt", CARD, "float64")
    radial = save(model, tmp_path / "table.pt", CARD, "float64", tables=RadialTables(65))
    save(model, tmp_path / "portable.pt", CARD, "float64", portable=True, tables=RadialTables(65))
    assert "radial tables of 65 knots: force error" in str(radial)
    worst = 0.0
    for atoms in samples(ELEMENTS, model.cutoff):
        found = {}
        for name in ("exact", "table", "portable"):
            atoms.calc = MLCalculator(tmp_path / f"{name}.pt")
            found[name] = atoms.get_forces()
        np.testing.assert_allclose(found["portable"], found["table"], rtol=0, atol=1e-10)
        worst = max(worst, float(np.abs(found["table"] - found["exact"]).max()))
    assert worst == pytest.approx(radial.force_eV_A, rel=1e-3)


def test_table_forces_are_the_gradient_of_the_table_energy(model, tmp_path):
    save(model, tmp_path / "table.pt", CARD, "float64", tables=RadialTables(65))
    atoms = bulk("Li", "bcc", a=3.3, cubic=True) * (2, 2, 2)
    atoms.rattle(0.2, seed=1)
    atoms.calc = MLCalculator(tmp_path / "table.pt")
    forces, step = atoms.get_forces(), 1e-4
    direction = np.random.default_rng(2).normal(size=forces.shape)
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions += sign * step * direction
        moved.calc = atoms.calc
        energies.append(moved.get_potential_energy())
    slope = (energies[0] - energies[1]) / (2 * step)
    assert slope == pytest.approx(-np.sum(forces * direction), rel=1e-5)


def test_refusals(model):
    with pytest.raises(BadInput, match="16 knots or more, got 3"):
        measured(model, 3)
    argon = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters())
    with pytest.raises(BadInput, match="no radial network"):
        chosen(argon, ["Ar"], "float32", False, RadialTables(65))


def test_records_of_older_files_are_read():
    old = {"n_knots": 257, "force_eV_A": 1e-4, "relative_force": 1e-5, "energy_meV_per_atom": 1e-3}
    radial = RadialFunctions.of(old)
    assert not radial.certified
    assert radial.asked == RadialTables(257)
    assert str(radial).startswith("radial tables of 257 knots: force error 1.0e-04 eV/Å (1.0e-05 of the")
