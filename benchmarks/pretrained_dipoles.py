"""Dipoles of QM7-X after pre-training on GFN2-xTB: cheap labels of many made-up molecules, then the 78.

    python benchmarks/pretrained_dipoles.py geometries made_up.xyz      rdkit: random graphs of C, N, O, ETKDG
    python benchmarks/pretrained_dipoles.py label made_up.xyz xtb.extxyz        tblite: dipoles in e·Å
    MLPLUGINS_REFERENCE_DATA=… python benchmarks/pretrained_dipoles.py train xtb.extxyz    1 CPU-minute

The steps need one package each, which may stand in environments of their own. The split, the network and the
errors are those of `heads.py qm7x`. No label of QM7-X is used before the fine-tuning, none of GFN2-xTB in a
prediction. With `mdp_trimers` beside the set, the clusters of R-3B69 are a further test.
"""

from __future__ import annotations

import argparse
import os
import random
from pathlib import Path
from typing import Any

import numpy as np

VALENCES = {"C": 4, "N": 3, "O": 2}
SHARES = (0.62, 0.2, 0.18)
"""Of C, N, O."""
ORDERS = (0.55, 0.3, 0.15)
"""Of single, double and triple bonds."""
REFUSED = ("OO", "NNN", "ONO")
RATTLED = (0.02, 0.04, 0.06)
"""Å."""
ATOMS = range(6, 15)
LARGEST_FORCE, LARGEST_DIPOLE = 25.0, 2.5
"""eV/Å and e·Å: broken geometries, zwitterions."""
TRIMERS = "mdp_trimers/R-3B69.xyz"


def random_graph(rng: random.Random, n: int) -> str | None:
    """SMILES of a connected molecule of n heavy atoms, None if valences do not allow it."""
    from rdkit import Chem

    names = [rng.choices([*VALENCES], SHARES)[0] for _ in range(n)]
    free, graph = [VALENCES[name] for name in names], Chem.RWMol()
    kinds = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}
    for name in names:
        graph.AddAtom(Chem.Atom(name))
    for i in range(1, n):
        able = [j for j in range(i) if free[j] > 0]
        if not able:
            return None
        j = rng.choice(able)
        order = min(rng.choices([1, 2, 3], ORDERS)[0], free[i], free[j])
        graph.AddBond(i, j, kinds[order])
        free[i], free[j] = free[i] - order, free[j] - order
    for _ in range(rng.choice([0, 1, 1, 2])):  # rings
        i, j = rng.sample(range(n), 2)
        if free[i] > 0 and free[j] > 0 and graph.GetBondBetweenAtoms(i, j) is None:
            graph.AddBond(i, j, kinds[1])
            free[i], free[j] = free[i] - 1, free[j] - 1
    try:
        Chem.SanitizeMol(graph)
    except ValueError:
        return None
    return str(Chem.MolToSmiles(graph))


def embedded(smiles: str, rng: random.Random, noise: np.random.Generator) -> str | None:
    """A frame in extended XYZ, moved off the minimum of a force field; None of what is not wanted."""
    from rdkit import Chem
    from rdkit.Chem import AllChem

    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None or any(molecule.HasSubstructMatch(Chem.MolFromSmarts(s)) for s in REFUSED):
        return None
    molecule = Chem.AddHs(molecule)
    n = molecule.GetNumAtoms()
    if n not in ATOMS or AllChem.EmbedMolecule(molecule, randomSeed=rng.randrange(10**6)) != 0:
        return None
    if AllChem.MMFFOptimizeMolecule(molecule, maxIters=200) < 0:
        return None
    points = np.array(molecule.GetConformer().GetPositions())
    points += noise.normal(0, rng.choice(RATTLED), points.shape)
    if (np.linalg.norm(points[:, None] - points[None], axis=-1) + 9 * np.eye(n)).min() < 0.8:
        return None
    symbols = [atom.GetSymbol() for atom in molecule.GetAtoms()]
    rows = [f"{s} {x:.6f} {y:.6f} {z:.6f}" for s, (x, y, z) in zip(symbols, points, strict=True)]
    return "\n".join([str(n), f'Properties=species:S:1:pos:R:3 smiles="{smiles}" pbc="F F F"', *rows, ""])


