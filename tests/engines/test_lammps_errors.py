"""What goes wrong in LAMMPS stops it with exit code 1 and a sentence that helps; nothing hangs."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read

from mlplugins.engines import lammps
from mlplugins.errors import BadInput, RunFailed
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.doubts import CLOSEST
from mlplugins.model_file.write import save
from mlplugins.models import lennard_jones
from mlplugins.models.base import Potential
from mlplugins.structures import nearest
from mlplugins.structures.graph import Graph

from .conftest import crystal
from .lammps_tools import deck, errors_of, start, write_nequip
from .test_archive import data_start, rewrite, with_metadata

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")


def refused(folder: Path, lines: list[str], ranks: int = 1) -> str:
    """The error of a deck that must fail, white space collapsed."""
    result = start(folder, lines, ranks)
    assert result.returncode == 1, result.stdout
    text = result.stdout + result.stderr
    found = [line for line in text.splitlines() if line.startswith("ERROR")]
    assert found, text
    return re.sub(r"\s+", " ", found[0])


@pytest.fixture
def lines(tmp_path, passing_model) -> list[str]:
    return [*deck(tmp_path, passing_model, crystal()), "run 0"]


def replaced(lines: list[str], start_of_line: str, by: str) -> list[str]:
    changed = [by if line.startswith(start_of_line) else line for line in lines]
    assert changed != lines
    return changed


STYLE_ERRORS = {
    "no argument": ("", "expected a model file"),
    "missing file": ("nowhere.pt", "no such model file: 'nowhere.pt'"),
    "unknown keyword": ("{model} modus fold", "unknown keyword 'modus' (and no file of this name); valid:"),
    "no value": ("{model} mode", "keyword 'mode' has no value"),
    "given twice": ("{model} mode fold mode ghost", "keyword 'mode' is given twice"),
    "unknown mode": (
        "{model} mode fast",
        "keyword 'mode': expected auto, fold, exchange or ghost, got 'fast'",
    ),
    "unknown device": ("{model} device gpu", "keyword 'device': expected cpu, cuda or cuda:N, got 'gpu'"),
    "bad scale": ("{model} scale large", "keyword 'scale': expected a number, got 'large'"),
    "variant": ("{model} variant pbe0", "pbe0"),
    "direct forces": ("{model} non_conservative on", "non_conservative"),
}


COEFF_ERRORS = {
    "too few": ("pair_coeff * *", "expected 1 elements after '* *'"),
    "too many": ("pair_coeff * * Ar Kr", "one per atom type in type order, got 2"),
    "not in the model": (
        "pair_coeff * * Li",
        "element Li (atom type 1) is not in the model; it knows: Ar Kr",
    ),
    "no element": (
        "pair_coeff * * argon",
        "'argon' (atom type 1) is neither a chemical symbol nor an atomic number",
    ),
    "one type": ("pair_coeff 1 1 Ar", "must start with * *"),
    "wrong order": ("pair_coeff * * Kr", "Kr has mass 39.948, expected 83.798; that is the mass of Ar"),
}
UNITS = ("lj", "si", "electron")


def test_wrong_commands(tmp_path, lines, passing_model):
    """Every refusal names what was expected and what came; a right deck passes afterwards."""
    decks = {}
    for case, (arguments, _) in STYLE_ERRORS.items():
        style = "pair_style mlplugins " + arguments.format(model=passing_model)
        decks[case] = replaced(lines, "pair_style", style)
    for case, (coeff, _) in COEFF_ERRORS.items():
        decks[case] = replaced(lines, "pair_coeff", coeff)
    for units in UNITS:
        decks[units] = replaced(lines, "units", f"units {units}")
    decks["newton"] = ["newton off", *lines]
    decks["right"] = ["newton on", *lines]
    errors = errors_of(tmp_path, decks)
    expected = {case: text for case, (_, text) in {**STYLE_ERRORS, **COEFF_ERRORS}.items()}
    expected |= {units: f"expected 'units metal' or 'units real', got 'units {units}'" for units in UNITS}
    expected["newton"] = "expected 'newton on'"
    assert set(errors) == set(expected)
    for case, text in expected.items():
        assert text in errors[case], case


def test_exit_code(tmp_path, lines):
    text = refused(tmp_path, replaced(lines, "pair_coeff", "pair_coeff * * Kr"))
    assert "Give the elements in the order of the atom types (pair_checks.cpp" in text


@pytest.mark.slow
def test_all_ranks_stop(tmp_path, lines):
    assert "no such model file" in refused(
        tmp_path, replaced(lines, "pair_style", "pair_style mlplugins x.pt"), 2
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_cuda_without_gpu(tmp_path, lines, passing_model):
    text = refused(
        tmp_path, replaced(lines, "pair_style", f"pair_style mlplugins {passing_model} device cuda")
    )
    assert "device cuda: this torch" in text
    assert "sees no GPU" in text


def test_isotope_masses_only_warn(tmp_path, lines):
    lines.insert(-1, "mass 1 36.0")
    result = start(tmp_path, lines)
    assert result.returncode == 0
    assert "WARNING: atom type 1: Ar has mass 36, expected 39.948" in result.stdout


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_elements_closer_than_in_training_are_named(li6ps5cl, tmp_path, ranks):
    """P and S exchanged, masses too: bonds are as long as before, but no training frame has P so close."""
    elements = ["Li", "P", "S", "Cl"]
    model = lennard_jones.Model(elements, lennard_jones.Hyperparameters(epsilon=0.01, sigma=2.0, cutoff=5.0))
    record = {"data": {CLOSEST: nearest.shortest(read(li6ps5cl / "train.extxyz", ":5"))}}
    save(model, tmp_path / "m.pt", ModelCard("lennard-jones", elements, [0.0] * 4, details=record), "float64")
    atoms = read(li6ps5cl / "test.extxyz", 0)
    wrong = atoms.copy()
    wrong.symbols = [{"P": "S", "S": "P"}.get(symbol, symbol) for symbol in atoms.symbols]
    said = r"WARNING: P and P are 3\.\d\d A apart, in no training frame closer than \d\.\d\d A: elements exch"
    for given, times in ((atoms, 0), (wrong, 1)):
        result = start(tmp_path, [*deck(tmp_path, tmp_path / "m.pt", given), "run 0", "run 1"], ranks)
        assert result.returncode == 0, result.stdout
        assert len(re.findall(said, re.sub(r"\s+", " ", result.stdout))) == times, result.stdout


def test_broken_model_files(tmp_path, lines, passing_model):
    whole = passing_model.read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pt").write_text("not a model")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("a/b", "c")
    torch.save({"a": 1}, tmp_path / "dict.pt")
    names = ("cut", "text", "zip", "dict")
    decks = {name: replaced(lines, "pair_style", f"pair_style mlplugins {name}.pt") for name in names}
    errors = errors_of(tmp_path, decks)
    for name in names:
        assert f"'{name}.pt' is not a metatomic model, or it is truncated" in errors[name]
    assert "is not a metatomic model" in refused(tmp_path, decks["cut"], ranks=2)


def test_newer_file_format(tmp_path, lines, passing_model):
    """The version stands in the file's metadata, which are read before the model."""
    newer = tmp_path / "newer.pt"
    with zipfile.ZipFile(passing_model) as source, zipfile.ZipFile(newer, "w", zipfile.ZIP_STORED) as target:
        for entry in source.infolist():
            data = source.read(entry)
            if entry.filename.endswith("model-metadata"):
                changed = re.sub(rb'("mlplugins::format"\s*:\s*)"5"', rb'\g<1>"6"', data)
                assert changed != data
                data = changed
            target.writestr(entry.filename, data)
    text = refused(tmp_path, replaced(lines, "pair_style", "pair_style mlplugins newer.pt"))
    assert "written by a newer mlplugins (file format 6, this one reads up to 5): upgrade mlplugins" in text


