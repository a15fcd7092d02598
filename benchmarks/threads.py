"""What a second thread gains: the same step with one thread and with two, and where the rest is lost.

    python benchmarks/threads.py [--cases sevennet mace-128] [--atoms 192 1536] [--threads 1 2] [--rounds 15]
                                 [--kinds tables exact] [--json threads.json]

Needs a machine with nothing else on it and as many cores as threads: it says how busy the machine is before
and after. Models have the shapes of `before_after.py` and random weights, in float32; each number of threads
has a process of its own (OMP_NUM_THREADS), and they take turns, one step each. Forces are compared first.
Given are wall times of energy and forces, neighbour list included: medians with quartiles, the ratio
of the medians (the aim: 1.75 at 192 atoms, 1.85 at 1536), and that of the fastest steps. Then, with the torch
profiler, the ops that lose most: `lost` is their time with all threads less an equal share of their time with
one; what stands last, outside all ops, is serial (Python, dispatch, the neighbour list).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
STEPS = 5
"""Steps under the profiler."""


# ---- in the process of a number of threads


def answer(arguments: list[str]) -> None:
    """Says when it is ready, then computes forces, a timed step, or a profile, as each line asks."""
    output, sys.stdout = sys.stdout, sys.stderr
    path, atoms, threads = arguments
    sys.path[:0] = [str(HERE), str(HERE / "peers")]
    import ours
    import torch
    from speed import water

    torch.set_num_threads(int(threads))
    peer = ours.Ours(path, "", [water(int(atoms) // 3)])
    frame = peer.frames[0]
    print(json.dumps(torch.get_num_threads()), file=output, flush=True)
    for line in sys.stdin:
        if line.strip() == "profile":
            found: Any = profile(peer, frame)
        else:
            frame.positions += 1e-4 * peer.random.standard_normal(frame.positions.shape)
            start = time.perf_counter()
            forces = peer.evaluate(frame)[1]
            found = [time.perf_counter() - start, np.asarray(forces).tolist()]
        print(json.dumps(found), file=output, flush=True)


def profile(peer: Any, frame: Any) -> dict[str, float]:
    """Milliseconds a step that each op takes by itself, and what is outside of all."""
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        start = time.perf_counter()
        for _ in range(STEPS):
            peer.evaluate(frame)
        whole = 1e3 * (time.perf_counter() - start) / STEPS
    ops = {row.key: row.self_cpu_time_total / 1e3 / STEPS for row in found.key_averages()}
    return {**ops, "outside of all ops": whole - sum(ops.values())}


# ---- in turns


class Side:
    def __init__(self, path: Path, atoms: int, threads: int) -> None:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        command = [
            sys.executable,
            str(Path(__file__).resolve()),
            "--answer",
            str(path),
            str(atoms),
            str(threads),
        ]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **dict.fromkeys(names, str(threads)), "OMP_WAIT_POLICY": "passive"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if self._answer() != threads:
            raise SystemExit(f"torch does not compute with {threads} threads")

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"ended: {' '.join(map(str, self.process.args))}")  # type: ignore[arg-type]
        return json.loads(line)

    def ask(self, what: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def write(case: str, kind: str, path: Path) -> None:
    import importlib

    import torch
    from before_after import FAMILIES
    from speed import water

    from mlplugins.model_file.card import ModelCard
    from mlplugins.model_file.radial import RadialTables
    from mlplugins.model_file.write import save

    family, hyperparameters = FAMILIES[case]
    module = importlib.import_module(f"mlplugins.models.{family}")
    torch.manual_seed(0)
    model = module.Model(["H", "O"], module.Hyperparameters(**hyperparameters)).double()
    tables = RadialTables("off" if kind == "exact" else 1025, [water(8)])
    save(model, path, ModelCard(family, ["H", "O"], [0.0, 0.0]), "float32", tables=tables)


def compare(name: str, path: Path, atoms: int, args: argparse.Namespace) -> dict[str, Any]:
    sides = {threads: Side(path, atoms, threads) for threads in args.threads}
    try:
        first, *others = args.threads
        forces = {threads: np.array(side.ask("step")[1]) for threads, side in sides.items()}
        errors = [np.abs(forces[n] - forces[first]).max() / np.abs(forces[first]).max() for n in others]
        error = max(errors, default=0.0)
        if not error < 1e-4:
            raise SystemExit(f"{name}, {atoms} atoms: forces differ by {error:.1e} of the largest")
        for side in sides.values():
            side.ask("step")
        seconds = np.array([[side.ask("step")[0] for side in sides.values()] for _ in range(args.rounds)])
        profiles = {threads: side.ask("profile") for threads, side in sides.items()}
    finally:
        for side in sides.values():
            side.close()
    row: dict[str, Any] = {"work": f"{name}, {atoms} atoms", "force_difference": error}
    for k, threads in enumerate(args.threads):
        low, middle, high = 1e3 * np.percentile(seconds[:, k], [25, 50, 75])
        gain = np.median(seconds[:, 0]) / np.median(seconds[:, k])
        best = seconds[:, 0].min() / seconds[:, k].min()
        print(
            f"{row['work']:28}{threads:3d} threads {middle:9.2f} ms ({low:.2f} – {high:.2f})"
            f"{gain:7.2f}× ({best:.2f}× of the fastest)   forces {error:.0e}",
            flush=True,
        )
        row[f"{threads}"] = {"ms": middle, "quartiles_ms": [low, high], "gain": gain, "gain_of_fastest": best}
    for threads in others:
        show_losses(profiles[first], profiles[threads], threads / first)
    return row


def show_losses(one: dict[str, float], all_: dict[str, float], share: float) -> None:
    lost = {name: ms - one.get(name, 0.0) / share for name, ms in all_.items()}
    for name in sorted(lost, key=lambda name: -lost[name])[:12]:
        print(f"    lost {lost[name]:7.3f} ms   {one.get(name, 0.0):8.3f} → {all_[name]:8.3f}   {name}")


def main() -> None:
    sys.path[:0] = [str(HERE), str(HERE / "peers")]
    from before_after import FAMILIES

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=["sevennet", "mace-128"], choices=list(FAMILIES))
    parser.add_argument("--kinds", nargs="+", default=["tables", "exact"], choices=["tables", "exact"])
    parser.add_argument("--atoms", nargs="+", type=int, default=[192, 1536])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    print(f"load before {os.getloadavg()[0]:.2f}, {len(os.sched_getaffinity(0))} cores", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in args.cases:
            for kind in args.kinds:
                path = Path(folder) / f"{case}-{kind}.pt"
                write(case, kind, path)
                rows += [compare(f"{case}, {kind}", path, atoms, args) for atoms in args.atoms]
    print(f"load after {os.getloadavg()[0]:.2f}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    answer(sys.argv[2:]) if sys.argv[1:2] == ["--answer"] else main()
