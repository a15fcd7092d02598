"""Labels of others against a model: truth are the numbers of LAMMPS' own `lj/cut`."""

import io
import json

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from rich.console import Console

from mlplugins.checks.comparison import CompareOptions, Difference, LabelComparison, compare
from mlplugins.cli._comparison import show
from mlplugins.cli.main import main
from mlplugins.engines import lammps
from mlplugins.engines.lammps.output import read_dump
from mlplugins.model_file.artifact import load

from ..engines.lammps_tools import thermo
from ..simulation.argon import write_model

pytestmark = pytest.mark.usefixtures("native_build", "warm_start")
STRICT = {"energy": 1e-8, "forces": 1e-8, "stress": 1e-9}


def _frames():
    cells = [bulk("Ar", "fcc", a=a, cubic=True) for a in (5.2, 5.3, 5.5)]
    for k, atoms in enumerate(cells):
        atoms.rattle(0.1, seed=k)
    return [*cells, bulk("Ar", "fcc", a=5.3, cubic=True)[:3]]


def _stock(folder, frames):
    """The frames with what `lj/cut` gives: cubic cells, which LAMMPS does not turn."""
    lines = []
    for k, atoms in enumerate(frames):
        lammps.write_data(folder / f"{k}.lmp", atoms, ["Ar"])
        lines += ["clear", "units metal", "atom_style atomic", f"read_data {k}.lmp", "pair_style lj/cut 5.0"]
        lines += ["pair_coeff 1 1 0.0104 3.4", "compute p all pressure NULL virial"]
        lines += ["thermo_style custom step pe " + " ".join(f"c_p[{i}]" for i in range(1, 7))]
        lines += ["thermo_modify format float %.17g", f"dump 1 all custom 1 {k}.dump id fx fy fz"]
        lines += ["dump_modify 1 format float %.17g sort id", "run 0"]
    tables = thermo(folder, lines)
    for k, (atoms, table) in enumerate(zip(frames, tables, strict=True)):
        bars = np.array([table[f"c_p[{i}]"][-1] for i in (1, 2, 3, 6, 5, 4)])  # Voigt
        forces = read_dump(folder / f"{k}.dump")[:, 1:]
        results = {"energy": float(table["PotEng"][-1]), "forces": forces, "stress": -bars / 1.6021765e6}
        atoms.calc = SinglePointCalculator(atoms, **results)
    return frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory, native_build):
    folder = tmp_path_factory.mktemp("against")
    write_model(folder / "model.pt", onset=1 - 1e-9)  # a plain truncation, as lj/cut has it
    frames = _stock(folder, _frames())
    ase.io.write(folder / "stock.extxyz", frames)
    for atoms in frames:
        found = atoms.calc.results
        atoms.info |= {
            "REF_energy": found["energy"] - 30.0 * len(atoms),
            "REF_stress": -160.21766 * found["stress"],
        }
        atoms.arrays["REF_forces"] = -found["forces"]
        atoms.calc = None
    ase.io.write(folder / "other.extxyz", frames)
    return folder


def test_every_engine_gives_the_numbers_of_lj_cut(folder):
    report = compare(
        folder / "model.pt", folder / "stock.extxyz", CompareOptions(ranks=(1, 2), tolerances=STRICT)
    )
    assert report.passed
    assert report.explanations == ()
    assert {(row.engine, row.ranks, row.quantity, row.n_structures) for row in report.rows} == {
        (engine, ranks, quantity, 4)
        for engine, ranks in (("ase", 1), ("ipi", 1), ("lammps", 1), ("lammps", 2))
        for quantity in STRICT
    }
    assert all(row.rms <= row.largest for row in report.rows)


