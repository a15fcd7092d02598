"""A model.pt as an archive, read and verified without running any of its code.

A model.pt is a program: loading it runs what its author wrote. So everything that can be known from the bytes
(damage, format, metadata) is looked at first, here, with the standard library alone.
"""

from __future__ import annotations

import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ase.data import atomic_numbers

from mlplugins import __version__, files
from mlplugins.errors import BadInput
from mlplugins.model_file import format
from mlplugins.structures.state import CHARGE, SPIN

NAME = "model.pt"
"""In the folder of a run."""

_CHUNK = 1 << 20
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)
"""What `zipfile` raises on entries that are not as they were written."""


class Library(NamedTuple):
    """A TorchScript extension that was loaded when the file was written."""

    name: str
    path: str


class Entries(NamedTuple):
    """Entries of mlplugins in the metadata of a model.

    Attributes:
        format: version of these entries.
        family: model family.
        cutoff: range of one layer, Å.
        exchange_width: widest feature row exchanged between layers, 0: none.
        dtype: `float32` or `float64`, in which the model computes; None: the precision of its inputs.
        record: hyper-parameters, training record, versions, baseline.
        inputs: `charge`, `spin_multiplicity` → lowest and highest value, of a model that takes them.
    """

    format: int
    family: str
    cutoff: float
    exchange_width: int
    dtype: str | None
    record: dict[str, Any]
    inputs: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Archive:
    """A model file as its metadata describe it.

    Attributes:
        path: the file.
        versions: versions of `torch` and `metatomic` that wrote it.
        extensions: TorchScript extensions that it was written with, and libraries that those need.
        name: title of the model.
        references: papers to cite, by kind.
        authors: of the model.
        date: when mlplugins wrote the file, `YYYY-MM-DD` by the clock of that machine; None in the files of
            others.
        entries: what mlplugins wrote; None in the files of others. A wrapper keeps the entries of the model
            inside it, so they say nothing of who wrote the outermost module.
    """

    path: Path
    versions: dict[str, str]
    extensions: tuple[Library, ...]
    name: str
    references: dict[str, list[str]]
    authors: tuple[str, ...]
    date: str | None
    entries: Entries | None

    def failed(self, reason: str) -> BadInput:
        """Error for a file that does not load, with the versions that wrote it."""
        import torch
        from metatomic.torch import __version__ as metatomic_version

        return BadInput(
            f"'{self.path}' does not load: {reason}. It was written with torch {self.versions['torch']} and "
            f"metatomic {self.versions['metatomic']}; here are torch {torch.__version__} and metatomic "
            f"{metatomic_version}: copy the file again, install its versions (or newer), or export it again"
        )


