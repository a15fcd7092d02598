"""Speed of the analysis: MSD and D against kinisi, streaming against MDAnalysis and ASE (CPU seconds).
thread.

    python benchmarks/conductivity.py                        500 ions x 5000 frames, a dump of 200 MB
    python benchmarks/conductivity.py --frames 1000 --megabytes 50

kinisi forms displacements for all pairs of frames: its MSD is measured at evenly spread lags (every lag costs
about (F − lag)·N) and scaled to all F − 1 lags; `--all-lags` measures all of them.
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
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

ATOMS = 800
SAMPLED_LAGS = 50


def cpu(work: Callable[[], object]) -> tuple[float, object]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def ours(ions: int, frames: int) -> None:
    """MSD at all lags by FFT; D*, D_σ, H with intervals and the choice of the window."""
    from mlplugins.analysis.diffusion import Paths, diffusion
    from mlplugins.analysis.msd import mean_squared_displacement
    from mlplugins.testing.walks import LatticeWalk

    walk = LatticeWalk(frames=frames, ions=ions, rate=0.3)
    moved = walk.displacements()
    seconds, _ = cpu(lambda: mean_squared_displacement(moved))
    whole, found = cpu(lambda: diffusion(Paths([moved], [[(0, frames)]], 100.0)))
    tracer = found.tracer  # type: ignore[attr-defined]
    data = moved.nbytes / 1e6
    print(
        f"ours: MSD {seconds:.2f} s, D with intervals {whole:.2f} s, peak memory {peak_mb():.0f} MB "
        f"(data {data:.0f})"
    )
    print(
        f"      D = {tracer.value:.4g} [{tracer.low:.4g}, {tracer.high:.4g}], exact "
        f"{walk.exact_cm2_s:.4g} cm²/s"
    )
    print(f"RESULT {seconds + whole}")


def kinisi(ions: int, frames: int, all_lags: bool) -> None:
    """kinisi's own MSD and Bayesian regression of the same walk."""
    import scipp as sc
    from kinisi.diffusion import Diffusion
    from kinisi.displacement import calculate_msd

    from mlplugins.testing.walks import LatticeWalk

    moved = LatticeWalk(frames=frames, ions=ions, rate=0.3).displacements()
    lags = np.arange(1, frames)
    if not all_lags:
        lags = np.unique(np.linspace(1, frames - 1, SAMPLED_LAGS).astype(int))

    class Parsed:
        """What kinisi's functions ask of a parsed trajectory."""

        displacements = sc.array(
            dims=["obs", "particle", "dimension"], values=moved[1:] - moved[0], unit="angstrom"
        )
        dt_index = sc.array(dims=["time interval"], values=lags)
        dt = sc.array(dims=["time interval"], values=lags * 0.1, unit="ps")
        dimensionality = sc.scalar(3)

    seconds, data = cpu(lambda: calculate_msd(Parsed(), progress=False))  # type: ignore[arg-type]
    pairs = float(np.sum(frames - np.arange(1, frames))) / float(np.sum(frames - lags))
    fit = Diffusion(data)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampled, _ = cpu(lambda: fit.bayesian_regression(sc.scalar(5.0, unit="ps"), progress=False))
    d = np.asarray(fit.gradient.values) / 6e4
    how = "measured" if all_lags else f"from {len(lags)} lags, times {pairs:.1f}"
    print(
        f"kinisi: MSD {seconds * pairs:.1f} s ({how}), sampling at {len(lags)} lags {sampled:.1f} s, "
        f"peak memory {peak_mb():.0f} MB"
    )
    print(f"      D = {d.mean():.4g} [{np.percentile(d, 2.5):.4g}, {np.percentile(d, 97.5):.4g}] cm²/s")
    print(f"RESULT {seconds * pairs + sampled}")


