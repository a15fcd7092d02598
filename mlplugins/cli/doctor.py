"""Report what is wrong with this installation, and the remedy of every fault.

Checks the Python packages, MPI, the compiler, the native code (current, stale or missing) and, by
starting `lmp`, that the LAMMPS plug-in loads. Exit code 0 if the machine is healthy, 1 otherwise.

Example:
    mlplugins doctor
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

from rich.table import Table

from mlplugins import files
from mlplugins.cli._common import add_json, console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from mlplugins.checks.installation import diagnose
    from mlplugins.engines.findings import FAULT

    rows = list(diagnose())
    healthy = all(row.status != FAULT for row in rows)
    table = Table(box=None, pad_edge=False)
    for heading in ("", "check", "found", "remedy"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(row.status, row.name, row.found, row.remedy)
    console().print(table, markup=False, highlight=False)
    files.write_json(args.json, {"healthy": healthy, "checks": [asdict(row) for row in rows]})
    return 0 if healthy else 1
