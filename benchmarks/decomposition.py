"""What LAMMPS' domains make of a box on many ranks: nodes, edges, bytes and seconds per step of a rank.

    python benchmarks/decomposition.py [--atoms 500 4000 32000] [--ranks 1 2 8 16 32 64 128 256 512]
                                       [--atom-ms 0.0165] [--ghost-ms 0.002] [--layers 3 --width 128]
                                       [--latency-us 2] [--gigabytes 5] [--verify 8] [--json scaling.json]

The box is that of lammps_ranks.py: a rattled fcc crystal with 18 neighbours within 5 Å. Ranks have the bricks
of LAMMPS' own grid (least surface); nodes are a rank's atoms and its ghosts within cutoff + skin, edges the
pairs within the cutoff whose centre it owns: counted from the positions, for the rank that has most.
`--verify N` compares grid, atoms and ghosts with what LAMMPS says of the same box on up to N ranks, more than
there are cores if need be.

In mode exchange a step sends, for each of `--layers` − 1 exchanges, `--width` numbers of 8 bytes per ghost
forward and back, and positions and forces. The time is that of the slowest rank,

    atoms · atom-ms + ghosts · ghost-ms + messages · latency + bytes / bandwidth,

with atom-ms and ghost-ms as lammps_ranks.py measures them. Messages: six per exchange and direction.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from engine_overhead import structure

from mlplugins.engines import lammps
from mlplugins.structures.neighbors import neighbor_list

CUTOFF, SKIN = 5.0, 2.0
"""Å; the skin is LAMMPS' own in metal units."""
DOUBLE = 8
"""Bytes of a number in LAMMPS' messages."""


@dataclass(frozen=True)
class Share:
    """Of the rank that has most of each.

    Attributes:
        atoms, ghosts, edges: numbers of them.
        mean_atoms, mean_ghosts: over the ranks.
    """

    n_atoms: int
    ranks: int
    grid: tuple[int, int, int]
    atoms: int
    ghosts: int
    edges: int
    mean_atoms: float
    mean_ghosts: float


def processors(ranks: int, box: np.ndarray) -> tuple[int, int, int]:
    """LAMMPS' grid: of all, the one with the least surface between domains, the first if several have it.

    >>> processors(8, np.array([1.0, 1.0, 4.0])), processors(2, np.ones(3))
    ((1, 1, 8), (1, 1, 2))
    """
    areas = np.array([box[0] * box[1], box[0] * box[2], box[1] * box[2]])
    best, found = np.inf, (1, 1, ranks)
    for x in range(1, ranks + 1):
        for y in range(1, ranks // x + 1):
            if ranks % (x * y) == 0:
                z = ranks // (x * y)
                surface = areas[0] / (x * y) + areas[1] / (x * z) + areas[2] / (y * z)
                if surface < best:
                    best, found = surface, (x, y, z)
    return found


def decompose(atoms, ranks: int) -> Share:
    """Atoms, ghosts and edges of every rank, counted."""
    box = atoms.cell.lengths()
    grid = processors(ranks, box)
    positions = atoms.positions % box
    brick = np.minimum((positions / box * grid).astype(int), np.array(grid) - 1)
    owner = np.ravel_multi_index(brick.T, grid)
    owned = np.bincount(owner, minlength=ranks)
    centers = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, CUTOFF).centers
    edges = np.bincount(owner[centers], minlength=ranks)
    images = _images(positions, box, CUTOFF + SKIN)
    ghosts = np.empty(ranks, dtype=int)
    for rank, place in enumerate(np.ndindex(grid)):
        low = np.array(place) / grid * box - (CUTOFF + SKIN)
        high = (np.array(place) + 1) / grid * box + (CUTOFF + SKIN)
        ghosts[rank] = ((images >= low) & (images < high)).all(axis=1).sum() - owned[rank]
    most = (int(counts.max()) for counts in (owned, ghosts, edges))
    return Share(len(atoms), ranks, grid, *most, float(owned.mean()), float(ghosts.mean()))


def _images(positions: np.ndarray, box: np.ndarray, reach: float) -> np.ndarray:
    """All periodic images within `reach` of the box."""
    for axis in range(3):
        n = int(np.ceil(reach / box[axis]))
        shifted = [positions + k * box[axis] * np.eye(3)[axis] for k in range(-n, n + 1)]
        every = np.concatenate(shifted)
        inside = (every[:, axis] >= -reach) & (every[:, axis] < box[axis] + reach)
        positions = every[inside]
    return positions


