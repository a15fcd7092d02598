"""Compressed files, recognised by their first bytes: gzip, bzip2, xz, lzma, zstd, lz4."""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import IO, Any

from mlplugins.errors import MissingDependency

Unpack = Callable[[IO[bytes]], AbstractContextManager[Any]]
ZSTD_MODULES = ("compression.zstd", "backports.zstd")
CUT = ("premature", "unfinished", "truncated", "unexpected end")


def unpacker(raw: IO[bytes]) -> Unpack | None:
    """Function that unpacks a file, None if it is not compressed; the file is left at its beginning."""
    start = raw.read(6)
    raw.seek(0)
    return next((unpack for magic, unpack in MAGIC.items() if start.startswith(magic)), None)


def _zstd(raw: IO[bytes]) -> AbstractContextManager[Any]:
    """By Python where it can, else by the program that LAMMPS writes .zst files with."""
    for name in ZSTD_MODULES:
        try:
            return importlib.import_module(name).open(raw, "rb")
        except ImportError:
            continue
    return _program("zstd", raw)


@contextmanager
def _program(name: str, raw: IO[bytes]) -> Iterator[IO[bytes]]:
    os.lseek(raw.fileno(), 0, os.SEEK_SET)  # the program reads below Python's buffer
    try:
        process = subprocess.Popen([name, "-dcq"], stdin=raw, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        more = ", or: pip install backports.zstd" if name == "zstd" else ""
        raise MissingDependency(
            f"the file is packed by {name}, and that program is not there; install it{more}, "
            "or unpack the file"
        ) from error
    with process:
        try:
            yield io.BufferedReader(_Unpacked(process))
        finally:
            process.kill()


class _Unpacked(io.RawIOBase):
    """What a program unpacks; its failure is an error rather than an end."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        out, err = self._process.stdout, self._process.stderr
        if out is not None and (count := out.readinto1(buffer)):  # type: ignore[attr-defined]
            return int(count)
        if self._process.wait():
            text = err.read().decode("utf-8", "replace").strip() if err is not None else ""
            raise (EOFError if any(word in text.lower() for word in CUT) else OSError)(text)
        return 0


MAGIC: dict[bytes, Unpack] = {
    b"\x1f\x8b\x08": partial(gzip.open, mode="rb"),
    b"BZh": partial(bz2.open, mode="rb"),
    b"\xfd7zXZ": partial(lzma.open, mode="rb"),
    b"]\x00\x00": partial(lzma.open, mode="rb"),
    b"\x28\xb5\x2f\xfd": _zstd,
    b"\x04\x22\x4d\x18": partial(_program, "lz4"),
}
