"""Entry point of `mlplugins VERB …`: finds and imports the command's file, maps errors to exit codes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from mlplugins import __version__, registry
from mlplugins.errors import BadInput, MlpluginsError, nearest

PACKAGE = "mlplugins.cli"
HIDDEN = ("main",)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; exit codes: 0 it worked, 1 it ran and failed, 2 wrong use."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except MlpluginsError as error:
        print(f"mlplugins: error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `mlplugins info model.pt | head` closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("mlplugins: interrupted", file=sys.stderr)
        return 130


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"mlplugins {__version__}")
        return 0
    name, rest = words[0], words[1:]
    names = registry.available(PACKAGE, HIDDEN)
    if name not in names:
        raise BadInput(f"unknown command '{name}': {nearest(name, names)}")
    command = registry.load(PACKAGE, name, "command", HIDDEN)
    parser = argparse.ArgumentParser(
        prog=f"mlplugins {name}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    return int(command.run(parser.parse_args(rest)))


def _overview() -> str:
    names = registry.available(PACKAGE, HIDDEN)
    width = max(map(len, names), default=0)
    rows = [f"  {name:<{width}}  {registry.summary(PACKAGE, name)}" for name in names]
    title = "usage: mlplugins VERB …   (mlplugins VERB --help shows an example)\n"
    return "\n".join([title, *rows])


if __name__ == "__main__":
    sys.exit(main())