def write_dump(path: Path, megabytes: float) -> int:
    """A LAMMPS dump (id element x y z) of about that size; returns the number of frames."""
    random = np.random.default_rng(0)
    positions = 20 * random.random((ATOMS, 3))
    bounds = "ITEM: BOX BOUNDS pp pp pp\n0 20\n0 20\n0 20\nITEM: ATOMS id element x y z\n"
    head = f"ITEM: TIMESTEP\n{{step}}\nITEM: NUMBER OF ATOMS\n{ATOMS}\n{bounds}"
    frames = 0
    with path.open("w", encoding="utf-8") as stream:
        while stream.tell() < megabytes * 1e6:
            positions = (positions + 0.05 * random.normal(size=positions.shape)) % 20
            rows = "".join(
                f"{index + 1} {'Li' if index % 2 else 'S'} {x:.5f} {y:.5f} {z:.5f}\n"
                for index, (x, y, z) in enumerate(positions.tolist())
            )
            stream.write(head.format(step=100 * frames) + rows)
            frames += 1
    return frames


def read_ours(path: Path) -> None:
    from mlplugins.analysis.trajectory import ReadSettings, find_reader, read_trajectory

    find_reader(path)  # imports, which do not grow with the file
    settings = ReadSettings("Li", timestep_fs=2.0)
    seconds, run = cpu(lambda: read_trajectory([path], settings))
    print(
        f"ours, with unwrapping and drift: {seconds:.1f} s, peak memory {peak_mb():.0f} MB, "
        f"{run.n_frames} frames"
    )  # type: ignore[attr-defined]
    print(f"RESULT {seconds}")


def read_mdanalysis(path: Path) -> None:
    import MDAnalysis

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = MDAnalysis.Universe.empty(ATOMS, trajectory=True)
        universe.load_new(str(path), format="LAMMPSDUMP")
        seconds, count = cpu(lambda: sum(1 for _ in universe.trajectory))
    print(f"MDAnalysis, positions only: {seconds:.1f} s, {count} frames, peak memory {peak_mb():.0f} MB")
    print(f"RESULT {seconds}")


def read_ase(path: Path) -> None:
    from ase.io import iread

    seconds, count = cpu(lambda: sum(1 for _ in iread(str(path), index=":", format="lammps-dump-text")))
    print(f"ASE, Atoms only: {seconds:.1f} s, {count} frames, peak memory {peak_mb():.0f} MB")
    print(f"RESULT {seconds}")


def apart(*words: str) -> float:
    """One part in a process of its own, so that its memory is its own; returns its CPU seconds."""
    command = [sys.executable, __file__, *words]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    lines = [line for line in done.stdout.splitlines() if line]
    if done.returncode or not lines:
        print(f"{words[1]}: failed: {done.stderr.strip().splitlines()[-1] if done.stderr else 'no output'}")
        return float("nan")
    print("\n".join(lines[:-1]), flush=True)
    return float(lines[-1].split()[1])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=("ours", "kinisi", "read_ours", "read_mdanalysis", "read_ase"))
    parser.add_argument("--ions", type=int, default=500)
    parser.add_argument("--frames", type=int, default=5000)
    parser.add_argument("--all-lags", action="store_true")
    parser.add_argument("--megabytes", type=float, default=200.0)
    parser.add_argument("--file", type=Path)
    arguments = parser.parse_args()
    if arguments.part in ("ours", "kinisi"):
        extra = (arguments.all_lags,) if arguments.part == "kinisi" else ()
        globals()[arguments.part](arguments.ions, arguments.frames, *extra)
        return 0
    if arguments.part:
        globals()[arguments.part](arguments.file)
        return 0
    print(
        f"Python {platform.python_version()}, {platform.machine()}; "
        f"{arguments.ions} ions x {arguments.frames} frames"
    )
    size = ["--ions", str(arguments.ions), "--frames", str(arguments.frames)]
    mine = apart("--part", "ours", *size)
    theirs = apart("--part", "kinisi", *size, *(["--all-lags"] if arguments.all_lags else []))
    print(f"kinisi / ours: {theirs / mine:.0f}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.dump"
        frames = write_dump(path, arguments.megabytes)
        megabytes = path.stat().st_size / 1e6
        print(f"LAMMPS dump of {megabytes:.0f} MB, {frames} frames of {ATOMS} atoms")
        seconds = {
            part: apart("--part", part, "--file", str(path))
            for part in ("read_ours", "read_mdanalysis", "read_ase")
        }
    for part in ("read_mdanalysis", "read_ase"):
        print(f"{part.removeprefix('read_')} / ours: {seconds[part] / seconds['read_ours']:.2f}")
    print(f"ours: {megabytes / seconds['read_ours']:.0f} MB per CPU second")
    return 0


if __name__ == "__main__":
    sys.exit(main())
