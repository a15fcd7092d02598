"""Two checkouts of mlplugins with the same weights, taking turns: what became slower or faster.

    git worktree add ../before COMMIT          # and, with PYTHONPATH=../before, `mlplugins build`
    python benchmarks/before_after.py ../before [--rounds 9] [--atoms 24 192] [--frames ethanol.extxyz]
                                                [--cases mace-128 mace-64 sevennet kernel engines]
                                                [--kinds tables lammps float32 float64 training]

Each checkout has a process of its own with one thread, in this environment; in each round both do each piece
of work once. Weights are random, of one seed, on the water of `speed.py`; those of the kernel model (sgdml,
200 frames of one molecule) are trained by the checkout before and read by both. Results are compared first,
and their largest difference is printed. Given are medians of process CPU time and the ratio after / before:
the median over the rounds, with quartiles. "lammps" is an NVE step with tables; "engines" are the calls of
engine_overhead.py and the step of lammps_overhead.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
MACE = {"cutoff": 6.0, "num_channels": 128, "num_basis": 10}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "mace-128": ("mace", MACE),
    "mace-64": ("mace", MACE | {"cutoff": 5.0, "num_channels": 64, "l_max": 2, "num_basis": 8}),
    "sevennet": (
        "nequip",
        {"cutoff": 5.0, "num_layers": 5, "l_max": 2, "num_features": [128, 64, 32], "radial_mlp": [64, 64]},
    ),
}
"""Shapes of the models of `speed.py`."""
CASES = (*FAMILIES, "kernel", "engines")
KINDS = ("float32", "float64", "tables", "lammps", "training")


# ---- in the process of a checkout


def save(potential: Any, family: str, elements: list[str], path: Path, dtype: str, **options: Any) -> None:
    try:
        from mlplugins.model_file.card import ModelCard as Card
        from mlplugins.model_file.write import save as write
    except ImportError:  # before the model file had a room of its own
        from mlplugins.export.metatomic import Description as Card
        from mlplugins.export.metatomic import save as write
    write(potential, path, Card(family, elements, [0.0] * len(elements)), dtype, **options)


def network(case: str, folder: Path, frames: Any, kinds: list[str]) -> dict[str, Any]:
    """Pieces of work with a network: energy and forces, exact and with tables, and a step of training."""
    import importlib

    import ours
    import torch

    family, hyperparameters = FAMILIES[case]
    module = importlib.import_module(f"mlplugins.models.{family}")
    torch.manual_seed(0)
    model = module.Model(["H", "O"], module.Hyperparameters(**hyperparameters)).double()
    checkpoint = argparse.Namespace(potential=model, elements=["H", "O"])
    ours.potential_of = lambda source: checkpoint
    work = {}
    for name, knots in (("float32", None), ("float64", None), ("tables", 1025)):
        if name not in kinds and not (name == "tables" and "lammps" in kinds):
            continue
        potential, options = radial(model, knots, frames[:1])
        save(
            potential, family, ["H", "O"], folder / f"{name}.pt", name.replace("tables", "float32"), **options
        )
        peer = ours.Ours(folder / f"{name}.pt", "", frames)
        for k, atoms in enumerate(frames):
            if name in kinds:
                work[f"{case}, {name}, {len(atoms)} atoms"] = lambda p=peer, k=k: evaluated(p, k)
            if name == "tables" and "lammps" in kinds:
                work[f"{case}, LAMMPS step, {len(atoms)} atoms"] = lammps_step(
                    folder / "tables.pt", atoms, folder
                )
    if "training" in kinds:
        step = ours.Ours(folder / "tables.pt", "", frames).training_step(frames[-1])
        work[f"{case}, training step, {len(frames[-1])} atoms"] = lambda: step() or [0.0]
    return work


def lammps_step(model: Path, atoms: Any, folder: Path) -> Any:
    """A step of NVE; gives the positions."""
    import lammps_overhead

    lmp = lammps_overhead.start_lammps(model, atoms, folder)

    def step() -> Any:
        lmp.command("run 1 pre no post no")
        return np.array(lmp.gather_atoms("x", 1, 3))

    return step


def radial(model: Any, knots: int | None, frames: Any) -> tuple[Any, dict[str, Any]]:
    """The model and the options of `save` for exact networks (None), or tables."""
    try:
        from mlplugins.model_file.radial import RadialTables
    except ImportError:  # before tables were the default of float32
        if knots is None:
            return model, {}
        try:
            from mlplugins.model_file.tables import tabulated
        except ImportError:
            from mlplugins.export.tables import tabulated
        return tabulated(model, ["H", "O"], knots, frames)[0], {}
    return model, {"tables": RadialTables(knots or "off", frames)}


def evaluated(peer: Any, k: int) -> Any:
    atoms = peer.frames[k]
    atoms.positions += 1e-4 * peer.random.standard_normal(atoms.positions.shape)
    return peer.evaluate(atoms)[1].ravel()


def kernel(folder: Path, frames: str) -> dict[str, Any]:
    """As kernel_speed.py: single geometries, the ASE calculator, 100 geometries at once."""
    import ase.io

    from mlplugins import MLCalculator
    from mlplugins.checkpoints import native

    try:
        from mlplugins.model_file.artifact import load
    except ImportError:
        from mlplugins.engines.artifact import load
    checkpoint = native.read(folder.parent / "kernel" / "checkpoint.ckpt")
    save(checkpoint.potential, checkpoint.family, checkpoint.elements, folder / "kernel.pt", "float64")
    model, structures = load(folder / "kernel.pt"), ase.io.read(frames, index="200:300")
    calculator, moving = MLCalculator(folder / "kernel.pt"), structures[0].copy()

    def one() -> Any:
        return [model.evaluate([atoms])[0].forces.ravel() for atoms in structures[:20]][-1]

    def in_ase() -> Any:
        for atoms in structures[:20]:
            moving.positions[:] = atoms.positions
            found = calculator.get_forces(moving)
        return found.ravel()

    return {
        "kernel, 20 structures one by one": one,
        "kernel, 20 in ASE": in_ase,
        "kernel, 100 at once": lambda: model.evaluate(structures)[-1].forces.ravel(),
    }


def engines(folder: Path) -> dict[str, Any]:
    """Steps of the engines with the small model of engine_overhead.py."""
    import engine_overhead

    try:
        from mlplugins.model_file.artifact import load
    except ImportError:
        from mlplugins.engines.artifact import load
    path = engine_overhead.write_model(folder / "engine.pt")
    atoms, random = engine_overhead.structure(256, "Ar"), np.random.default_rng(0)
    atoms.write(folder / "init.extxyz")
    i_pi = engine_overhead.MLDriver(model=str(path), template=str(folder / "init.extxyz"))
    positions = lammps_step(path, atoms, folder)
    bare, cell = engine_overhead.bare_call(load(path), atoms), np.asarray(atoms.cell).T / 0.529177210903
    atoms.calc = engine_overhead.MLCalculator(path)

    def moved(step: Any) -> Any:
        atoms.positions += random.normal(0, 0.01, (len(atoms), 3))
        return step()

    return {
        "engines, bare model": lambda: bare() or [0.0],
        "engines, ASE": lambda: moved(lambda: atoms.get_forces().ravel()),
        "engines, i-PI driver": lambda: moved(
            lambda: i_pi(cell, atoms.positions / 0.529177210903)[1].ravel()
        ),
        "engines, LAMMPS step": positions,
    }


def work_of(checkout: Path, case: str, folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    sys.path[:0] = [str(checkout / "benchmarks"), str(checkout / "benchmarks" / "peers")]
    if case == "kernel":
        return kernel(folder, asked["frames"])
    if case == "engines":
        return engines(folder)
    from speed import water

    return network(case, folder, [water(n // 3) for n in asked["atoms"]], asked["kinds"])


def answer(arguments: list[str]) -> None:
    """A checkout's process: prints the names of its work, then does what it is told, line by line."""
    import time

    output, sys.stdout = sys.stdout, sys.stderr
    import torch

    torch.set_num_threads(1)
    checkout, case, folder, asked = arguments
    work = work_of(Path(checkout), case, Path(folder), json.loads(asked))
    print(json.dumps(list(work)), file=output, flush=True)
    for line in sys.stdin:
        start = time.process_time()
        found = work[line.strip()]()
        seconds = time.process_time() - start
        print(json.dumps([seconds, np.asarray(found).tolist()]), file=output, flush=True)


