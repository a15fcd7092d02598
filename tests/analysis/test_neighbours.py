"""Inputs and logs beside a trajectory say its time step: files of the programs themselves."""

import pytest

from mlplugins.analysis import neighbours
from mlplugins.analysis.trajectory import ReadSettings, read_trajectory
from tests.analysis.stock_lammps import run_lammps

DECK = """
log {log}
units {units}
lattice fcc {size}
region box block 0 2 0 2 0 2
create_box 1 box
create_atoms 1 box
mass 1 6.94
pair_style zero 3.0
pair_coeff * *
velocity all create 300 1
fix 1 all nve
variable name string md.dump
dump 1 all custom 5 ${{name}} id element x y z
dump_modify 1 element Li
{step}
run 20
{more}
"""


@pytest.mark.parametrize(
    ("units", "step", "told", "more", "said"),
    [
        ("metal", "timestep 0.002", 2.0, "", ""),
        ("metal", "timestep 0.002", 1.9, "", "a time step of 2 fs"),
        ("real", "variable t equal 0.5\ntimestep $t", 1.0, "", "a time step of 0.5 fs"),
        ("metal", "", 2.0, "", "a time step of 1 fs"),
        ("metal", "timestep 0.002", 1.0, "timestep 0.001\nrun 5", ""),  # which of them?
    ],
)
def test_the_log_of_a_dump(tmp_path, units, step, told, more, said):
    log = tmp_path / "log.lammps"
    run_lammps(DECK.format(log=log.name, units=units, size=4.0, step=step, more=more), tmp_path)
    run = read_trajectory([tmp_path / "md.dump"], ReadSettings("Li", timestep_fs=told, drift="none"))
    found = [text for text in run.warnings if "beside it says" in text]
    assert len(found) == bool(said), run.warnings
    assert not said or f"log.lammps beside it {said.replace('a time', 'says a time')}" in found[0]
    (tmp_path / "md.dump").rename(tmp_path / "other.dump")  # of another run, for all that one knows
    assert neighbours.doubts(tmp_path / "other.dump", 7.0) == []


IPI = """<simulation verbosity='low'>
  <output prefix='{prefix}'><trajectory filename='pos' stride='10'> positions </trajectory></output>
  <system><motion mode='dynamics'><dynamics mode='nvt'><timestep units='femtosecond'> 0.5 </timestep>
  </dynamics></motion></system></simulation>"""


@pytest.mark.parametrize(
    ("name", "file", "content", "told", "said"),
    [
        ("run.pos_0.xyz", "input.xml", IPI.format(prefix="run"), 0.5, None),
        ("run.pos_0.xyz", "input.xml", IPI.format(prefix="run"), 1.0, 0.5),
        ("run.pos_0.xyz", "input.xml", IPI.format(prefix="other"), 1.0, None),
        ("XDATCAR", "INCAR", "IBRION = 0 ; MDALGO = 2\n POTIM = 2.0 ! fs\n", 2.0, None),
        ("XDATCAR", "INCAR", "IBRION = 0\n POTIM = 2.0\n", 1.0, 2.0),
        ("XDATCAR", "INCAR", "IBRION = 2\n POTIM = 0.5\n", 1.0, None),  # a relaxation: no time
        ("XDATCAR", "INCAR", "IBRION = 0\n# POTIM = 0.5\n", 1.0, None),
        ("XDATCAR", "INCAR", "\xff\x00POTIM = \n", 1.0, None),
    ],
)
def test_inputs_of_ipi_and_vasp(tmp_path, name, file, content, told, said):
    (tmp_path / name).write_text("")
    (tmp_path / file).write_text(content, encoding="latin-1")
    found = neighbours.doubts(tmp_path / name, told)
    assert len(found) == (said is not None)
    assert not found or f"{file} beside it says a time step of {said:g} fs" in found[0]


@pytest.mark.parametrize(("each", "isif", "said"), [(False, 3, True), (True, 3, False), (False, 2, False)])
def test_cells_that_a_converter_has_lost(tmp_path, each, isif, said):
    head = "x\n1.0\n{a} 0 0\n0 {a} 0\n0 0 {a}\nLi S\n1 1\n"
    frames = (f"Direct configuration= {k}\n0.1 0.2 0.{k}\n0.5 0.5 0.5\n" for k in range(1, 9))
    text = "".join(
        (head.format(a=6 + 0.01 * k) if each or not k else "") + frame for k, frame in enumerate(frames)
    )
    (tmp_path / "XDATCAR").write_text(text)
    (tmp_path / "INCAR").write_text(f"IBRION = 0\nMDALGO = 3\nISIF = {isif}\nPOTIM = 2.0\n")
    settings = ReadSettings("Li", timestep_fs=2.0, interval=1, drift="none")
    run = read_trajectory([tmp_path / "XDATCAR"], settings)
    assert any("were the cells lost" in text for text in run.warnings) == said