def as_lammps_says(atoms, ranks: int) -> dict[str, float | tuple[int, ...]]:
    """Grid, and atoms and ghosts of the rank that has most, from LAMMPS' log of one step without a model."""
    deck = ["units metal", "boundary p p p", "read_data data", f"pair_style zero {CUTOFF}", "pair_coeff * *"]
    deck += ["comm_modify mode single", f"neighbor {SKIN} bin", "mass * 40", "run 0"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wrapped = atoms.copy()
        wrapped.wrap()
        lammps.write_data(folder / "data", wrapped, [str(atoms.symbols[0])])
        (folder / "in").write_text("\n".join(deck) + "\n")
        command, _ = lammps.command(ranks)
        done = subprocess.run(
            [*command, "-in", "in", "-log", "log"], cwd=folder, capture_output=True, text=True, check=True
        )
    grid = re.search(r"(\d+) by (\d+) by (\d+) MPI processor grid", done.stdout)
    most = {
        key: float(re.search(rf"{key}:\s+\S+ ave\s+(\S+) max", done.stdout)[1])
        for key in ("Nlocal", "Nghost")
    }
    return {"grid": tuple(map(int, grid.groups())), **most}


def verify(every: list[int], ranks: list[int], limit: int) -> None:
    """Compare with LAMMPS, and stop at the first difference."""
    for n_atoms in every:
        for n in [n for n in ranks if n <= limit]:
            atoms = structure(n_atoms, "Ar")
            share, found = decompose(atoms, n), as_lammps_says(atoms, n)
            expected = {"grid": share.grid, "Nlocal": share.atoms, "Nghost": share.ghosts}
            print(f"{len(atoms):6d} atoms, {n:3d} ranks: LAMMPS {found}, counted {expected}", flush=True)
            if found != expected:
                raise SystemExit("the counts are not LAMMPS' own")


def bytes_per_step(share: Share, layers: int, width: int) -> int:
    """Sent and received by the rank with most ghosts: exchanges of features forward and of their gradients
    back, positions, forces."""
    return DOUBLE * share.ghosts * (2 * (layers - 1) * width + 2 * 3)


def milliseconds(share: Share, args: argparse.Namespace) -> dict[str, float]:
    """The parts of a step of the slowest rank."""
    messages = 6 * (2 * (args.layers - 1) + 2) if share.ranks > 1 else 0
    volume = bytes_per_step(share, args.layers, args.width) if share.ranks > 1 else 0
    ghosts = share.ghosts if share.ranks > 1 else 0  # one rank folds them
    return {
        "atoms": share.atoms * args.atom_ms,
        "ghosts": ghosts * args.ghost_ms,
        "messages": 1e-3 * messages * args.latency_us,
        "volume": 1e-6 * volume / args.gigabytes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--atoms", type=int, nargs="+", default=[500, 4000, 32000])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 8, 16, 32, 64, 128, 256, 512])
    parser.add_argument("--verify", type=int, default=0)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--width", type=int, default=128, help="numbers of an atom in an exchange")
    parser.add_argument("--atom-ms", type=float, default=0.0165)
    parser.add_argument("--ghost-ms", type=float, default=0.002)
    parser.add_argument("--latency-us", type=float, default=2.0)
    parser.add_argument("--gigabytes", type=float, default=5.0, help="per second and rank")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.verify:
        verify(args.atoms, args.ranks, args.verify)
    rows = []
    print(" atoms ranks      grid  most atoms  ghosts   edges  MB per step  ms per step  efficiency")
    for n_atoms in args.atoms:
        atoms = structure(n_atoms, "Ar")
        for ranks in args.ranks:
            share = decompose(atoms, ranks)
            parts = milliseconds(share, args)
            total = sum(parts.values())
            efficiency = len(atoms) * args.atom_ms / (ranks * total)
            volume = bytes_per_step(share, args.layers, args.width) / 1e6 if ranks > 1 else 0.0
            grid = "×".join(map(str, share.grid))
            print(
                f"{len(atoms):6d} {ranks:5d} {grid:>9s} {share.atoms:11d} {share.ghosts:7d} {share.edges:7d}"
                f" {volume:12.2f} {total:12.2f} {efficiency:11.2f}",
                flush=True,
            )
            rows.append({**asdict(share), "bytes": 1e6 * volume, "ms": parts, "efficiency": efficiency})
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