def geometries(output: Path, wanted: int) -> None:
    from rdkit import RDLogger

    RDLogger.DisableLog("rdApp.*")
    rng, noise = random.Random(1), np.random.default_rng(1)
    seen: set[str] = set()
    frames: list[str] = []
    while len(frames) < wanted:
        smiles = random_graph(rng, rng.choice([4, 5, 5, 6, 6, 7]))
        if smiles is None or smiles in seen:
            continue
        seen.add(smiles)
        frame = embedded(smiles, rng, noise)
        frames += [frame] if frame else []
    output.write_text("".join(frames), encoding="utf-8")
    print(f"{len(frames)} molecules of {len(seen)} graphs: {output}")


def label(source: Path, output: Path) -> None:
    from ase.io import read, write
    from tblite.ase import TBLite

    found = []
    for atoms in read(source, ":"):
        atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
        mu, forces = atoms.get_dipole_moment(), atoms.get_forces()
        if np.abs(forces).max() < LARGEST_FORCE and np.linalg.norm(mu) < LARGEST_DIPOLE:
            atoms.calc, atoms.info = None, {"mu": mu}
            found.append(atoms)
    write(output, found)
    print(f"{len(found)} labelled: {output}")


def train(labelled: Path, folder: Path, epochs: tuple[int, int]) -> None:
    """Pre-train on all but 75 molecules, fine-tune on QM7-X, and print the errors of test molecules."""
    import heads
    from ase.io import read, write

    import mlplugins

    data = Path(os.environ["MLPLUGINS_REFERENCE_DATA"])
    folder.mkdir(parents=True, exist_ok=True)
    cheap = read(labelled, ":")
    known, test = heads.split(read(data / heads.SETS["qm7x"], ":"), 0)
    for name, frames in {"cheap": cheap[:-75], "cheap_test": cheap[-75:], "known": known}.items():
        write(folder / f"{name}.extxyz", frames)
    asked = {"heads": {"dipole": heads.HEADS["qm7x"]["dipole"]}}
    first, second = ({**heads.TRAINING["qm7x"], "epochs": n} for n in epochs)
    keys = {"keys": {"energy": None}}
    sets = {"train": str(folder / "cheap.extxyz"), "validation": str(folder / "cheap_test.extxyz"), **keys}
    given = {**asked, "data": sets, "model": heads.MODELS["qm7x"], "training": {**first, "batch_size": 8}}
    mlplugins.train(given, folder / "cheap")
    given = {
        **asked,
        "base": {"checkpoint": str(folder / "cheap/checkpoint.ckpt")},
        "data": {"train": str(folder / "known.extxyz"), "validation": 0.0, **keys},
        "finetune": {"strategy": "full"},
        "training": {**second, "lr": 0.002},
    }
    mlplugins.finetune(given, folder / "known")
    sets_to_test = {"QM7-X test": test, "QM7-X train": known, "GFN2-xTB": cheap[-75:]}
    if (data / TRIMERS).exists():
        sets_to_test["trimers"] = read(data / TRIMERS, ":")
    for run in ("cheap", "known"):
        for name, frames in sets_to_test.items():
            print(f"{run}: {name}: {errors(folder / run / 'model.pt', frames)}")


def errors(path: Path, frames: list[Any]) -> str:
    """Of dipole components, e·Å, beside the size of the labels."""
    from mlplugins.model_file import artifact

    model = artifact.load(path)
    keys = ("mu", "dipole_eA")
    labels = np.array([next(a.info[key] for key in keys if key in a.info) for a in frames])
    found = np.array([model.evaluate([a], wanted=["dipole"])[0].get("dipole") for a in frames])
    mae, rmse = np.abs(found - labels).mean(), np.sqrt(np.mean((found - labels) ** 2))
    return f"MAE {mae:.4f}, RMSE {rmse:.4f}, of labels {np.sqrt(np.mean(labels**2)):.3f} (n = {len(frames)})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("geometries", "label", "train"))
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--molecules", type=int, default=1600)
    parser.add_argument("--epochs", type=int, nargs=2, default=[10, 40], help="of both trainings")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/pretrained"))
    args = parser.parse_args()
    if args.step == "geometries":
        geometries(args.files[0], args.molecules)
    elif args.step == "label":
        label(args.files[0], args.files[1])
    else:
        train(args.files[0], args.output, tuple(args.epochs))


if __name__ == "__main__":
    main()
