"""Malformed trajectories end in one sentence that names the place; other quantities are no positions."""

import bz2
import importlib.util
import lzma
import shutil
import subprocess

import numpy as np
import pytest

from mlplugins.analysis.readers._comment import parse
from mlplugins.analysis.trajectory import ReadSettings, read_trajectory
from mlplugins.errors import BadInput

SETTINGS = ReadSettings("Li", timestep_fs=2.0)
DUMP = (
    "ITEM: TIMESTEP\n{n}\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS pp pp pp\n0 10\n0 10\n0 10\n"
    "ITEM: ATOMS id element xu yu zu\n1 Li {x} 1 1\n2 S 5 5 5\n"
)
EXTXYZ = (
    '2\nLattice="10 0 0 0 10 0 0 0 10" Properties=species:S:1:pos:R:3 Step={n} pbc="T T T"\n'
    "Li {x} 1 1\nS 5 5 5\n"
)
IPI = (
    "2\n# CELL(abcABC): 10.0 10.0 10.0 90.0 90.0 90.0  Step: {n}  Bead: 0 positions{{angstrom}} "
    "cell{{angstrom}}\nLi {x} 1 1\nS 5 5 5\n"
)
XDATCAR = "title\n1.0\n10 0 0\n0 10 0\n0 0 10\nLi S\n1 1\nDirect configuration= {n}\n0.{n} .1 .1\n.5 .5 .5\n"


def text(frame, count=5):
    return "".join(frame.format(n=10 * k, x=1 + 0.1 * k) for k in range(count))


def read(path, content, interval=None):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_trajectory([path], ReadSettings("Li", timestep_fs=2.0, interval=interval))


@pytest.mark.parametrize("frame", [DUMP, EXTXYZ, IPI, XDATCAR])
def test_whole_files_are_read(tmp_path, frame):
    run = read(tmp_path / "a", text(frame), 10 if frame is XDATCAR else None)
    assert (run.n_frames, run.interval_fs) == (5, 20.0)


DAMAGED = [
    (DUMP, "0 10\n0 10\n0 10", "0 nan\n0 10\n0 10", "the box .* is not one; expected finite numbers"),
    (DUMP, "0 10\n0 10\n0 10", "0 inf\n0 10\n0 10", "the box .* is not one"),
    (DUMP, "0 10\n0 10\n0 10", "10 0\n0 10\n0 10", "the lower bound first"),
    (DUMP, "0 10\n0 10\n0 10", "0 0\n0 10\n0 10", "no cell, or one without volume"),
    (DUMP, "0 10\n0 10\n0 10", "0 10 0 0 0\n0 10\n0 10", "cannot read the box"),
    (DUMP, "0 10\n0 10\n0 10", "0 ten\n0 10\n0 10", "cannot read 'ITEM: BOX BOUNDS"),
    (DUMP, "ATOMS\n2\n", "ATOMS\n99999999999999999999\n", r"announces 1e\+20 atoms .* cannot hold"),
    (DUMP, "ATOMS\n2\n", "ATOMS\n1000000\n", r"announces 1e\+06 atoms of 5 columns"),
    (DUMP, "ATOMS\n2\n", "ATOMS\n0\n", "announces 0 atoms"),
    (DUMP, "ATOMS\n2\n", "ATOMS\n-2\n", "announces -2 atoms"),
    (DUMP, "ATOMS\n2\n", f"ATOMS\n{'9' * 5000}\n", "cannot read 'ITEM: NUMBER OF ATOMS'"),
    (DUMP, "TIMESTEP\n20\n", "TIMESTEP\n99999999999999999999\n", "expected a 64-bit number of steps"),
    (DUMP, "TIMESTEP\n20\n", "TIMESTEP\ntwenty\n", "cannot read 'ITEM: TIMESTEP'"),
    (DUMP, "1 Li 1.2 1 1", "1 Li here 1 1", "step 20: .*expected numbers"),
    (DUMP, "1 Li 1.2 1 1", "1 Li nan 1 1", "frame 3: positions are not finite"),
    (DUMP, "1 Li 1.2 1 1", "1 Li 1e300 1 1", "moves by .* at once"),
    (DUMP, "1 Li 1.2 1 1", "one Li 1.2 1 1", "expected numbers"),
    (DUMP, "xu yu zu", "fx fy fz", "no positions among the columns"),
    (EXTXYZ, "10 0 0 0 10 0 0 0 10", "10 0 0 0 10 0 0 0", "Lattice of 8 numbers .*; expected 9"),
    (EXTXYZ, "10 0 0 0 10 0 0 0 10", "10 0 0 0 ten 0 0 0 10", "Lattice .*could not convert"),
    (EXTXYZ, "10 0 0 0 10 0 0 0 10", "10 0 0 0 nan 0 0 0 10", "Lattice .*expected finite numbers"),
    (EXTXYZ, "10 0 0 0 10 0 0 0 10", "10 0 0 0 10 0 0 0 0", "no cell, or one without volume"),
    (EXTXYZ, "Step=20", "Step=twenty", "Step 'twenty': .*expected numbers"),
    (EXTXYZ, "Step=20", "Step=2.5", "Step=2.5; expected a whole number"),
    (EXTXYZ, "Step=20", "Step=1e40", "Step=1e40; expected a whole number of at most 64 bits"),
    (EXTXYZ, "T T T", "T T maybe", "pbc 'T T maybe'; expected three of T and F"),
    (EXTXYZ, "pos:R:3", "pos:R:x", "expected name:type:columns"),
    (EXTXYZ, "pos:R:3", "pos:R:2", r"expected species and pos \(3 columns\)"),
    (EXTXYZ, "pos:R:3", "forces:R:3", "expected species and pos"),
    (EXTXYZ, "pos:R:3", "vel:R:3", "expected species and pos"),
    (EXTXYZ, "\n2\nL", f"\n{'9' * 5000}\nL", "expected the number of atoms"),
    (EXTXYZ, "\n2\nL", "\n999999999999\nL", r"announces 1e\+12 atoms"),
    (EXTXYZ, "Li 1.2", "Li x", "frame 3: .*expected numbers"),
    (IPI, "90.0 90.0 90.0", "0.0 90.0 90.0", "expected lengths above zero and angles between 0 and 180"),
    (IPI, "90.0 90.0 90.0", "180.0 90.0 90.0", "angles between 0 and 180"),
    (IPI, "90.0 90.0 90.0", "10.0 90.0 170.0", "no cell has the angles 10.0 90.0 170.0"),
    (IPI, "10.0 10.0 10.0", "0.0 10.0 10.0", "lengths above zero"),
    (IPI, "10.0 10.0 10.0", "10.0 10.0 1e999", "expected finite numbers"),
    (IPI, "10.0 10.0 10.0", "10.0 ten 10.0", r"cannot read the cell in .*\(1 numbers\)"),
    (IPI, "positions{angstrom}", "forces{ev/ang}", "holds 'forces', not positions"),
    (IPI, "positions{angstrom}", "velocities{m/s}", "holds 'velocities', not positions"),
    (IPI, "positions{angstrom}", "v_centroid{atomic_unit}", "holds 'v_centroid', not positions"),
    (IPI, "positions{angstrom}", "momenta{}", "holds 'momenta', not positions"),
    (IPI, "positions{angstrom}", "positions{parsec}", "unknown unit of length 'parsec'"),
    (XDATCAR, "1.0\n10 0 0", "nan\n10 0 0", "make no cell; expected finite numbers"),
    (XDATCAR, "1.0\n10 0 0", "0\n10 0 0", "make no cell"),
    (XDATCAR, "10 0 0\n0 10 0", "10 0 0\n10 0 0", "make no cell"),
    (XDATCAR, "10 0 0\n0 10 0", "10 x 0\n0 10 0", "cannot read the header"),
    (XDATCAR, "Li S\n1 1", "Li S\n1 -1", "expected whole numbers above zero"),
    (XDATCAR, "Li S\n1 1", "Li S\n1 999999999999999999999", "cannot hold"),
    (XDATCAR, ".5 .5 .5", ".5 here .5", "expected numbers"),
]


