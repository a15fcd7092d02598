"""Entry point of `mlplugins VERB …`: finds and imports the command's file, maps errors to exit codes."""

from __future__ import annotations

import argparse
import errno
import io
import os
import signal
import sys
import textwrap
import traceback
from collections.abc import Sequence
from pathlib import Path

import mlplugins
from mlplugins import registry
from mlplugins.cli import _common
from mlplugins.errors import BadInput, Interrupted, MlpluginsError, nearest

PACKAGE = "mlplugins.cli"
HIDDEN = ("main",)
TRACEBACK = "MLPLUGINS_TRACEBACK"
"""Environment variable: internal errors end in Python's traceback."""
COMPLETING = "_ARGCOMPLETE"
"""Environment variable: a shell asks for completions."""
WRONG_NAME = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES}
WIDTH = 79

OTHER_WORDS = {
    **dict.fromkeys(("install", "compile", "make"), "build"),
    **dict.fromkeys(("neb", "migration", "saddle", "transition-state"), "barrier"),
    **dict.fromkeys(("validate", "verify", "parity"), "check"),
    **dict.fromkeys(("ensemble", "combine", "average"), "committee"),
    **dict.fromkeys(("analyze", "analyse", "analysis", "msd", "diffusion", "report"), "conductivity"),
    **dict.fromkeys(("import", "load", "download"), "convert"),
    **dict.fromkeys(("status", "env", "version", "diagnose"), "doctor"),
    **dict.fromkeys(("test", "eval", "predict", "inference", "errors"), "evaluate"),
    **dict.fromkeys(("deploy", "freeze", "package"), "export"),
    **dict.fromkeys(("finetuning", "transfer", "retrain"), "finetune"),
    **dict.fromkeys(("show", "describe", "inspect", "print"), "info"),
    **dict.fromkeys(("driver", "serve", "ipi", "socket"), "ipi-driver"),
    **dict.fromkeys(("sample", "subset", "fps"), "select"),
    **dict.fromkeys(("spectrum", "ir", "raman", "infrared", "vdos", "dipole"), "spectra"),
    **dict.fromkeys(("heat", "kappa", "heat-flux"), "thermal"),
    **dict.fromkeys(("md", "run", "dynamics", "npt", "nvt"), "simulate"),
    **dict.fromkeys(("fit", "training"), "train"),
    **dict.fromkeys(("active", "al", "dpgen", "explore"), "learn"),
    **dict.fromkeys(("dft", "annotate", "singlepoint"), "label"),
    **dict.fromkeys(("llpr", "uq", "confidence", "calibrate"), "uncertainty"),
}
"""What else a command may be called, in other packages or by guess."""

START = """\
usage: mlplugins VERB …     (mlplugins help VERB: its options and an example)

first steps
  is everything installed?     mlplugins doctor
  a published model            mlplugins convert CHECKPOINT -o model.pt
  or a model of your own       mlplugins train config.yaml
  what is in a model.pt?       mlplugins info model.pt
  is it physical?              mlplugins check model.pt structure.extxyz
  molecular dynamics           mlplugins simulate md.yaml -o runs
  ionic conductivity           mlplugins conductivity runs
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; exit codes: 0 it worked, 1 it ran and failed, 2 wrong use, 128 + N: signal N."""
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
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, Interrupted) else signal.SIGINT
        return _fail("interrupted", 128 + number)
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
    if COMPLETING in os.environ:
        _complete()
    if words[:1] in (["help"], ["-h"], ["--help"]):
        words = [*words[1:2], "--help"] if words[1:] else []
        if not words:
            print(_overview())
            return 0
    if not words:
        print(_overview())
        return 2
    if words[0] in ("-V", "--version"):
        print(f"mlplugins {mlplugins.__version__}")
        return 0
    name, rest = words[0], words[1:]
    names = registry.available(PACKAGE, HIDDEN)
    if name not in names:
        known_as = OTHER_WORDS.get(name.lower(), "")
        raise BadInput(f"unknown command '{name}': {nearest(name, names, known_as)}; see `mlplugins help`")
    command = registry.load(PACKAGE, name, "command", HIDDEN)
    parser = _common.Parser(
        prog=f"mlplugins {name}",
        description=command.__doc__,
        formatter_class=_common.HelpFormatter,
    )
    command.add_arguments(parser)
    args = parser.parse_args(rest)
    _common.require_outputs(args)
    return int(command.run(args))


def _overview() -> str:
    names = registry.available(PACKAGE, HIDDEN)
    left = max(map(len, names), default=0) + 4
    lines = [START, "all verbs"]
    for name in names:
        text = registry.summary(PACKAGE, name)
        first = f"  {name:<{left - 2}}"
        lines.append(textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=" " * left))
    return "\n".join(lines)


def _complete() -> None:
    """Answer the shell, which `mlplugins completion` has told to ask, and end."""
    import argcomplete

    parser = argparse.ArgumentParser(prog="mlplugins")
    verbs = parser.add_subparsers()
    for name in registry.available(PACKAGE, HIDDEN):
        command = registry.load(PACKAGE, name, "command", HIDDEN)
        command.add_arguments(verbs.add_parser(name, help=registry.summary(PACKAGE, name)))
    verbs.add_parser("help").add_argument("verb", choices=registry.available(PACKAGE, HIDDEN))
    argcomplete.autocomplete(parser)


if __name__ == "__main__":
    sys.exit(main())
