import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import ModelEvaluationOptions, ModelOutput, load_atomistic_model, systems_to_torch
from metatomic_ase import MetatomicCalculator

from mlplugins import ops
from mlplugins.errors import BadInput, RunFailed
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones, nequip
from mlplugins.models.base import TrainingStatistics
from mlplugins.structures.batch import graph_of
from mlplugins.structures.neighbors import neighbor_list
from mlplugins.testing.structures import standard_structures

ELEMENTS = ["Li", "S"]
BASELINE = [-190.25, -12000.125]
DESCRIPTION = ModelCard("nequip", ELEMENTS, BASELINE, details={"hyperparameters": {"num_features": 4}})


@pytest.fixture(scope="module")
def potential():
    torch.manual_seed(0)
    hyperparameters = nequip.Hyperparameters(cutoff=4.5, num_layers=2, num_features=4, radial_mlp=[8])
    model = nequip.Model(ELEMENTS, hyperparameters)
    model.initialise(TrainingStatistics(average_neighbors=12.0, force_rms=0.8))
    return model


@pytest.fixture(scope="module")
def model_file(potential, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "model.pt"
    save(potential, path, DESCRIPTION, "float64")
    return path


def _expected(potential, atoms):
    energies = potential(graph_of(atoms, ELEMENTS, potential.cutoff))["energy"].detach().numpy()
    return energies + np.array([BASELINE[ELEMENTS.index(symbol)] for symbol in atoms.symbols])


def _system(model, atoms, shuffle=False):
    system = systems_to_torch(atoms, dtype=torch.float64)
    options = model.requested_neighbor_lists()[0]
    edges = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, options.cutoff)
    order = np.random.default_rng(0).permutation(len(edges.centers)) if shuffle else slice(None)
    pairs = np.concatenate([edges.centers[:, None], edges.neighbors[:, None], edges.shifts], axis=1)[order]
    names = ["first_atom", "second_atom", "cell_shift_a", "cell_shift_b", "cell_shift_c"]
    block = TensorBlock(
        torch.from_numpy(edges.vectors[order]).reshape(-1, 3, 1),
        Labels(names, torch.from_numpy(pairs.astype(np.int32))),
        [Labels.range("xyz", 3)],
        Labels.range("distance", 1),
    )
    system.add_neighbor_list(options, block)
    return system


def _options(sample_kind, selected=None):
    output = ModelOutput(unit="eV", sample_kind=sample_kind)
    return ModelEvaluationOptions(length_unit="angstrom", outputs={"energy": output}, selected_atoms=selected)


@pytest.mark.parametrize("name", sorted(standard_structures()))
def test_metatomic_calculator_gives_the_energy_of_the_family(name, potential, model_file):
    atoms = standard_structures(ELEMENTS)[name]
    atoms.calc = MetatomicCalculator(str(model_file), check_consistency=True)
    assert atoms.get_potential_energy() == pytest.approx(_expected(potential, atoms).sum(), abs=1e-9)


def test_batches_selected_atoms_and_unsorted_pairs(potential, model_file):
    model = load_atomistic_model(model_file)
    structures = [standard_structures(ELEMENTS)[name] for name in ("crystal", "molecule", "one_atom")]
    systems = [_system(model, atoms, shuffle=True) for atoms in structures]
    energies = model(systems, _options("atom"), check_consistency=True)["energy"].block()
    expected = np.concatenate([_expected(potential, atoms) for atoms in structures])
    np.testing.assert_allclose(energies.values[:, 0].numpy(), expected, rtol=0, atol=1e-9)

    selected = Labels(["system", "atom"], torch.tensor([[0, 3], [1, 0], [1, 2], [2, 0]], dtype=torch.int32))
    per_atom = model(systems, _options("atom", selected), check_consistency=True)["energy"].block()
    rows = [3, len(structures[0]), len(structures[0]) + 2, len(expected) - 1]
    np.testing.assert_allclose(per_atom.values[:, 0].numpy(), expected[rows], rtol=0, atol=1e-9)
    total = model(systems, _options("system", selected), check_consistency=True)["energy"].block()
    sums = [expected[rows[0]], expected[rows[1:3]].sum(), expected[rows[3]]]
    np.testing.assert_allclose(total.values[:, 0].numpy(), sums, rtol=0, atol=1e-9)


def test_nodes_beyond_n_centers_have_no_energy(potential, model_file):
    """One layer's worth of physics: ghosts only lend their species; the exchange op is the identity here."""
    model = load_atomistic_model(model_file)
    atoms = standard_structures(ELEMENTS)["molecule"]
    system = _system(model, atoms)
    n_centers = TensorBlock(
        torch.tensor([[float(len(atoms))]], dtype=torch.float64),
        Labels.range("system", 1),
        [],
        Labels.range("n_centers", 1),
    )
    system.add_data("mlplugins::n_centers", TensorMap(Labels.range("_", 1), [n_centers]))
    energies = model([system], _options("atom"), check_consistency=False)["energy"].block().values
    np.testing.assert_allclose(energies[:, 0].numpy(), _expected(potential, atoms), rtol=0, atol=1e-9)


