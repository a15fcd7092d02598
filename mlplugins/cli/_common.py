"""Shared by several commands: outputs tested before the work, `--json`, the console."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mlplugins import files
from mlplugins.errors import BadInput, nearest

if TYPE_CHECKING:
    from rich.console import Console


class Parser(argparse.ArgumentParser):
    """Wrong arguments are wrong input: one sentence with the nearest right one, exit code 2."""

    def parse_args(self, args: Sequence[str], namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse; an option that does not exist is named with the nearest one."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            options = [name for action in self._actions for name in action.option_strings if name[:2] == "--"]
            named = next((word for word in unknown if word.startswith("-")), None)
            if named is None:
                self.error(f"'{unknown[0]}': one argument too many")
            self.error(f"unknown option '{named}': {nearest(named.partition('=')[0], options)}")
        return found

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found."""
        choice = re.search(r"^argument (.+): invalid choice: '(.*)' \(choose from (.+)\)$", message)
        if choice is not None:
            option, word, valid = choice.groups()
            names = [name.strip("' ") for name in valid.split(",")]
            message = f"argument {option}: '{word}': {nearest(word, names)}"
        raise BadInput(f"{message}; see `{self.prog} --help`")


class HelpFormatter(argparse.HelpFormatter):
    """Docstrings as they are, but for paragraphs that are wider than the terminal: those are filled anew."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines: list[str] = []
        for plain, group in itertools.groupby(text.splitlines(), lambda line: line[:1].strip() != ""):
            block = list(group)
            if plain and max(map(len, block)) > width:
                block = textwrap.wrap(" ".join(block), width)
            lines += block
        return "\n".join(indent + line for line in lines)


class Items(argparse.Action):
    """Values of an option, or a last argument, that takes several, with spaces or commas between them.

    Args:
        item: makes of each text what is meant.
    """

    def __init__(self, *args: Any, item: Callable[[str], Any] = str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.item = item

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        """Store the items as a list."""
        words = [
            word
            for value in values
            for word in ([value] if files.exists(value) else value.split(","))
            if word.strip()
        ]
        try:
            found = [self.item(word.strip()) for word in words]
        except ValueError:
            kind = "whole numbers" if self.item is int else "numbers"
            parser.error(f"{option_string}: expected {kind}, got '{' '.join(values)}'")
        if not found:
            parser.error(f"{option_string}: expected at least one value")
        setattr(namespace, self.dest, found)


class OutputFile(type(Path())):  # type: ignore[misc]
    """`type=` of an argument that names a file to write: `require_outputs` tries it before the work."""


class OutputFolder(type(Path())):  # type: ignore[misc]
    """As `OutputFile`, of a folder that files are written to."""


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json FILE`, the machine-readable result."""
    parser.add_argument(
        "--json", type=OutputFile, metavar="FILE", help="write the result as JSON (see docs/json.md)"
    )


def add_keys(parser: argparse.ArgumentParser) -> None:
    """Add `--keys LABEL=NAME …`, for data files whose labels have names of their own."""
    parser.add_argument(
        "--keys",
        nargs="+",
        action=Items,
        default=[],
        metavar="LABEL=NAME",
        help="names in the files, e.g. energy=energy_xtb",
    )


def named(option: str, words: Sequence[str], what: str = "NAME") -> dict[str, str]:
    """What `LABEL=…` words give to each label.

    >>> named("--keys", ["energy=E0"])
    {'energy': 'E0'}
    >>> named("--keys", "polarizability=a:A^3:xx,yy,zz,yz,xz,xy".split(","))  # as `Items` has parted it
    {'polarizability': 'a:A^3:xx,yy,zz,yz,xz,xy'}
    """
    found: dict[str, str] = {}
    label = ""
    for word in words:
        if re.fullmatch("[xyz]{2}", word) and found.get(label, "").count(":") == 2:
            found[label] += f",{word}"
            continue
        label, _, value = word.partition("=")
        if not value:
            raise BadInput(f"{option}: expected LABEL={what}, got '{word}'")
        found[label] = value
    return found


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
            if path.is_file() and any(path.samefile(name) for name in _read(getattr(args, other))):
                raise BadInput(f"{named[name]} {outputs[name]}: an input, which would be overwritten")


def _read(value: Any) -> Iterator[str]:
    """Files that an argument names, and those named by configurations among them."""
    from mlplugins import config  # pydantic: for commands with an output that exists

    for name in files.named_in(value):
        yield name
        if name.endswith((".yaml", ".yml")):
            with contextlib.suppress(BadInput):  # refused by the command, in its own words
                yield from files.named_in(config.read_yaml(Path(name), "keys"), Path(name).parent)


def console(quiet: bool = False) -> Console:
    """The console for tables and progress (stderr is left to errors); brackets in text are text."""
    from rich.console import Console  # `mlplugins --version` does without

    return Console(soft_wrap=False, markup=False, emoji=False, quiet=quiet)


def existing_file(text: str, *names: str) -> Path:
    """The path of a file that exists (to be called in `run`: argparse would hide the text); in the place of
    a folder that of the first of `names` in it.

    >>> existing_file("no/such/file")
    Traceback (most recent call last):
    ...
    mlplugins.errors.BadInput: no such file: 'no/such/file'
    """
    path = files.in_folder(text, *names)
    if files.exists(path, file=True):
        return path
    if files.exists(path):
        without = f" without {' or '.join(names)}" if names else ""
        raise BadInput(f"'{text}' is a folder{without}; expected a file")
    raise BadInput(f"no such file: '{text}'")
