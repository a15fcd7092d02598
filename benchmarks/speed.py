"""Energy + forces with the same weights: stock packages and mlplugins, taking turns.

    python benchmarks/speed.py [--cases mace-medium sevennet-0 …] [--atoms 24 192 1536] [--threads 1]
                               [--dtypes float32 float64] [--rounds 5] [--json speed.json]

`make bench` creates the environments of the stock packages in benchmarks/.envs and runs this. Every package
has a process of its own (benchmarks/peers), with pinned threads; in every round each evaluates the same water
once, neighbour list included (more than 1000 atoms: one round). Given are medians of process CPU time
(1 thread) or wall time (more), with quartiles, and the ratio of the medians. "exact" computes the stock
function, "tables" interpolates the radial networks (in float32 as `export` does by default, in float64 with
1025 knots). Forces are compared first, on the same structure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
import torch
from ase import Atoms

HERE = Path(__file__).resolve().parent
KNOTS = 1025
sys.path.insert(0, str(HERE / "peers"))


@dataclass(frozen=True)
class Case:
    """A stock model: the environment and script that run it, and its arguments."""

    package: str
    script: str
    arguments: tuple[str, ...] = ()


CASES = {
    "mace-medium": Case("mace", "mace_stock.py", ("--model", "medium")),
    "mace-small": Case("mace", "mace_stock.py", ("--model", "small")),
    "mace-light": Case("mace", "mace_stock.py", ("--model", "light")),
    "sevennet-0": Case("sevenn", "sevennet_stock.py"),
    "nequix-mp-1": Case("nequix", "nequix_stock.py"),
}
NEQUIX = Path(os.environ.get("MLPLUGINS_REFERENCE_DATA", "reference")) / "nequix" / "nequix-mp-1.nqx"
"""The published file, which no package contains. Its environment (`peers/nequix_stock.py`) is not made by
`make bench`; the case is left out of the usual ones where either is missing."""


class Process:
    """A peer that answers requests."""

    def __init__(self, python: Path, script: str, arguments: list[str]) -> None:
        command = [str(python), str(HERE / "peers" / script), *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._answer()

    def ask(self, *words: object) -> dict:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a peer ended: {' '.join(map(str, self.process.args))}")  # type: ignore[arg-type]
        return json.loads(line)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def water(n_molecules: int) -> Atoms:
    """Water molecules of random orientation on a cubic grid of 3.1 Å."""
    generator = np.random.default_rng(0)
    n = round(n_molecules ** (1 / 3))
    molecule = np.array([[0, 0, 0], [0.757, 0.586, 0], [-0.757, 0.586, 0]])
    positions = []
    for cell in np.ndindex(n, n, n):
        axes, _ = np.linalg.qr(generator.standard_normal((3, 3)))
        positions.append(molecule @ axes + 3.1 * np.array(cell))
    atoms = Atoms("OHH" * n**3, positions=np.concatenate(positions), cell=[3.1 * n] * 3, pbc=True)
    atoms.rattle(0.03, seed=1)
    return atoms


def environment(package: str) -> Path:
    """Python of a stock package's environment."""
    python = HERE / ".envs" / package / "bin" / "python"
    if not python.exists():
        raise SystemExit(f"no environment {python.parent.parent}: `make bench` creates it")
    return python


def write_models(source: str, dtype: str, folder: Path) -> list[Path]:
    """The exact model and the one with tables."""
    from ours import potential_of

    from mlplugins.model_file.radial import RadialTables
    from mlplugins.model_file.write import save

    checkpoint = potential_of(source)
    kinds = {"exact": "off", "tables": None if dtype == "float32" else KNOTS}
    for name, knots in kinds.items():
        tables = RadialTables(knots, [water(8)])
        print(f"  {save(checkpoint.potential, folder / f'{name}.pt', checkpoint, dtype, tables=tables)}")
    return [folder / "exact.pt", folder / "tables.pt"]


def start(case: Case, dtype: str, threads: int, frames: Path, folder: Path) -> tuple[dict[str, Process], str]:
    """The three processes of a case, and the source of its weights."""
    python = environment(case.package)
    arguments = [str(frames), *case.arguments, "--threads", str(threads)]
    if case.package == "mace":
        arguments += ["--dtype", dtype, "--write", str(folder / "weights.npz")]
    if case.package == "nequix":
        arguments += ["--model", str(NEQUIX)]
    processes = {"stock": Process(python, case.script, arguments)}
    if case.package == "mace":
        source = f"mace:{folder / 'weights.npz'}"
    elif case.package == "nequix":
        source = str(NEQUIX)
    else:
        pattern = "lib/python*/site-packages/sevenn/pretrained_potentials/SevenNet_0__11Jul2024/*.pth"
        source = str(next(python.parent.parent.glob(pattern)))
    for path in write_models(source, dtype, folder):
        options = [str(frames), "--model", str(path), "--source", source, "--threads", str(threads)]
        processes[path.stem] = Process(Path(sys.executable), "ours.py", options)
    return processes, source


