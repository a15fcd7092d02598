"""Label structures with energy, forces and stress, by a code that a YAML names.

example:
  mlplugins label frames.extxyz --config labels.yaml -o labelled.extxyz

  labels.yaml:
    kind: cp2k                 # emt, tblite, calculator, model, cp2k, espresso, command, files
    input: cp2k.inp            # keys of the kind: docs/labels.md
    command: cp2k.psmp
    timeout: 3600              # s, of one attempt
    parallel: 2                # structures at the same time
    retries: [{set: {FORCE_EVAL/DFT/SCF/MAX_SCF: 200}}]     # other settings for those that fail

Every structure has a folder in the store (default: the output with .labels), named after its content, with
the files of every attempt. The same command continues after a kill; nothing is computed twice. With `jobs: N`
a script for a scheduler is written instead, and the same command continues when the jobs are done.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mlplugins import files
from mlplugins.cli import _common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins label`."""
    parser.add_argument(
        "data", nargs="+", help="structures: files that ASE reads; file@::10 takes every tenth"
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="YAML", help="the code and its settings"
    )
    parser.add_argument(
        "-o", "--output", type=_common.OutputFile, required=True, help="extended XYZ file to write"
    )
    parser.add_argument("--store", type=_common.OutputFolder, metavar="DIR", help="folder of the labels")
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Label; 0 if all structures have a label, 1 if some have none (yet)."""
    from mlplugins.cli import _display
    from mlplugins.labels import label

    console = _common.console()
    path = _common.existing_file(str(args.config))
    with _display.Bar(console, "labelling") as bar:
        found = label(args.data, path, args.output, args.store, bar)
    _print(console, found, args.output)
    files.write_json(args.json, found.record())
    return 1 if found.failed or found.waiting else 0


def _print(console: Any, found: Any, output: Path) -> None:
    record = found.record()
    if found.waiting:
        how = f"submit {found.script}" if found.script else f"put results into the folders in {found.store}"
        console.print(f"waiting for {found.waiting} labels: {how}, then the same command", soft_wrap=True)
    for item in found.failed:
        console.print(f"no label ({item['attempts']} attempts): {item['reason']}", soft_wrap=True)
        console.print(f"  {item['folder']}", soft_wrap=True)
    codes = ", ".join(record["codes"])
    count = f"{record['n_labelled']} labelled" + (f" by {codes}" if codes else "")
    console.print(f"{count}, {len(found.failed)} failed; {record['cpu_s']:.1f} CPU-s", soft_wrap=True)
    if not found.waiting:
        console.print(f"{output}", soft_wrap=True)