def test_float32_keeps_per_atom_resolution(potential, tmp_path):
    """Composition energies of −12000 eV must not drown a model that predicts meV."""
    save(potential, tmp_path / "model.pt", DESCRIPTION, "float32")
    atoms = standard_structures(ELEMENTS)["crystal"]
    atoms.calc = MetatomicCalculator(str(tmp_path / "model.pt"))
    expected = _expected(potential, atoms).sum()
    assert atoms.get_potential_energy() == pytest.approx(expected, abs=1e-4)


def test_metadata(model_file, potential):
    extra = load_atomistic_model(model_file).metadata().extra
    assert extra["mlplugins::format"] == "5"
    assert extra["mlplugins::family"] == "nequip"
    assert float(extra["mlplugins::cutoff"]) == potential.cutoff
    assert int(extra["mlplugins::exchange_width"]) == potential.exchange_width > 0
    record = json.loads(extra["mlplugins::metadata"])
    assert record["baseline_eV"] == BASELINE
    assert record["hyperparameters"] == {"num_features": 4}


@pytest.mark.parametrize("portable", [False, True])
def test_only_our_library_is_recorded(potential, tmp_path, portable):
    """An unrelated library in the process must not become a warning in every engine."""
    compiled = ops.load() == "compiled"
    torch.ops.loaded_libraries.add("/nowhere/libunrelated.so")
    try:
        save(potential, tmp_path / "model.pt", DESCRIPTION, portable=portable)
        assert "/nowhere/libunrelated.so" in torch.ops.loaded_libraries
    finally:
        torch.ops.loaded_libraries.discard("/nowhere/libunrelated.so")
    files = {"extensions": ""}
    torch.jit.load(tmp_path / "model.pt", _extra_files=files)
    names = [extension["name"] for extension in json.loads(files["extensions"])]
    assert names == (["mlplugins_ops"] if compiled and not portable else [])


@pytest.mark.long
def test_portable_file_runs_without_mlplugins(potential, tmp_path):
    path = tmp_path / "portable.pt"
    save(potential, path, DESCRIPTION, "float64", portable=True)
    script = f"""
import sys
sys.modules["mlplugins"] = None
from ase.build import bulk
from metatomic_ase import MetatomicCalculator
atoms = bulk("Li", "fcc", a=4.4, cubic=True)
atoms.symbols[1] = "S"
atoms.calc = MetatomicCalculator({str(path)!r})
print(repr(float(atoms.get_potential_energy())))
"""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True
    )
    from ase.build import bulk

    atoms = bulk("Li", "fcc", a=4.4, cubic=True)
    atoms.symbols[1] = "S"
    assert float(run.stdout) == pytest.approx(_expected(potential, atoms).sum(), abs=1e-9)


def test_bad_requests_are_refused(potential, tmp_path):
    with pytest.raises(BadInput, match="dtype: expected float32 or float64, got 'float16'"):
        save(potential, tmp_path / "model.pt", DESCRIPTION, "float16")
    with pytest.raises(BadInput, match="baseline: expected 2 values, one per element, got 1"):
        save(potential, tmp_path / "model.pt", ModelCard("nequip", ELEMENTS, [0.0]))


def test_a_failed_export_leaves_the_old_file(tmp_path, monkeypatch, potential):
    path = tmp_path / "model.pt"
    path.write_bytes(b"old")

    def disk_full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.jit, "save", disk_full)
    with pytest.raises(RunFailed, match=r"cannot write .*model\.pt: No space left"):
        save(potential, path, DESCRIPTION)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


KILLED = """
import os, signal, sys
import torch
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones

def killed(module, path, **_):
    open(path, "wb").write(b"half of it")
    if sys.argv[2] == "wait":
        print("writing", flush=True)
        sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)

torch.jit.save = killed
model = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters())
save(model, sys.argv[1], ModelCard("lennard-jones", ["Ar"], [0.0]), "float64")
"""


@pytest.mark.long
def test_what_killed_exports_left_is_removed_by_the_next(tmp_path):
    """But not the file of an export that still runs."""
    path = tmp_path / "model.pt"
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(path)]
    assert subprocess.run([*command, "die"], check=False).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    with subprocess.Popen([*command, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout.readline() == b"writing\n"
        (alive,) = set(tmp_path.iterdir()) - {left}
        for unfinished in (left, alive):
            os.utime(unfinished, (0, 0))  # only old ones are looked at; the lock of a live one counts then
        model = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters())
        save(model, path, ModelCard("lennard-jones", ["Ar"], [0.0]), "float64")
        assert sorted(tmp_path.iterdir()) == sorted([path, alive])
        running.stdin.close()
    save(model, path, ModelCard("lennard-jones", ["Ar"], [0.0]), "float64")
    assert list(tmp_path.iterdir()) == [path]


def test_lennard_jones_needs_no_ops(tmp_path):
    model = lennard_jones.Model(["Ar"], lennard_jones.Hyperparameters())
    save(model, tmp_path / "lj.pt", ModelCard("lennard-jones", ["Ar"], [0.0]), "float64")
    assert load_atomistic_model(tmp_path / "lj.pt").metadata().extra["mlplugins::exchange_width"] == "0"


def test_ops_load_is_idempotent():
    ops.load()
    ops.load()
    h = torch.randn(3, 2, requires_grad=True)
    out = torch.ops.mlplugins.ghost_exchange(h)
    torch.testing.assert_close(out, h)
    torch.testing.assert_close(torch.autograd.grad(out.sum(), h)[0], torch.ones_like(h))