def compare(processes: dict[str, Process], index: int, rounds: int, clock: str) -> dict[str, dict]:
    """Times and force differences on one structure."""
    rows: dict[str, dict] = {}
    reference = None
    seconds: dict[str, list[float]] = {name: [] for name in processes}
    for name, process in processes.items():
        process.ask("use", index)
        forces = np.array(process.ask("forces")["forces"])
        reference = forces if reference is None else reference
        error = np.abs(forces - reference).max() / np.abs(reference).max()
        rows[name] = {"force_error": float(error)}
        if rounds > 1:
            process.ask("time", 1)
    for _ in range(rounds):
        for name, process in processes.items():
            seconds[name] += process.ask("time", 1)[clock]
    for name, values in seconds.items():
        low, median, high = np.percentile(values, [25, 50, 75])
        rows[name] |= {"ms": 1e3 * median, "low": 1e3 * low, "high": 1e3 * high}
        rows[name]["ratio"] = rows["stock"]["ms"] / rows[name]["ms"]
    return rows


def training(processes: dict[str, Process], index: int, clock: str) -> dict[str, float]:
    """Median ms of a training step, stock and exact."""
    result = {}
    for name in ("stock", "exact"):
        processes[name].ask("use", index)
        processes[name].ask("train", 1)
        result[name] = 1e3 * float(np.median(processes[name].ask("train", 3)[clock]))
    return result


def necessary_flops(source: str, n_atoms: int) -> float:
    """Multiplications and additions of radial networks and tensor products, for energy and forces.

    Forward, and backward to the inputs: twice the forward for the tensor product, once for the networks.
    """
    from ours import potential_of

    from mlplugins.nn.convolution import Convolution
    from mlplugins.structures.neighbors import neighbor_list

    atoms, potential = water(n_atoms // 3), potential_of(source).potential
    edges = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, potential.cutoff)
    per_edge = 0.0
    for layer in potential.modules():
        if isinstance(layer, Convolution):
            channels, d1, d3 = layer.paths[:, 4:7].unbind(1)
            per_edge += 2 * 2 * sum(weight.numel() for weight in layer.radial.weights)
            per_edge += 3 * 2 * float((channels * d1 * d3).sum())
    return per_edge * len(edges.centers)


def gemm_peak(dtype: torch.dtype) -> float:
    """GF/s of a large matrix product."""
    n = 2048
    a, b = torch.randn(n, n, dtype=dtype), torch.randn(n, n, dtype=dtype)
    best = np.inf
    for _ in range(4):
        begin = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - begin)
    return 2e-9 * n**3 / best


def run_case(name: str, dtype: str, args: argparse.Namespace, frames: Path, peak: float) -> list[dict]:
    clock = "cpu_s" if args.threads == 1 else "wall_s"
    records = []
    with tempfile.TemporaryDirectory() as folder:
        print(f"{name} {dtype}, {args.threads} thread(s)", flush=True)
        processes, source = start(CASES[name], dtype, args.threads, frames, Path(folder))
        for index, n_atoms in enumerate(args.atoms):
            rounds = args.rounds if n_atoms < 1000 else max(1, args.rounds // 3)
            rows = compare(processes, index, rounds, clock)
            share = necessary_flops(source, n_atoms) / (1e6 * rows["exact"]["ms"]) / peak
            rows["exact"]["share_of_gemm"] = share
            for variant, row in rows.items():
                records.append(
                    {"case": name, "dtype": dtype, "threads": args.threads, "atoms": n_atoms} | row
                )
                records[-1]["variant"] = variant
                spread = f"({row['low']:.1f} – {row['high']:.1f})"
                print(
                    f"  {n_atoms:5d} atoms  {variant:7s} {row['ms']:9.1f} ms {spread}"
                    f"  {row['ratio']:6.1f}×   forces {row['force_error']:.1e}",
                    flush=True,
                )
            print(f"  necessary work of the exact model: {100 * share:.0f} % of the matrix product's speed")
        memory = {variant: process.ask("rss")["peak_MiB"] for variant, process in processes.items()}
        print("  peak memory, MiB: " + ", ".join(f"{key} {value:.0f}" for key, value in memory.items()))
        records.append({"case": name, "dtype": dtype, "threads": args.threads, "peak_MiB": memory})
        if dtype == "float32" and not args.no_training and CASES[name].package != "nequix":
            steps = training(processes, len([n for n in args.atoms if n < 1000]) - 1, clock)
            ratio = steps["stock"] / steps["exact"]
            print(
                f"  training step: stock {steps['stock']:.0f} ms, ours {steps['exact']:.0f} ms, {ratio:.1f}×"
            )
            records.append({"case": name, "threads": args.threads, "training_ms": steps, "ratio": ratio})
        for process in processes.values():
            process.close()
    return records


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    there = NEQUIX.exists() and (HERE / ".envs" / "nequix").exists()
    usual = [name for name in CASES if CASES[name].package != "nequix" or there]
    parser.add_argument("--cases", nargs="+", default=usual, choices=list(CASES))
    parser.add_argument("--atoms", nargs="+", type=int, default=[24, 192, 1536])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"], choices=["float32", "float64"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-training", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    peaks = {name: gemm_peak(getattr(torch, name)) for name in args.dtypes}
    print(
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, torch {torch.__version__}, load "
        f"{os.getloadavg()[0]:.1f}; matrix product: "
        + ", ".join(f"{name} {value:.0f} GF/s" for name, value in peaks.items())
    )
    records: list[dict] = [{"gemm_GF_s": peaks}]
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "water.extxyz"
        ase.io.write(frames, [water(n // 3) for n in args.atoms])
        for name in args.cases:
            for dtype in args.dtypes:
                if dtype == "float64" and CASES[name].package == "sevenn":
                    continue  # its graph is fixed to float32
                records += run_case(name, dtype, args, frames, peaks[dtype])
                if args.json:
                    args.json.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
