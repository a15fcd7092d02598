"""A model file is verified before any of it runs: damage, metadata, libraries; old files."""

from __future__ import annotations

import json
import lzma
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import vesin
from ase.build import bulk

from mlplugins.cli.main import main
from mlplugins.errors import BadInput
from mlplugins.model_file.artifact import load
from mlplugins.model_file.format import MANIFEST

from .conftest import crystal

HERE = Path(__file__).parent


def data_start(whole: bytes, info: zipfile.ZipInfo) -> int:
    name, extra = struct.unpack("<HH", whole[info.header_offset + 26 : info.header_offset + 30])
    return info.header_offset + 30 + name + extra


def rewrite(
    source: Path, target: Path, change: Callable[[str, bytes], bytes], keep_list: bool = False
) -> Path:
    """Zip a model file anew with other contents and right checksums, with or without our list of them."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as copy:
        for item in archive.infolist():
            if keep_list or not item.filename.endswith(MANIFEST):
                copy.writestr(item.filename, change(item.filename, archive.read(item)))
    return target


def with_metadata(source: Path, target: Path, change: Callable[[dict[str, str]], None]) -> Path:
    def edit(name: str, data: bytes) -> bytes:
        if not name.endswith("extra/model-metadata"):
            return data
        metadata = json.loads(data)
        change(metadata["extra"])
        return json.dumps(metadata).encode()

    return rewrite(source, target, edit)


def test_one_flipped_bit_in_any_entry_is_refused(passing_model, tmp_path):
    whole = passing_model.read_bytes()
    with zipfile.ZipFile(passing_model) as archive:
        entries = [info for info in archive.infolist() if info.file_size]
    assert any(info.filename.endswith(MANIFEST) for info in entries)
    assert sum("/data/" in info.filename for info in entries) > 10
    for k, info in enumerate(entries):
        damaged = bytearray(whole)
        damaged[data_start(whole, info) + info.compress_size // 2] ^= 1 << (k % 8)
        (tmp_path / "m.pt").write_bytes(damaged)
        with pytest.raises(BadInput, match=r"m\.pt' is damaged \(entry '.*copy it again"):
            load(tmp_path / "m.pt")


def test_one_flipped_bit_in_the_directory_is_refused_or_harmless(argon_model, tmp_path):
    whole = argon_model.read_bytes()
    energy = load(argon_model).evaluate([crystal()])[0].energy
    first = whole.index(b"PK\1\2")
    accepted = 0
    for position in range(first, len(whole), 41):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        (tmp_path / "m.pt").write_bytes(damaged)
        try:
            found = load(tmp_path / "m.pt").evaluate([crystal()])[0].energy
        except BadInput:
            continue
        accepted += 1  # a date, or the version of the program that wrote the archive
        assert found == energy
    assert accepted < (len(whole) - first) / 41 / 2


def test_other_weights_with_right_checksums_are_refused(passing_model, tmp_path):
    def edit(name: str, data: bytes) -> bytes:
        return data[:-8] + struct.pack("<d", 0.5) if name.endswith("/data/12") else data

    assert load(rewrite(passing_model, tmp_path / "same.pt", lambda _, data: data, True)).family == "nequip"
    path = rewrite(passing_model, tmp_path / "m.pt", edit, keep_list=True)
    with pytest.raises(BadInput, match=r"entry 'data/12' is not the one that was exported"):
        load(path)


WRONG = {
    "format": ["", "0", "1.5", "-1", "one", "99", "9" * 400],
    "cutoff": [None, "", "nan", "inf", "-4", "0", "five", "1e300"],
    "exchange_width": [None, "1.5", "-1", "1e3", "9" * 30],
    "family": [None, ""],
    "dtype": ["float16"],
    "metadata": [
        None,
        "",
        "{",
        "[]",
        "[" * 5000,
        "{}",
        '{"elements": "Ar", "baseline_eV": [0]}',
        '{"elements": ["Ar"], "baseline_eV": []}',
        '{"elements": ["Ar"], "baseline_eV": [NaN]}',
        '{"elements": ["Ar"], "baseline_eV": ["0"]}',
        '{"elements": ["Qq"], "baseline_eV": [0]}',
    ],
}


@pytest.mark.parametrize("key", list(WRONG))
def test_metadata_that_make_no_sense_are_refused(argon_model, tmp_path, capsys, key):
    for value in WRONG[key]:

        def change(extra: dict[str, str], value: str | None = value) -> None:
            extra.pop(f"mlplugins::{key}", None)
            if value is not None:
                extra[f"mlplugins::{key}"] = value

        path = with_metadata(argon_model, tmp_path / "m.pt", change)
        with pytest.raises(BadInput, match="m.pt"):
            load(path)
        assert main(["info", str(path)]) == 2, value
        error = capsys.readouterr().err
        assert error.startswith("mlplugins: error: ")
        assert len(error.strip().splitlines()) == 1


def test_a_cutoff_that_the_model_does_not_ask_for_is_refused(argon_model, tmp_path):
    path = with_metadata(
        argon_model, tmp_path / "m.pt", lambda extra: extra.update({"mlplugins::cutoff": "4.0"})
    )
    with pytest.raises(BadInput, match="say a cutoff of 4 Å, but the model asks for neighbours within 6.5 Å"):
        load(path)


@pytest.mark.parametrize("record", ["extensions", "extensions-deps", "model-metadata"])
@pytest.mark.parametrize("text", [b"", b"nonsense", b"7", b'[{"path": 1}]', b"\xff\xfe"])
def test_records_that_are_no_json_are_refused(argon_model, tmp_path, record, text):
    def edit(name: str, data: bytes) -> bytes:
        return text if name.endswith(f"extra/{record}") else data

    with pytest.raises(BadInput, match=r"m\.pt' is damaged \(entry 'extra/"):
        load(rewrite(argon_model, tmp_path / "m.pt", edit))


def test_unknown_compression_and_doubled_entries_are_refused(argon_model, tmp_path):
    whole = bytearray(argon_model.read_bytes())
    entry = whole.index(b"PK\1\2")
    whole[entry + 10 : entry + 12] = struct.pack("<H", 99)
    (tmp_path / "method.pt").write_bytes(whole)
    with pytest.raises(BadInput, match="its compression, number 99"):
        load(tmp_path / "method.pt")
    path = shutil.copy(argon_model, tmp_path / "twice.pt")
    with zipfile.ZipFile(path, "a") as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data/0"))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(name, b"\0" * 8)
    with pytest.raises(BadInput, match="data/0': it is there twice"):
        load(path)


def test_info_runs_nothing_of_the_file(argon_model, tmp_path, capsys):
    """A program that cannot even be compiled is described like any other."""

    def edit(name: str, data: bytes) -> bytes:
        return b"def nonsense(" if name.endswith("lennard_jones.py") else data

    path = rewrite(argon_model, tmp_path / "m.pt", edit)
    with pytest.raises(BadInput, match="does not load"):
        load(path)
    assert main(["info", str(path), "--json", str(tmp_path / "i.json")]) == 0
    assert json.loads((tmp_path / "i.json").read_text())["family"] == "lennard-jones"
    capsys.readouterr()


def test_info_prints_what_a_file_says_as_it_is(argon_model, tmp_path, capsys):
    path = with_metadata(
        argon_model, tmp_path / "m.pt", lambda extra: extra.update({"mlplugins::family": "[/red][bold]x"})
    )
    assert main(["info", str(path)]) == 0
    assert "[/red][bold]x" in capsys.readouterr().out


LOADED = """
import sys
from mlplugins.model_file.artifact import load
model = load(sys.argv[1])
print(model.extensions, "libstranger.so" in open("/proc/self/maps").read())
"""


@pytest.mark.long
def test_libraries_are_loaded_from_named_directories_only(argon_model, tmp_path, monkeypatch):
    """metatomic's own loader opens the path in the file."""
    library = tmp_path / "libraries" / "libstranger.so"
    library.parent.mkdir()
    shutil.copy(next(Path(vesin.__file__).parent.rglob("libvesin.so")), library)

    def edit(name: str, data: bytes) -> bytes:
        text = json.dumps([{"name": "stranger", "path": str(library)}])
        return text.encode() if name.endswith("extra/extensions") else data

    path = rewrite(argon_model, tmp_path / "m.pt", edit)

    def run() -> str:
        command = [sys.executable, "-W", "ignore", "-c", LOADED, str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert run() == "('stranger',) False\n"
    monkeypatch.setenv("MLPLUGINS_EXTENSIONS", str(library.parent))
    assert run() == "('stranger',) True\n"
    monkeypatch.setenv("MLPLUGINS_EXTENSIONS", str(tmp_path / "nowhere"))
    with pytest.raises(BadInput, match="extensions: no such directory: '.*nowhere'"):
        load(path)


def test_an_extension_that_is_needed_and_missing_is_named(argon_model, tmp_path):
    def edit(name: str, data: bytes) -> bytes:
        if name.endswith("extra/extensions"):
            return b'[{"name": "stranger", "path": "/nowhere/libstranger.so"}]'
        return data.replace(b"torch.index_add", b"ops.stranger.index_add")

    with pytest.raises(
        BadInput, match=r"extension\(s\) stranger, which the file names, were not found.*MLPLUGINS"
    ):
        load(rewrite(argon_model, tmp_path / "m.pt", edit))


OLD = {
    # energy in eV, force on the first atom in eV/Å: as the program that wrote them evaluated them
    "float64": (-100880.81873965226, [-5.52011663730691, 3.0117000568416894, -2.044480611158053]),
    "float32": (-100880.82202148438, [-5.520096215574775, 3.0116873336966137, -2.044467120947502]),
}


@pytest.mark.parametrize("dtype", list(OLD))
def test_files_of_the_first_format_keep_their_numbers(tmp_path, dtype):
    """In float32 but for the rounding of per-atom energies, whose digits were 2⁻⁸ eV apart."""
    path = tmp_path / "model.pt"
    path.write_bytes(lzma.decompress((HERE / f"format1_{dtype}.pt.xz").read_bytes()))
    model = load(path)
    assert (model.dtype, model.family, model.elements) == (dtype, "lennard-jones", ("O", "Zn"))
    atoms = bulk("ZnO", "wurtzite", a=3.25, c=5.2)
    atoms.rattle(0.02, seed=1)
    result = model.evaluate([atoms])[0]
    energy, force = OLD[dtype]
    exact = OLD["float64"][0]
    assert result.energy == pytest.approx(energy, rel=0, abs=1e-9 if dtype == "float64" else 4 * 2.0**-9)
    assert result.energy == pytest.approx(exact, rel=0, abs=1e-9 if dtype == "float64" else 2e-5)
    np.testing.assert_allclose(result.forces[0], force, rtol=0, atol=1e-12 if dtype == "float64" else 1e-6)
