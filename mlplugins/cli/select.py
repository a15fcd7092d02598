"""Choose few structures of many: farthest points, CUR, or where a model is least certain.

example:
  mlplugins select md.extxyz -n 200 -o subset.extxyz
  mlplugins select md.extxyz -n 50 --method cur -o subset.extxyz
  mlplugins select md.extxyz -n 20 --method uncertainty --model model.pt -o label_these.extxyz

The subset keeps all labels and trains any family. `fps` and `cur` compare the mean SOAP vectors of the
structures; `uncertainty` asks one model that predicts its own (soap-gap), or takes the spread of the forces
of several models.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from rich.progress import track

from mlplugins import files
from mlplugins.cli import _common
from mlplugins.errors import BadInput
from mlplugins.model_file import artifact
from mlplugins.models import soap_gap
from mlplugins.structures import dataset, selection
from mlplugins.structures.batch import graph_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins select`."""
    parser.add_argument("data", nargs="+", help="files that ASE reads; file@::10 takes every tenth frame")
    parser.add_argument("-n", type=int, required=True, help="structures to choose")
    parser.add_argument(
        "--method", choices=("fps", "cur", "uncertainty"), default="fps", help="default: farthest points"
    )
    parser.add_argument(
        "--model",
        nargs="+",
        default=[],
        metavar="model.pt",
        help="for --method uncertainty: one, or a committee",
    )
    parser.add_argument("--cutoff", type=float, default=5.0, help="of the SOAP vectors, Å (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the first point (default 0)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument(
        "-o", "--output", type=_common.OutputFile, required=True, help="extended XYZ file to write"
    )
    _common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Select and write; 0 if it worked."""
    if args.n < 1:
        raise BadInput(f"-n: expected 1 or more structures, got {args.n}")
    if (args.method == "uncertainty") != bool(args.model):
        raise BadInput("--method uncertainty and --model go together: give both, or neither")
    if args.output.suffix not in (".extxyz", ".xyz"):
        raise BadInput(f"-o: expected a file ending in .extxyz, got '{args.output.name}'")
    if args.output.resolve() in {
        Path(path).resolve() for word in args.data for path, _ in dataset.files(word)
    }:
        raise BadInput(f"-o: '{args.output}' holds the structures to choose from; give another file")
    frames = [atoms for atoms, _ in dataset.frames(args.data)]
    if args.n > len(frames):
        raise BadInput(f"-n {args.n}: there are only {len(frames)} structures")
    console = _common.console()
    scores: NDArray[np.float64] | None = None
    if args.method == "uncertainty":
        scores = uncertainties(frames, args.model, args.device)
        chosen = [int(k) for k in np.argsort(-scores, kind="stable")[: args.n]]
        span = f"{scores[chosen[-1]]:.4g} to {scores[chosen[0]]:.4g}"
        console.print(f"uncertainty: {span}, median of all {np.median(scores):.4g} ({unit(args.model)})")
    else:
        features = mean_soap(frames, args.cutoff)
        chosen = selection.choose(features, args.n, args.method, args.seed)
    with files.replacing(args.output) as temporary:
        ase.io.write(temporary, [frames[k] for k in chosen], format="extxyz")
    console.print(f"{len(chosen)} of {len(frames)} structures: {args.output}")
    result: dict[str, Any] = {"method": args.method, "n_structures": len(frames), "chosen": chosen}
    result["uncertainty"] = None if scores is None else [float(scores[k]) for k in chosen]
    result["unit"] = None if scores is None else unit(args.model)
    files.write_json(args.json, result)
    return 0


def unit(models: Sequence[str]) -> str:
    """What `uncertainties` are measured in."""
    return "eV, largest of an atom" if len(models) == 1 else "eV/Å, largest of an atom"


def uncertainties(frames: Sequence[Atoms], paths: Sequence[str], device: str) -> NDArray[np.float64]:
    """(F,) largest uncertainty of an atom: of its energy (one model, eV) or force (several, eV/Å)."""
    models = [artifact.load(_common.existing_file(path), device) for path in paths]
    single = len(models) == 1
    found = []
    for atoms in track(frames, "evaluating", transient=True, console=_common.console()):
        results = [model.evaluate([atoms], uncertainty=single)[0] for model in models]
        values = np.linalg.norm(artifact.combine(results).forces_spread, axis=1)
        if results[0].uncertainties is not None:
            values = results[0].uncertainties
        found.append(float(values.max()))
    return np.array(found)


@torch.no_grad()
def mean_soap(frames: Sequence[Atoms], cutoff: float) -> NDArray[np.float64]:
    """(F, S · D): SOAP vectors averaged over the atoms of every element, times its fraction."""
    if not cutoff > 0:
        raise BadInput(f"--cutoff: expected a length in Å, got {cutoff}")
    elements = sorted({symbol for atoms in frames for symbol in atoms.symbols})
    parameters = soap_gap.Hyperparameters(
        cutoff=cutoff, cutoff_transition_width=min(1.0, cutoff), n_max=6, l_max=4, atom_sigma=0.5
    )
    model = soap_gap.Model(elements, parameters)
    rows = []
    for atoms in track(frames, "describing", transient=True, console=_common.console()):
        graph = graph_of(atoms, elements, cutoff)
        mean = torch.zeros(len(elements), model.spectrum.n_features, dtype=torch.float64)
        p = model.features(graph) / len(atoms)
        mean = mean.index_add(0, graph.species, p)
        rows.append(mean.reshape(-1).numpy())
    return np.stack(rows)