@pytest.mark.parametrize(("frame", "old", "new", "message"), DAMAGED)
def test_damaged_files_are_refused_by_name(tmp_path, frame, old, new, message):
    content = text(frame)
    assert old in content
    with pytest.raises(BadInput, match=message) as caught:
        read(tmp_path / "a", content.replace(old, new), 10 if frame is XDATCAR else None)
    assert str(tmp_path / "a") in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("frame", [DUMP, EXTXYZ])
def test_names_that_are_no_text_are_refused(tmp_path, frame):
    with pytest.raises(BadInput, match="names in UTF-8"):
        read(tmp_path / "a", text(frame).encode().replace(b"Li", b"\xff\xfe"))


@pytest.mark.long
@pytest.mark.parametrize("frame", [DUMP, EXTXYZ, IPI, XDATCAR])
def test_frames_cut_in_the_middle_are_dropped(tmp_path, frame):
    """At every byte: either fewer frames and a warning, or a refusal; never other numbers."""
    content = text(frame, 4)
    interval = 10 if frame is XDATCAR else None
    whole = read(tmp_path / "a", content, interval).displacements
    refusals = []
    for end in range(len(content) // 2, len(content)):
        try:
            run = read(tmp_path / "a", content[:end], interval)
        except BadInput as error:
            refusals.append(str(error))
            continue
        assert run.n_frames < 4
        np.testing.assert_array_equal(run.displacements, whole[: run.n_frames])
    assert all(str(tmp_path / "a") in message for message in refusals)


@pytest.mark.parametrize("frame", [DUMP, EXTXYZ, IPI, "Direct configuration= {n}\n0.{n} .1 .1\n.5 .5 .5\n"])
def test_a_frame_cut_by_the_next_one_is_dropped(tmp_path, frame):
    title = XDATCAR[: XDATCAR.index("Direct")] if "Direct" in frame else ""
    content, frames = text(frame, 5), text(frame, 4).rindex("\n", 0, -1) + 1  # three and a half
    run = read(
        tmp_path / "a", title + content[:frames] + content[len(text(frame, 3)) :], 10 if title else None
    )
    assert run.n_frames == 5
    assert "is cut by the next one" in run.warnings[0]


COMMENTS = [
    'stress="1 2 3 4 5 6"',
    'virial="1 2 3 4 5 6 7 8 9"',
    'virial="a b c d e f"',
    "stress=[[1, 2, 3], [4, 5, 6], [7, 8, 9]]",
    "tags={a b c} comment='it has = signs' flag",
    'note="quoted \\"words\\" and Lattice of 8"',
    "energy=-1.5e3 config_type=md",
    "weights=[1,2,3]",
]


@pytest.mark.parametrize("extra", COMMENTS)
def test_comment_lines_may_hold_anything_else(tmp_path, extra):
    plain = read(tmp_path / "a", text(EXTXYZ))
    for place in ("Lattice", "pbc", "Step"):
        content = text(EXTXYZ).replace(f"{place}=", f"{extra} {place}=")
        np.testing.assert_array_equal(read(tmp_path / "b", content).displacements, plain.displacements)


def test_an_origin_in_the_comment_is_the_corner_of_the_cell():
    found = parse('Lattice="9 0 0 0 9 0 0 0 9" Origin="-4.5 0 1"', "here")
    assert found.origin.tolist() == [-4.5, 0.0, 1.0]
    with pytest.raises(BadInput, match="expected 3 numbers"):
        parse('Lattice="9 0 0 0 9 0 0 0 9" Origin="1 2"', "here")


def test_steps_of_other_programs(tmp_path):
    for key in ("step", "Step", "Timestep"):
        assert read(tmp_path / "a", text(EXTXYZ).replace("Step=", f"{key}=")).interval_fs == 20.0


def test_type_labels_are_elements_or_refused(tmp_path):
    labelled = text(DUMP).replace("element", "typelabel")
    assert read(tmp_path / "a", labelled).n_ions == 1
    (tmp_path / "b").write_text(labelled)
    assert read_trajectory([tmp_path / "b"], ReadSettings("Li", 2.0, type_map=("Li", "S"))).n_ions == 1
    with pytest.raises(BadInput, match="type label 'opls_135' is no element"):
        read(tmp_path / "a", labelled.replace("Li", "opls_135"))


def _zstd(data):
    return subprocess.run(["zstd", "-q"], input=data, stdout=subprocess.PIPE, check=True).stdout


PACKERS = {"bz2": bz2.compress, "xz": lzma.compress, "zst": _zstd}


@pytest.mark.parametrize("name", PACKERS)
def test_packed_files(tmp_path, name):
    if name == "zst" and not shutil.which("zstd"):
        pytest.skip("needs the program zstd")
    content = text(DUMP, 90).encode()
    packed = PACKERS[name](content)
    run = read(tmp_path / "a", packed)
    np.testing.assert_array_equal(run.displacements, read(tmp_path / "b", content).displacements)
    (tmp_path / "a").write_bytes(packed[: len(packed) // 2])
    try:
        short = read_trajectory([tmp_path / "a"], SETTINGS).n_frames
    except BadInput:
        short = 0  # one block: nothing of it can be unpacked
    assert short < 90
    with pytest.raises(BadInput, match="damaged|cannot be read|cut"):
        read(tmp_path / "a", packed[:20] + b"\x55" * 40 + packed[60:])


def test_a_program_that_is_not_there_is_named(tmp_path, monkeypatch):
    if any(importlib.util.find_spec(name) for name in ("compression", "backports")):
        pytest.skip("Python unpacks zstd itself")
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "a").write_bytes(b"\x28\xb5\x2f\xfd" + b"\0" * 40)
    with pytest.raises(ImportError, match="packed by zstd, and that program is not there"):
        read_trajectory([tmp_path / "a"], SETTINGS)


def test_columns_of_vasp_that_have_grown_together(tmp_path):
    """Fixed format: a minus sign takes the place of the space (pymatgen's pull request 4323)."""
    grown = text(XDATCAR).replace(".5 .5 .5", "-0.50000000-0.25000000 -0.12500000")
    spaced = text(XDATCAR).replace(".5 .5 .5", "-0.50000000 -0.25000000 -0.12500000")
    runs = [read(tmp_path / "a", content, 10) for content in (grown, spaced)]
    np.testing.assert_array_equal(runs[0].displacements, runs[1].displacements)


def test_no_cell_and_no_periods_keeps_d(tmp_path):
    content = text(EXTXYZ).replace('Lattice="10 0 0 0 10 0 0 0 10" ', "").replace("T T T", "F F F")
    run = read(tmp_path / "a", content)
    np.testing.assert_allclose(
        run.displacements, read(tmp_path / "b", text(EXTXYZ)).displacements, atol=1e-12
    )
    assert "not periodic along a, b and c" in run.warnings[0]


def test_a_title_is_no_compressed_file(tmp_path):
    """An XDATCAR of BZO begins with the letters of bzip2."""
    assert read(tmp_path / "XDATCAR", text(XDATCAR).replace("title", "BZO"), 10).n_frames == 5