# ---- in turns


class Side:
    """The process of one checkout."""

    def __init__(self, checkout: Path, *arguments: str) -> None:
        one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        command = [sys.executable, str(Path(__file__).resolve()), "--answer", str(checkout), *arguments]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **one, "PYTHONPATH": str(checkout)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.names: list[str] = []

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"ended: {' '.join(map(str, self.process.args))}")  # type: ignore[arg-type]
        return json.loads(line)

    def do(self, name: str) -> tuple[float, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        seconds, found = self.answer()
        return seconds, np.array(found)


def train_kernel(checkout: Path, folder: Path, frames: str) -> None:
    import ase.io

    ase.io.write(folder / "train.extxyz", ase.io.read(frames, index=":200"))
    (folder / "train.yaml").write_text(
        "data: {train: train.extxyz, validation: 0.0}\nmodel: {family: sgdml, sigma: 20}\n"
        "training: {regularisation: 1e-10}\n"
    )
    command = [sys.executable, "-m", "mlplugins.cli.main", "train", "train.yaml", "-o", "kernel"]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)


def compare(checkouts: list[Path], case: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        folder, sides, rows = Path(name), [], []
        if case == "kernel":
            train_kernel(checkouts[0], folder, args.frames)
        for k, checkout in enumerate(checkouts):
            (folder / str(k)).mkdir()
            asked = {"atoms": args.atoms, "frames": args.frames, "kinds": args.kinds}
            sides.append(Side(checkout, case, str(folder / str(k)), json.dumps(asked)))
        names = [side.answer() for side in sides][-1]
        for work in names:
            first = [side.do(work)[1] for side in sides]
            scale = max(np.abs(first[0]).max(), 1e-300)
            seconds = np.array([[side.do(work)[0] for side in sides] for _ in range(args.rounds)])
            ratio = seconds[:, 1] / seconds[:, 0]
            low, middle, high = np.percentile(ratio, [25, 50, 75])
            before, after = 1e3 * np.median(seconds, axis=0)
            difference = float(np.abs(first[1] - first[0]).max() / scale)
            print(
                f"{work:44}{before:9.2f} → {after:9.2f} ms   {middle:.3f} ({low:.3f} – {high:.3f})   "
                f"difference {difference:.0e}",
                flush=True,
            )
            rows.append({"work": work, "before_ms": before, "after_ms": after, "ratio": middle})
        for side in sides:
            side.process.kill()
            side.process.wait()
        return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="checkout of the commit before, its native code built")
    parser.add_argument("--after", type=Path, default=HERE.parent, help="the other one; default: this one")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--atoms", nargs="+", type=int, default=[24, 192])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--frames", default="", help="structures of one molecule with forces, for `kernel`")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if not args.frames:
        args.cases = [case for case in args.cases if case != "kernel"]
    checkouts = [args.before.resolve(), args.after.resolve()]
    rows = [row for case in args.cases for row in compare(checkouts, case, args)]
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    answer(sys.argv[2:]) if sys.argv[1:2] == ["--answer"] else main()