def test_what_is_different_is_measured_and_explained(folder, tmp_path, capsys):
    words = ["check", f"{folder}/model.pt", "--against", f"{folder}/other.extxyz", "--engines", "ase"]
    words += ["--keys", "stress=REF_stress"]  # others are recognised, but not stress that large
    assert main([*words, "--json", f"{tmp_path}/a.json"]) == 0  # nothing was asked for
    said = capsys.readouterr().out
    assert "energy: labels − model = -30 eV per atom in every frame" in said
    assert "forces: labels = −1 × model; the sign is the opposite (gradients" in said
    assert "stress: labels = −160.2 × model; they are in GPa" in said
    record = json.loads((tmp_path / "a.json").read_text())
    energy, forces, _ = record["against"]
    assert energy["largest"] == pytest.approx(30.0, abs=1e-7)
    assert energy["rms"] == pytest.approx(30.0, abs=1e-7)
    stored = np.concatenate([atoms.get_forces() for atoms in ase.io.read(folder / "stock.extxyz", ":")])
    assert forces["largest"] == pytest.approx(2 * np.abs(stored).max(), abs=1e-7)
    assert forces["rms"] == pytest.approx(2 * np.sqrt(np.mean(stored**2)), abs=1e-7)
    k = int(np.abs(stored).max(axis=1).argmax()) // 4
    assert forces["where"].endswith(f"other.extxyz, frame {k}")

    assert main([*words, "--tolerance", "energy=30.001", "forces=0.001"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any("energy" in line and "passed" in line for line in lines)
    assert any("forces" in line and "FAILED" in line for line in lines)


def test_the_table_fits_80_columns(folder):
    """No number, unit or verdict is cut, however long the name of the worst frame."""
    unit = {"energy": "eV/atom", "forces": "eV/Å", "stress": "eV/Å³"}
    where = "a_long_name_of_frames.extxyz@1111"
    differ = [(name, 1.234e-3, 4.2e-4, unit[name], 12345, where, 1e-3) for name in unit]
    rows = tuple(Difference("lammps", 2, "exchange", *values) for values in differ)
    out = io.StringIO()
    show(LabelComparison(load(folder / "model.pt"), rows), Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert "…" not in out.getvalue()
    for name in unit:
        (row,) = [line for line in lines if line.strip().startswith(f"{name}, {unit[name]} ")]
        assert row.split()[-4:] == ["12345", "1.23e-03", "4.20e-04", "FAILED"]
        assert f"{name}: largest difference in {where}" in lines


def test_an_engine_that_cannot_run_fails_with_the_remedy(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLPLUGINS_CACHE", str(tmp_path / "empty"))
    words = ["--against", f"{folder}/stock.extxyz@:1", "--engines", "ase", "lammps"]
    assert main(["check", f"{folder}/model.pt", *words]) == 1
    said = capsys.readouterr().out
    assert "run `mlplugins build`" in said
    assert "1 of 1 frames failed" in said


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "expected either STRUCTURE … or --against FILE"),
        (["stock.extxyz", "--against", "stock.extxyz"], "expected either STRUCTURE … or --against FILE"),
        (["stock.extxyz", "--tolerance", "energy=1"], "--tolerance has no meaning without --against"),
        (["--against", "stock.extxyz", "--md"], "--md has no meaning with --against"),
        (["--against", "none.extxyz"], "no such data file: 'none.extxyz'"),
        (["--against", "stock.extxyz", "--tolerance", "energy=low"], "LABEL=X with a number X"),
        (["--against", "stock.extxyz", "--tolerance", "energy"], "--tolerance: expected LABEL=X"),
        (["--against", "stock.extxyz", "--tolerance", "force=1"], "did you mean 'forces'?"),
        (["--against", "stock.extxyz", "--keys", "energy=E9"], "E9"),
        (["--against", "stock.extxyz", "--engines", "lamps"], "did you mean 'lammps'?"),
    ],
)
def test_wrong_use_gives_2(folder, monkeypatch, capsys, words, text):
    monkeypatch.chdir(folder)
    assert main(["check", "model.pt", *words]) == 2
    shown = capsys.readouterr()
    assert text in shown.err
    assert shown.out == ""
