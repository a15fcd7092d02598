"""Time of the engines around a model: bare model call, ASE step, i-PI driver call, i-PI step.

    OMP_NUM_THREADS=1 python benchmarks/engine_overhead.py [--model model.pt] [--atoms 256] [--steps 60]

Without --model an untrained NequIP model (3 layers, 32 features, l ≤ 1, cutoff 5 Å) is written; its time is
that of a trained one. "Bare" is the model's forward and backward on systems and neighbour lists that are
ready: what the engines cannot avoid. Given is process CPU time, which with one thread is the time on an idle
machine; the variants take turns, step by step, on the same moving structure, so that other load meets all of
them alike. The i-PI step is the difference of two runs of i-PI, its integrator and output included.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ipi.utils.units import unit_to_internal

from mlplugins import MLCalculator
from mlplugins.cli.ipi_driver import driver_file
from mlplugins.engines.ipi.driver import MLDriver
from mlplugins.model_file import evaluate as evaluation
from mlplugins.model_file import runtime
from mlplugins.model_file.artifact import Artifact, load
from mlplugins.model_file.structure import prepare
from mlplugins.structures.graph import Graph

XML = """<simulation verbosity='medium'>
  <output prefix='out'><properties stride='1000' filename='md'>[step]</properties></output>
  <total_steps>{steps}</total_steps>
  <ffdirect name='ml'><pes>custom</pes><pes_path>{driver}</pes_path>
    <parameters>{{model: {model}, template: init.extxyz}}</parameters></ffdirect>
  <system>
    <initialize nbeads='1'><file mode='ase'>init.extxyz</file>
      <velocities mode='thermal' units='kelvin'>100</velocities></initialize>
    <forces><force forcefield='ml'/></forces>
    <motion mode='dynamics'>
      <dynamics mode='nve'><timestep units='femtosecond'>1</timestep></dynamics>
    </motion>
    <ensemble><temperature units='kelvin'>100</temperature></ensemble>
  </system>
</simulation>
"""


def write_model(path: Path) -> Path:
    """An untrained NequIP model of argon in float32."""
    from mlplugins.model_file.card import ModelCard
    from mlplugins.model_file.write import save
    from mlplugins.models import nequip

    torch.manual_seed(0)
    model = nequip.Model(["Ar"], nequip.Hyperparameters(cutoff=5.0))
    save(model, path, ModelCard("nequip", ["Ar"], [0.0]), "float32")
    return path


def structure(n_atoms: int, element: str) -> Atoms:
    """A rattled fcc crystal with 18 neighbours within 5 Å."""
    repeat = round((n_atoms / 4) ** (1 / 3))
    atoms = bulk(element, "fcc", a=4.6, cubic=True) * (repeat, repeat, repeat)
    atoms.rattle(0.1, seed=0)
    return atoms


def bare_call(model: Artifact, atoms: Atoms) -> Callable[[], None]:
    """Forward and backward with everything around it left out."""
    core = model._model
    if not isinstance(core, evaluation.EdgeGradientModel):
        raise SystemExit("the benchmark needs a model that mlplugins wrote")
    prepared = prepare(atoms, 0)
    pairs = evaluation.NeighborCache().pairs(0, prepared, core._cutoff, True)
    species = torch.zeros(len(atoms), dtype=torch.long)

    def call() -> None:
        with runtime.running():
            leaf = pairs.vectors.to(core._device, core._dtype).requires_grad_()
            start = time.process_time()
            graph = Graph(
                species, pairs.centers, pairs.neighbors, leaf, torch.zeros_like(species), len(atoms)
            )
            energy = core._program.predict(graph)["energy"]
            torch.autograd.grad(energy.sum(), leaf)
            times.append(time.process_time() - start)

    times: list[float] = []
    call.times = times  # type: ignore[attr-defined]
    return call


def timed(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def interleaved(path: Path, atoms: Atoms, steps: int) -> dict[str, np.ndarray]:
    """CPU seconds per step of the bare call, the ASE calculator and the i-PI driver, in turn."""
    model = load(path)
    random = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {"bare model": [], "ASE calculator": [], "i-PI driver call": []}
    with tempfile.TemporaryDirectory() as folder:
        template = str(Path(folder) / "init.extxyz")
        atoms.write(template)
        driver = MLDriver(model=str(path), template=template)
    atoms = atoms.copy()
    atoms.calc = MLCalculator(path)
    cell = unit_to_internal("length", "angstrom", np.asarray(atoms.cell).T)
    for _ in range(steps):
        atoms.positions += random.normal(0, 0.01, (len(atoms), 3))
        pos = unit_to_internal("length", "angstrom", atoms.positions)
        bare = bare_call(model, atoms)
        bare()
        seconds["bare model"].append(bare.times[0])  # type: ignore[attr-defined]
        seconds["ASE calculator"].append(timed(atoms.get_forces))
        seconds["i-PI driver call"].append(timed(lambda: driver(cell, pos)))  # noqa: B023
    return {name: np.array(values[5:]) for name, values in seconds.items()}


def ipi_step(path: Path, atoms: Atoms, steps: int) -> np.ndarray:
    """CPU seconds per step of i-PI with `ffdirect`, NVE: the difference of two runs, three times."""

    def cpu(folder: str, n: int) -> float:
        text = XML.format(steps=n, driver=driver_file(), model=path.absolute())
        (Path(folder) / "input.xml").write_text(text)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [Path(sys.executable).parent / "i-pi", "input.xml"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    with tempfile.TemporaryDirectory() as folder:
        atoms.write(Path(folder) / "init.extxyz")
        return np.array([(cpu(folder, steps + 5) - cpu(folder, 5)) / steps for _ in range(3)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path)
    parser.add_argument("--atoms", type=int, default=256)
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with tempfile.TemporaryDirectory() as folder:
        path = args.model or write_model(Path(folder) / "model.pt")
        atoms = structure(args.atoms, load(path).elements[0])
        lists = evaluation.NeighborCache()
        n_edges = len(lists.pairs(0, prepare(atoms, 0), load(path).cutoff, True).vectors)
        print(
            f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} thread(s), "
            f"torch {torch.__version__}, {len(atoms)} atoms, {n_edges} edges, load {os.getloadavg()[0]:.1f}"
        )
        seconds = interleaved(path, atoms, args.steps)
        seconds["i-PI step (ffdirect)"] = ipi_step(path, atoms, args.steps)
    bare = np.median(seconds["bare model"])
    print(f"{'':24}{'ms':>9}{'quartiles':>18}{'overhead':>12}")
    for name, values in seconds.items():
        low, median, high = 1e3 * np.percentile(values, [25, 50, 75])
        quartiles = f"{low:.1f} – {high:.1f}"
        print(f"{name:24}{median:9.2f}{quartiles:>18}{100 * (median / 1e3 / bare - 1):11.1f}%")


if __name__ == "__main__":
    main()