def test_damaged_model_files(tmp_path, lines, passing_model):
    """One flipped bit of a weight, of the program, of the metadata; other weights with right checksums."""
    whole = passing_model.read_bytes()
    with zipfile.ZipFile(passing_model) as archive:
        entries = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    # TorchScript numbers the classes of a process: also nequip/___torch_mangle_3.py
    programs = [name for name in entries if re.fullmatch(r"code/.*/models/nequip(/\w+)?\.py", name)]
    program = max(programs, key=lambda name: entries[name].file_size)
    names = {
        "weight": "data/12",
        "program": program,
        "metadata": "extra/model-metadata",
    }
    for name, entry in names.items():
        damaged = bytearray(whole)
        damaged[data_start(whole, entries[entry]) + entries[entry].compress_size // 2] ^= 1
        (tmp_path / f"{name}.pt").write_bytes(damaged)

    def edit(name: str, data: bytes) -> bytes:
        return data[:-1] + b"\x01" if name.endswith("/data/12") else data

    rewrite(passing_model, tmp_path / "other.pt", edit, keep_list=True)
    wrong_cutoff = {"mlplugins::cutoff": "4.0"}
    with_metadata(passing_model, tmp_path / "cutoff.pt", lambda extra: extra.update(wrong_cutoff))
    with_metadata(
        passing_model, tmp_path / "word.pt", lambda extra: extra.update({"mlplugins::format": "one"})
    )
    expected = {name: f"damaged (entry '{entry}')" for name, entry in names.items()}
    expected["other"] = "is damaged: its entry 'data/12' is not the one that was exported"
    expected["cutoff"] = "is damaged: its metadata say a cutoff of 4"
    expected["word"] = "is damaged: its metadata say mlplugins::format = 'one'"
    decks = {name: replaced(lines, "pair_style", f"pair_style mlplugins {name}.pt") for name in expected}
    errors = errors_of(tmp_path, decks)
    for name, text in expected.items():
        assert f"'{name}.pt'" in errors[name]
        assert text in errors[name]


@pytest.mark.slow
def test_modes_that_cannot_work(tmp_path, lines, passing_model, argon_model):
    fold = replaced(lines, "pair_style", f"pair_style mlplugins {passing_model} mode fold")
    assert "mode fold works on one MPI rank, got 2; use mode exchange" in refused(tmp_path, fold, ranks=2)
    portable = write_nequip(tmp_path / "portable.pt", portable=True)
    exchange = replaced(lines, "pair_style", f"pair_style mlplugins {portable} mode exchange")
    text = refused(tmp_path, exchange, ranks=2)
    assert "needs a model that exchanges node features" in text
    assert text.rstrip().count("use mode ghost") == 1


@pytest.mark.slow
def test_ghost_mode_warns_of_its_cost(tmp_path, lines, passing_model):
    """A model without the exchange op falls back to ghosts over the whole range, and says what that costs."""
    portable = write_nequip(tmp_path / "portable.pt", portable=True)
    result = start(tmp_path, replaced(lines, "pair_style", f"pair_style mlplugins {portable}"), ranks=2)
    assert result.returncode == 0
    assert ", mode ghost\n" in result.stdout
    warning = re.search(r"computes (\d+) nodes for (\d+) local atoms \(nodes/local (\S+)\)", result.stdout)
    assert float(warning[3]) == pytest.approx(int(warning[1]) / int(warning[2]), abs=0.06)
    assert int(warning[1]) > 20 * int(warning[2])  # 10 Å around a box of 10 Å
    result = start(tmp_path, lines, ranks=2)
    assert ", mode exchange\n" in result.stdout
    assert "mode ghost" not in result.stdout


class Failing(Potential):
    """Raises, or gives NaN, as soon as an atom has more than `most` neighbours."""

    def __init__(self, raises: bool, most: int) -> None:
        super().__init__(4.0)
        self.raises = raises
        self.most = most

    def forward(self, graph: Graph) -> dict[str, torch.Tensor]:
        energy = torch.zeros(graph.n_centers, dtype=graph.vectors.dtype)
        energy = energy.index_add(0, graph.centers, graph.vectors.square().sum(1))
        if graph.centers.shape[0] > self.most:
            if self.raises:
                raise RuntimeError("too many neighbours for me")
            energy = energy / 0.0 * 0.0
        return {"energy": energy}


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("raises", [True, False])
def test_failure_in_the_middle_of_a_run(tmp_path, raises, ranks):
    """Two atoms meet after 20 steps: the step is named, no rank waits, the trajectory so far is readable."""
    atoms = Atoms("Ar2", [[2.0, 5.0, 5.0], [26.0, 5.0, 5.0]], cell=[40, 10, 10])
    model = tmp_path / "failing.pt"
    save(Failing(raises, 0), model, ModelCard("failing", ["Ar"], [0.0]), "float64")
    speed = np.array([[0.5, 0, 0], [-0.5, 0, 0]])  # Å/fs
    lines = deck(tmp_path, model, atoms, velocities=speed)
    lines += ["fix 1 all nve", "timestep 0.001", "dump 1 all custom 1 run.dump id x y z", "run 60"]
    text = refused(tmp_path, lines, ranks)
    step = int(re.search(r"at step (\d+)", text)[1])
    assert 19 <= step <= 22  # 24 Å − 4 Å at 1 Å/fs
    if raises:
        assert "the model failed at step" in text
        assert "too many neighbours for me" in text
        assert "Traceback" not in text
    else:
        assert "energy or forces are not finite at step" in text
    frame = lammps.read_dump(tmp_path / "run.dump")
    assert frame.shape == (2, 4)


@pytest.mark.slow
def test_coincident_atoms(tmp_path, argon_model):
    atoms = Atoms("Ar2", [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]], cell=[20, 20, 20], pbc=True)
    lines = deck(tmp_path, argon_model, atoms)
    assert "not finite at step 0" in refused(tmp_path, [*lines, "run 0"])


