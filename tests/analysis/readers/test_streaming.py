"""What every reader shares: memory that does not depend on the length, numbers read to the last bit."""

import gzip
import tracemalloc
import warnings

import ase.io
import numpy as np
import pytest
from ase import Atoms

from mlplugins.analysis.readers._text import Lines, ReadOptions, Table, Truncated
from mlplugins.analysis.trajectory import read_frames
from mlplugins.errors import BadInput

ATOMS = 400
FORMATS = ("a.dump", "a.dump.gz", "a.ipi.xyz", "a.extxyz", "a.traj", "XDATCAR", "a.xtc")


def frames(count):
    random = np.random.default_rng(0)
    for _ in range(count):
        yield Atoms(f"Li{ATOMS // 2}S{ATOMS // 2}", 20 * random.random((ATOMS, 3)), cell=[20.0] * 3, pbc=True)


def text(name, count):
    """A file of a format as its program writes it, as text."""
    for number, atoms in enumerate(frames(count)):
        rows = list(zip(atoms.symbols, atoms.positions.tolist()))
        if name == "dump":
            yield f"ITEM: TIMESTEP\n{number}\nITEM: NUMBER OF ATOMS\n{ATOMS}\nITEM: BOX BOUNDS pp pp pp\n"
            yield "0 20\n0 20\n0 20\nITEM: ATOMS id element x y z\n"
            yield "".join(f"{i + 1} {s} {x:.6g} {y:.6g} {z:.6g} \n" for i, (s, (x, y, z)) in enumerate(rows))
        elif name == "ipi":
            yield f"{ATOMS}\n# CELL(abcABC): 20 20 20 90 90 90  Step: {number}  Bead: 0 positions{{angstrom}}"
            yield "  cell{angstrom}\n"
            yield "".join(f"{s:>8s} {x:12.5e} {y:12.5e} {z:12.5e}\n" for s, (x, y, z) in rows)
        else:
            half = ATOMS // 2
            if number == 0:
                yield f"title\n1.0\n20 0 0\n0 20 0\n0 0 20\nLi S\n{half} {half}\n"
            yield f"Direct configuration= {number}\n"
            yield "".join(f"{x / 20:12.8f}{y / 20:12.8f}{z / 20:12.8f}\n" for _, (x, y, z) in rows)


def write(folder, name, count):
    path = folder / name
    if name.endswith(("extxyz", "traj")):
        ase.io.write(path, frames(count))
    elif name.endswith("xtc"):
        mda = pytest.importorskip("MDAnalysis")
        universe = mda.Universe.empty(ATOMS, trajectory=True)
        universe.add_TopologyAttr("names", next(frames(1)).get_chemical_symbols())
        universe.dimensions = [20, 20, 20, 90, 90, 90]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            universe.atoms.write(str(folder / "top.gro"))
            with mda.Writer(str(path), ATOMS, dt=0.1) as writer:
                for atoms in frames(count):
                    universe.atoms.positions = atoms.positions
                    writer.write(universe.atoms)
    else:
        kind = "dump" if "dump" in name else "ipi" if "ipi" in name else "xdatcar"
        whole = "".join(text(kind, count)).encode()
        path.write_bytes(gzip.compress(whole) if name.endswith("gz") else whole)
    return path


def peak(path, folder, count):
    options = ReadOptions(topology=folder / "top.gro")
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert sum(len(frame.positions) for frame in read_frames(path, options)) == count * ATOMS
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_memory_does_not_depend_on_the_length(tmp_path, name):
    """Eight times the frames: whole, the longer file is 4 MB of positions, ten times the limit."""
    short, long = 50, 400
    path = write(tmp_path, name, short)
    peak(path, tmp_path, short)  # imports and caches
    least = peak(path, tmp_path, short)
    assert peak(write(tmp_path, name, long), tmp_path, long) < least + 400_000


def test_numbers_are_read_to_the_last_bit():
    """What LAMMPS prints with %g, %.17g and %e, and what it prints when a run blows up."""
    random = np.random.default_rng(1)
    values = np.concatenate([random.normal(size=3000), 10.0 ** random.uniform(-300, 300, 3000), [0.0, -0.0]])
    for form in ("{:.17g}", "{:.6g}", "{:.10e}", "{:+.16f}"):
        words = [form.format(value) for value in values]
        block = "".join(f"7 {word}\n" for word in words).encode()
        found = Table(2, [1], None).parse(block, len(words), "here").values[0]
        assert np.array_equal(found, np.array([float(word) for word in words]))
    odd = Table(1, [0], None).parse(b"nan\n-inf\n.5\n+1.\n007\n1E5\n", 6, "here").values[0]
    assert np.array_equal(odd, [np.nan, -np.inf, 0.5, 1.0, 7.0, 1e5], equal_nan=True)
    for bad in (b"1,2\n", b"true\n", b"null\n", b'"5"\n', b"[1]\n", b"0x10\n"):
        with pytest.raises(BadInput, match="here: .*expected numbers"):
            Table(1, [0], None).parse(bad, 1, "here")


def test_columns_that_change_are_read_again():
    table = Table(3, [2], names=1, ids=0)
    first = table.parse(b"1 Li 0.5\n2 S 1\n", 2, "here")
    same = table.parse(b"1 Li 1.5\n2 S 2\n", 2, "here")
    assert same.names is first.names
    assert same.ids is first.ids
    swapped = table.parse(b"2 S 3\n1 Li 4\n", 2, "here")
    assert swapped.names.tolist() == ["S", "Li"]
    assert swapped.ids.tolist() == [2, 1]
    assert swapped.values.tolist() == [[3, 4]]


def test_lines_can_be_given_back(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntwo\nthree\nfour\nend")
    with path.open("rb") as stream:
        lines = Lines(stream, path)
        block = lines.take(3, "here")
        lines.back(len(block) - block.index(b"wo"))
        assert [lines.one("here") for _ in range(5)] == [b"wo\n", b"three\n", b"four\n", b"end", b""]
        with pytest.raises(Truncated):
            lines.take(1, "here")


def test_a_damaged_compressed_file_is_named(tmp_path):
    whole = gzip.compress("".join(text("dump", 40)).encode())
    path = tmp_path / "a.dump.gz"
    path.write_bytes(whole[: len(whole) // 2] + bytes(200) + whole[len(whole) // 2 + 200 :])
    with pytest.raises(BadInput, match=r"a\.dump\.gz"):
        list(read_frames(path))
