"""Structures evaluated by i-PI with our driver: real processes, as in a run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlplugins.engines.base import Way
from mlplugins.engines.ipi.program import driver_file
from mlplugins.engines.ipi.xyz import upright, write_xyz
from mlplugins.errors import MissingDependency, MlpluginsError, RunFailed
from mlplugins.quantities import QUANTITIES, Results

if TYPE_CHECKING:  # torch: `mlplugins doctor` works without
    from mlplugins.model_file.artifact import Artifact

Array = NDArray[np.float64]
FFDIRECT, SOCKET = "ffdirect", "socket"
TIMEOUT_S = 600.0
THREADS = {"OMP_NUM_THREADS": "1"}


def ways(model: Artifact, structures: Sequence[Atoms], ranks: Sequence[int]) -> list[Way]:
    """All structures in one process with `ffdirect`; the first one through a unix socket as well."""
    return [Way(tuple(range(len(structures))), detail=FFDIRECT), Way((0,), detail=SOCKET)]


def single_points(model: Artifact, structures: Sequence[Atoms], way: Way) -> list[Results | MlpluginsError]:
    """By i-PI's own objects, in a process of its own."""
    if util.find_spec("ipi") is None:
        return [MissingDependency("i-PI is not installed: pip install 'mlplugins[ipi]'")] * len(structures)
    try:
        return [*_process(model, structures, way.detail == SOCKET)]
    except MlpluginsError as error:
        if len(structures) == 1:
            return [error]
    # one bad structure ends the whole process: ask for each alone
    return [outcome for structure in structures for outcome in single_points(model, [structure], way)]


def _process(model: Artifact, structures: Sequence[Atoms], socket: bool) -> list[Results]:
    turned = [upright(atoms) for atoms in structures]
    with tempfile.TemporaryDirectory(prefix="mlplugins-ipi-") as name:
        folder = Path(name)
        for k, (atoms, _) in enumerate(turned):
            write_xyz(folder / f"{k}.xyz", atoms)
            atoms.write(folder / f"{k}.extxyz", columns=["symbols", "positions"])
        address = folder.name if socket else None
        (folder / "input.xml").write_text(_input(model, len(turned), address), encoding="utf-8")
        commands = [[sys.executable, "-m", "mlplugins.engines.ipi._evaluate", "input.xml", "results.npz"]]
        if socket:
            driver = [sys.executable, "-m", "mlplugins.cli.main", "ipi-driver", str(model.path), "0.extxyz"]
            driver += ["--variant", model.energy_output]
            commands.append([*driver, "--unix", folder.name, "--device", model.device])
        _run(commands, folder)
        with np.load(folder / "results.npz") as results:
            names = model.energies
            return [
                _result(results, k, atoms, turned[k].rotation, names) for k, atoms in enumerate(structures)
            ]


def _result(
    results: Mapping[str, Array], k: int, given: Atoms, rotation: Array, energies: Sequence[str]
) -> Results:
    from mlplugins.engines.ipi import extras  # needs i-PI

    stress = None
    if given.pbc.all():
        upper = np.triu(results[f"virial_{k}"])  # the triangle that i-PI uses
        virial = upper + np.triu(upper, 1).T
        stress = rotation @ (-virial / given.get_volume()) @ rotation.T
    sent = results.get(f"extras_{extras.ENERGIES}_{k}", ())
    more = {name: np.asarray(value / extras.ELECTRONVOLT) for name, value in zip(energies, sent)}
    for name, quantity in QUANTITIES.items():
        value = results.get(f"extras_{quantity.ipi}_{k}")
        if value is not None:
            more[name] = quantity.turned(extras.of_atomic_units(name, value, len(given)), rotation)
    found = {"energy": float(results[f"energy_{k}"]), "forces": results[f"forces_{k}"] @ rotation.T}
    return Results.of({**found, "stress": stress, **more})


def _input(model: Artifact, count: int, address: str | None) -> str:
    """One system per structure, atoms that do not move; a socket for the first, or `ffdirect` for each."""
    forces, systems = [], []
    for k in range(count):
        if address is not None:
            forces.append(
                f"<ffsocket name='f{k}' mode='unix' pbc='False'><address>{address}</address>"
                "<exit_on_disconnect> True </exit_on_disconnect></ffsocket>"
            )
        else:
            parameters = f"model:{model.path},template:{k}.extxyz,device:{model.device}"
            parameters += f",variant:{model.energy_output}"
            parameters += ",energies:on" if len(model.energies) > 1 else ""
            parameters += ",bec:on" if "born_effective_charges" in model.more else ""
            forces.append(
                f"<ffdirect name='f{k}' pbc='False'><pes>custom</pes><pes_path>{driver_file()}</pes_path>"
                f"<parameters>{{{parameters}}}</parameters></ffdirect>"
            )
        systems.append(
            f"<system prefix='s{k}'><initialize nbeads='1'><file mode='xyz'> {k}.xyz </file></initialize>"
            f"<forces><force forcefield='f{k}'/></forces><motion mode='dummy'/>"
            "<ensemble><temperature units='kelvin'> 300 </temperature></ensemble></system>"
        )
    body = "".join(forces) + "".join(systems)
    head = "<output prefix='out'></output><total_steps>1</total_steps><prng><seed>1</seed></prng>"
    return f"<simulation verbosity='low'>{head}{body}</simulation>"


def _run(commands: Sequence[Sequence[str]], folder: Path) -> None:
    """Run processes side by side until the first ends; all are gone afterwards.

    Raises:
        RunFailed: the first one failed, or took too long; the text ends with what was said last.
    """
    logs = [folder / f"{k}.log" for k in range(len(commands))]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for command, log in zip(commands, logs):
            with log.open("wb") as stream:
                environment = {**os.environ, **THREADS}
                processes.append(
                    subprocess.Popen(command, cwd=folder, env=environment, stdout=stream, stderr=stream)
                )
        deadline = time.monotonic() + TIMEOUT_S
        while processes[0].poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
            if any(process.poll() for process in processes[1:]):
                break
        status = processes[0].poll()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if status != 0:
        raise RunFailed(f"i-PI failed: {_last_words(logs)}")


def _last_words(logs: Sequence[Path]) -> str:
    lines = [
        line.strip() for log in logs for line in log.read_text(errors="replace").splitlines() if line.strip()
    ]
    errors = [line for line in lines if "error" in line.lower()]
    return " | ".join(errors[-2:] or lines[-2:]) or "no output"
