"""Shared by several commands: outputs tested before the work, `--json`, the console."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mlplugins import files
from mlplugins.errors import BadInput

if TYPE_CHECKING:
    from rich.console import Console


class Parser(argparse.ArgumentParser):
    """Wrong arguments are wrong input like any other: one sentence, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found."""
        raise BadInput(f"{message}; see `{self.prog} --help`")


class OutputFile(type(Path())):  # type: ignore[misc]
    """`type=` of an argument that names a file to write: `require_outputs` tries it before the work."""


class OutputFolder(type(Path())):  # type: ignore[misc]
    """As `OutputFile`, of a folder that files are written to."""


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json FILE`, the machine-readable result."""
    parser.add_argument(
        "--json", type=OutputFile, metavar="FILE", help="write the result as JSON (see docs/json.md)"
    )


def require_outputs(args: argparse.Namespace) -> None:
    """Refuse outputs that cannot be written, or that would replace an input or each other.

    Raises:
        BadInput: naming the option.
    """
    named = {name: f"--{name.replace('_', '-')}" for name in vars(args)} | {"output": "-o"}
    outputs = {n: v for n, v in vars(args).items() if isinstance(v, OutputFile | OutputFolder)}
    for name, value in outputs.items():
        files.require_writable(Path(value), named[name], folder=isinstance(value, OutputFolder))
    written = {n: v.resolve() for n, v in outputs.items() if v.is_file() or not v.exists()}
    for name, path in written.items():
        for other, same in written.items():
            if other != name and same == path:
                raise BadInput(f"{named[name]} and {named[other]} name the same file: '{path}'")
        for other in vars(args).keys() - outputs.keys():
            if any(_is_same(path, word) for word in _words(getattr(args, other))):
                raise BadInput(f"{named[name]} {outputs[name]}: an input, which would be overwritten")


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, str | Path):
        yield str(value)
        yield str(value).rpartition("@")[0]
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _words(item)


def _is_same(path: Path, word: str) -> bool:
    return bool(word) and path.is_file() and files.exists(word) and path.samefile(word)


def console(quiet: bool = False) -> Console:
    """The console for tables and progress (stderr is left to errors); brackets in text are text."""
    from rich.console import Console  # `mlplugins --version` does without

    return Console(soft_wrap=False, markup=False, emoji=False, quiet=quiet)


def existing_file(text: str) -> Path:
    """The path of a file that exists (to be called in `run`: argparse would hide the text).

    >>> existing_file("no/such/file")
    Traceback (most recent call last):
    ...
    mlplugins.errors.BadInput: no such file: 'no/such/file'
    """
    if not files.exists(text, file=True):
        raise BadInput(f"no such file: '{text}'")
    return Path(text)
