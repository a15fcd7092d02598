"""Energies, forces and stress of structures from the engines themselves: real LAMMPS and i-PI processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources, util
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlplugins.engines import lammps
from mlplugins.engines.ase.calculator import MLCalculator
from mlplugins.engines.ipi.xyz import upright, write_xyz
from mlplugins.errors import MissingDependency, MlpluginsError, RunFailed
from mlplugins.model_file.artifact import Artifact

Array = NDArray[np.float64]
TIMEOUT_S = 600.0
THREADS = {"OMP_NUM_THREADS": "1"}
IPI_DRIVER = "mlplugins_driver.py"


@dataclass(frozen=True)
class SinglePoint:
    """What an engine computed.

    Attributes:
        energy: eV.
        forces: (N, 3), eV/Å, in the frame of the structure that was given.
        stress: (3, 3), eV/Å³, same frame; None unless periodic in three directions.
        energies: (N,), eV; None if the engine was not asked.
    """

    energy: float
    forces: Array
    stress: Array | None
    energies: Array | None = None


Outcome = SinglePoint | MlpluginsError


def in_ase(model: Artifact, structures: Sequence[Atoms]) -> list[Outcome]:
    """Through `MLCalculator`."""
    calculator = MLCalculator(model.path, device=model.device)
    outcomes: list[Outcome] = []
    for structure in structures:
        atoms = structure.copy()
        atoms.calc = calculator
        try:
            stress = atoms.get_stress(voigt=False) if atoms.pbc.all() else None
            energies = atoms.get_potential_energies() if model.per_atom else None
            outcomes.append(SinglePoint(atoms.get_potential_energy(), atoms.get_forces(), stress, energies))
        except MlpluginsError as error:
            outcomes.append(error)
    return outcomes


def in_lammps(model: Artifact, structure: Atoms, ranks: int, mode: str) -> Outcome:
    """One structure through `lmp`, `run 0`."""
    try:
        keywords = f"device {model.device} mode {mode}"
        result = lammps.evaluate(model.path, structure, ranks=ranks, keywords=keywords)
    except MlpluginsError as error:
        return error
    return SinglePoint(result.energy, result.forces, result.stress)


def in_ipi(model: Artifact, structures: Sequence[Atoms], socket: bool = False) -> list[Outcome]:
    """Through i-PI: all structures in one process with `ffdirect`, or one structure through a unix socket."""
    if util.find_spec("ipi") is None:
        return [MissingDependency("i-PI is not installed: pip install 'mlplugins[ipi]'")] * len(structures)
    try:
        return [*_ipi_process(model, structures, socket)]
    except MlpluginsError as error:
        if len(structures) == 1:
            return [error]
    # one bad structure ends the whole process: ask for each alone
    return [outcome for structure in structures for outcome in in_ipi(model, [structure], socket)]


def _ipi_process(model: Artifact, structures: Sequence[Atoms], socket: bool) -> list[SinglePoint]:
    turned = [upright(atoms) for atoms in structures]
    with tempfile.TemporaryDirectory(prefix="mlplugins-ipi-") as name:
        folder = Path(name)
        for k, (atoms, _) in enumerate(turned):
            write_xyz(folder / f"{k}.xyz", atoms)
            atoms.write(folder / f"{k}.extxyz", columns=["symbols", "positions"])
        address = folder.name if socket else None
        (folder / "input.xml").write_text(_ipi_input(model, len(turned), address), encoding="utf-8")
        commands = [[sys.executable, "-m", "mlplugins.checks._ipi_single_point", "input.xml", "results.npz"]]
        if socket:
            driver = [sys.executable, "-m", "mlplugins.cli.main", "ipi-driver", str(model.path), "0.extxyz"]
            commands.append([*driver, "--unix", folder.name, "--device", model.device])
        _run(commands, folder)
        with np.load(folder / "results.npz") as results:
            return [_ipi_result(results, k, atoms, turned[k].rotation) for k, atoms in enumerate(structures)]


def _ipi_result(results: Mapping[str, Array], k: int, given: Atoms, rotation: Array) -> SinglePoint:
    stress = None
    if given.pbc.all():
        upper = np.triu(results[f"virial_{k}"])  # the triangle that i-PI uses
        virial = upper + np.triu(upper, 1).T
        stress = rotation @ (-virial / given.get_volume()) @ rotation.T
    return SinglePoint(float(results[f"energy_{k}"]), results[f"forces_{k}"] @ rotation.T, stress)


def _ipi_input(model: Artifact, count: int, address: str | None) -> str:
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
            forces.append(
                f"<ffdirect name='f{k}' pbc='False'><pes>custom</pes><pes_path>{_ipi_driver()}</pes_path>"
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


def _ipi_driver() -> Path:
    package = Path(str(resources.files("mlplugins")))
    for folder in (package / "ipi_drivers", package.parent / "ipi_drivers"):
        if (folder / IPI_DRIVER).is_file():
            return folder / IPI_DRIVER
    raise MissingDependency(f"'{IPI_DRIVER}' is not in this installation: reinstall 'mlplugins[ipi]'")


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
