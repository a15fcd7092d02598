"""Entry point of `mlplugins VERB …`: finds and imports the command's file, maps errors to exit codes."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import mlplugins
from mlplugins import registry
from mlplugins.cli import _common
from mlplugins.errors import BadInput, MlpluginsError, nearest

PACKAGE = "mlplugins.cli"
HIDDEN = ("main",)
TRACEBACK = "MLPLUGINS_TRACEBACK"
"""Environment variable: internal errors end in Python's traceback."""
WRONG_NAME = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; exit codes: 0 it worked, 1 it ran and failed, 2 wrong use."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):  # names of files need not be valid text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _dispatch(words)
    except MlpluginsError as error:
        return _fail(f"error: {error}", error.exit_code)
    except BrokenPipeError:  # `mlplugins info model.pt | head` closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except OSError as error:  # which names its file
        place = "" if error.filename is None else f"{error.filename}: "
        return _fail(f"error: {place}{error.strerror or error}", 2 if error.errno in WRONG_NAME else 1)
    except MemoryError:
        return _fail("error: not enough memory", 1)
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        return _fail(
            f"internal error: {type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno}); "
            f"please report it, with what the same command prints under {TRACEBACK}=1",
            1,
        )


def _fail(text: str, code: int) -> int:
    """Print one line: names and labels may hold line ends and terminal commands."""
    lines = text.splitlines() if code == 1 else [" ".join(text.split())]
    plain = "\n".join("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in lines)
    print(f"mlplugins: {plain}", file=sys.stderr)
    return code


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"mlplugins {mlplugins.__version__}")
        return 0
    name, rest = words[0], words[1:]
    names = registry.available(PACKAGE, HIDDEN)
    if name not in names:
        raise BadInput(f"unknown command '{name}': {nearest(name, names)}")
    command = registry.load(PACKAGE, name, "command", HIDDEN)
    parser = _common.Parser(
        prog=f"mlplugins {name}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    args = parser.parse_args(rest)
    _common.require_outputs(args)
    return int(command.run(args))


def _overview() -> str:
    names = registry.available(PACKAGE, HIDDEN)
    width = max(map(len, names), default=0)
    rows = [f"  {name:<{width}}  {registry.summary(PACKAGE, name)}" for name in names]
    title = "usage: mlplugins VERB …   (mlplugins VERB --help shows an example)\n"
    return "\n".join([title, *rows])


if __name__ == "__main__":
    sys.exit(main())