def fingerprint(path: Path) -> str:
    """Tells two files apart by the checksums in their directories, in a millisecond.

    Raises:
        BadInput: no archive (any more).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sums = [(entry.filename.partition("/")[2], entry.CRC) for entry in archive.infolist()]
    except _DAMAGE as error:
        raise BadInput(f"'{path}' is not a model file any more ({error}): copy it again") from error
    return f"{zlib.crc32(repr(sums).encode()):08x}"


def read_archive(path: Path) -> Archive:
    """Verify all checksums of a model file, and read its metadata; no code of it is run.

    Args:
        path: the file, or the folder of a run that holds it as `model.pt`.

    Raises:
        BadInput: missing, truncated, damaged or foreign file, metadata that make no sense, a newer format.
    """
    path = files.in_folder(path, NAME)
    if not path.is_file():
        raise BadInput(
            f"'{path}' is a folder without a {NAME}: name the model file, or the folder of a finished run"
            if path.is_dir()
            else f"no such model file: '{path}'"
        )
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGE as error:
        raise BadInput(
            f"'{path}' is not a model file, or it is truncated ({path.stat().st_size} bytes): expected the "
            "model.pt that `mlplugins train`, `convert` or `export` writes, or another metatomic model"
        ) from error
    with archive:
        sums, texts = _verified(path, archive)
        date = _date(archive)
    if "extra/metatomic-version" not in texts:
        raise BadInput(
            f"'{path}' is an archive but not a metatomic model: expected a model.pt, got perhaps a "
            "checkpoint; `mlplugins convert` or `mlplugins export` turn one into a model.pt"
        )
    found = _description(path, texts, date)
    changed = _changed(sums, texts.get(format.MANIFEST))
    if changed:
        raise found.failed(f"its entry '{changed}' is not the one that was exported (stored checksum)")
    return found


def layers(interaction_range: float, cutoff: float) -> int:
    """Neighbour lists of `cutoff` in a row that a model of ours reaches over; 1 for one of a whole molecule.

    The number of message-passing layers, but for a sum: a deep term of a shorter cutoff has more.

    >>> layers(10.0, 5.0), layers(26.0, 18.0), layers(3 * 1.1, 1.1)
    (2, 2, 3)
    """
    # round-off must not add a layer
    return 1 if math.isinf(interaction_range) else max(1, math.ceil(interaction_range / cutoff - 1e-9))


def is_ours(name: str) -> bool:
    """Whether a TorchScript class of this name is the module that mlplugins writes.

    >>> is_ours("__torch__.mlplugins.model_file.module.___torch_mangle_7.MetatomicModel")
    True
    """
    return re.sub(r"___torch_mangle_\d+\.", "", name) in (format.MODULE, format.MODULE_BEFORE_4)


def _verified(path: Path, archive: zipfile.ZipFile) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """CRC-32 and size of every entry, read to its end, and the text of those under `extra/`."""
    sums: dict[str, tuple[int, int]] = {}
    texts: dict[str, str] = {}
    for info in archive.infolist():
        name = info.filename.partition("/")[2]
        if info.compress_type not in _METHODS:
            raise _damaged(
                path, info.filename, f"its compression, number {info.compress_type}, is none of torch's"
            )
        if name in sums:
            raise _damaged(path, info.filename, "it is there twice")
        if name.startswith("extra/") and info.file_size > path.stat().st_size:
            raise _damaged(
                path, info.filename, f"it announces {info.file_size} bytes, more than the file has"
            )
        try:
            with archive.open(info) as stream:  # which compares the CRC-32 at the end
                if name.startswith("extra/"):
                    texts[name] = stream.read().decode("utf-8", "replace")
                else:
                    while stream.read(_CHUNK):
                        pass
        except _DAMAGE as error:
            raise _damaged(path, info.filename, str(error) or type(error).__name__) from error
        sums[name] = info.CRC, info.file_size
    return sums, texts


def _date(archive: zipfile.ZipFile) -> str | None:
    """Of our list of checksums, which is written last; torch gives its own entries no time."""
    times = [i.date_time for i in archive.infolist() if i.filename.partition("/")[2] == format.MANIFEST]
    return "{:04d}-{:02d}-{:02d}".format(*times[0]) if times else None


def _damaged(path: Path, entry: str, reason: str) -> BadInput:
    return BadInput(
        f"'{path}' is damaged (entry '{entry}': {reason}): copy it again, or export the model again"
    )


def _changed(sums: dict[str, tuple[int, int]], manifest: str | None) -> str:
    """The first entry that differs from the stored list; empty if none does, or none is stored."""
    if manifest is None:
        return ""
    lines = {
        f"{crc:08x} {size} {name}": name for name, (crc, size) in sums.items() if name != format.MANIFEST
    }
    different = set(manifest.splitlines()) ^ set(lines)
    return min((line.split(" ", 2)[-1] for line in different), default="")


def _description(path: Path, texts: dict[str, str], date: str | None) -> Archive:
    def parse(name: str, kind: type) -> Any:
        return _json(path, f"extra/{name}", texts.get(f"extra/{name}", ""), kind)

    metadata = parse("model-metadata", dict)
    extra = metadata.get("extra", {})
    references = metadata.get("references", {})
    authors = metadata.get("authors", [])
    sound = (
        isinstance(authors, list)
        and isinstance(extra, dict)
        and all(isinstance(value, str) for value in extra.values())
    )
    sound &= isinstance(references, dict) and all(isinstance(items, list) for items in references.values())
    libraries = parse("extensions-deps", list) + parse("extensions", list)
    sound &= all(isinstance(item, dict) and isinstance(item.get("name"), str) for item in libraries)
    if not sound:
        raise _damaged(path, "extra/model-metadata", "not the metadata of a metatomic model")
    return Archive(
        path=path,
        versions={
            "torch": texts.get("extra/torch-version", "?"),
            "metatomic": texts["extra/metatomic-version"],
        },
        extensions=tuple(Library(item["name"], str(item.get("path", ""))) for item in libraries),
        name=str(metadata.get("name", "")),
        references={kind: [str(item) for item in items] for kind, items in references.items()},
        authors=tuple(map(str, authors)),
        date=date,
        entries=_entries(path, extra) if format.FORMAT in extra else None,
    )


def _json(path: Path, entry: str, text: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, entry, f"no JSON, {error}" if text else "missing or empty") from error
    if not isinstance(value, kind):
        raise _damaged(
            path, entry, f"expected a JSON {'object' if kind is dict else 'list'}, got {text[:60]!r}"
        )
    return value


def _entries(path: Path, extra: dict[str, str]) -> Entries:
    number = extra[format.FORMAT]
    readable = number.isascii() and number.isdigit() and len(number) < 9
    if not (readable and 1 <= int(number) <= format.NEWEST):
        record = _json_or_nothing(extra.get(format.RECORD, ""))
        raise BadInput(
            f"'{path}' has format {number[:20]} (written by mlplugins {_writer(record)}), but mlplugins "
            f"{__version__} reads up to format {format.NEWEST}: `pip install --upgrade mlplugins`, or export "
            "the model again here"
        )

    def value(key: str, convert: Callable[[str], Any], valid: Callable[[Any], bool], expected: str) -> Any:
        text = extra.get(key)
        try:
            found = None if text is None else convert(text)
        except ValueError:
            found = None
        if found is None or not valid(found):
            got = "nothing" if text is None else repr(text[:60])
            raise _damaged(path, key, f"expected {expected}, got {got}")
        return found

    record = _json(path, format.RECORD, extra.get(format.RECORD, ""), dict)
    _check_record(path, record)
    dtype = extra.get(format.DTYPE)
    if dtype is not None:
        value(format.DTYPE, str, lambda name: name in ("float32", "float64"), "float32 or float64")
    return Entries(
        format=int(number),
        family=value(format.FAMILY, str, bool, "the name of a model family"),
        cutoff=value(format.CUTOFF, float, lambda r: 0.0 < r < 1e4, "a length in Å"),
        exchange_width=value(format.EXCHANGE_WIDTH, int, lambda n: 0 <= n < 10**6, "a number of features"),
        dtype=dtype,
        record=record,
        inputs={
            name: value(key, _range, lambda ends: ends[0] <= ends[1], "the lowest and the highest value")
            for name, key in ((CHARGE, format.CHARGE), (SPIN, format.SPIN))
            if not extra.get(key, "=").startswith("=")
        },
    )


def _range(text: str) -> tuple[float, float]:
    low, high = text.split()
    return float(low), float(high)


def _check_record(path: Path, record: dict[str, Any]) -> None:
    elements, baseline = record.get("elements"), record.get("baseline_eV")
    if not isinstance(elements, list) or not all(
        isinstance(symbol, str) and symbol in atomic_numbers for symbol in elements
    ):
        raise _damaged(path, format.RECORD, "'elements' is no list of chemical symbols")
    if not isinstance(baseline, list) or len(baseline) != len(elements):
        raise _damaged(path, format.RECORD, "'baseline_eV' is no list of one energy per element")
    if not all(isinstance(e, int | float) and math.isfinite(e) for e in baseline):
        raise _damaged(path, format.RECORD, f"'baseline_eV' holds other things than energies: {baseline}")


def _json_or_nothing(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _writer(record: Any) -> str:
    versions = record.get("versions") if isinstance(record, dict) else None
    return str(versions.get("mlplugins", "newer")) if isinstance(versions, dict) else "newer"