@pytest.mark.slow
def test_lost_atoms(tmp_path, argon_model):
    atoms = Atoms("Ar2", [[1.0, 1.0, 1.0], [8.0, 1.0, 1.0]])
    lines = deck(tmp_path, argon_model, atoms, velocities=np.array([[1.0, 0, 0], [0, 0, 0]]))
    lines += [
        "fix 1 all nve",
        "timestep 0.01",
        "thermo 5",
        "dump 1 all custom 1 run.dump id x y z",
        "run 100",
    ]
    assert "Lost atoms" in refused(tmp_path, lines)
    assert len(lammps.read_dump(tmp_path / "run.dump")) >= 1


@pytest.mark.slow
def test_bonded_pairs_missing_from_the_list(tmp_path, passing_model):
    atoms = crystal()
    lammps.write_data(tmp_path / "atoms.lmp", atoms, ["Ar"])
    lines = [
        "units metal",
        "atom_style bond",
        "lattice fcc 5.3",
        "region b block 0 3 0 3 0 3",
        "create_box 1 b bond/types 1 extra/bond/per/atom 4 extra/special/per/atom 30",
        "create_atoms 1 box",
        "mass 1 39.95",
        f"pair_style mlplugins {passing_model}",
        "pair_coeff * * Ar",
        "bond_style zero",
        "bond_coeff *",
        "create_bonds single/bond 1 1 2",
        "run 0",
    ]
    assert "use 'special_bonds lj/coul 1 1 1'" in refused(tmp_path, lines)
    lines.insert(-1, "special_bonds lj/coul 1 1 1")
    assert start(tmp_path, lines).returncode == 0


def test_python_side(tmp_path, argon_model, passing_model):
    with pytest.raises(RunFailed, match="element Xe .* is not in the model"):
        lammps.evaluate(argon_model, Atoms("Xe", cell=[9, 9, 9], pbc=True))
    with pytest.raises(BadInput, match="at least one rank"):
        lammps.evaluate(argon_model, Atoms("Ar"), ranks=0)
    with pytest.raises(BadInput, match="not finite"):
        lammps.evaluate(argon_model, Atoms("Ar", [[np.nan, 0, 0]]))
