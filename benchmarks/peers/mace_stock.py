"""The stock MACE package as a peer: builds models with fixed seeds, writes their weights, and times them.

Runs in an environment with mace-torch (it cannot share one with e3nn >= 0.5), never imports mlplugins:

    TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 python benchmarks/peers/mace_stock.py --model medium \
        --structures water.extxyz --dtype float32 --threads 1 [--write medium.npz]

It prints `ready`, then answers each line on stdin with one of JSON: another process can alternate with it.

| command | answer |
|---|---|
| `use K` | takes structure K of the file (0 at the start): number of atoms and edges |
| `time N` | `cpu_s`, `wall_s`: N values each for energy + forces, neighbour list included |
| `train N` | the same for energy + forces + backward of a force loss to the weights (graph built once) |
| `forces` | `energy` (eV) and `forces` (eV/Å) |
| `rss` | peak resident memory of the process so far, MiB |
| `quit` | |
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

STOCK = {
    "medium": {"hidden_irreps": "128x0e+128x1o", "max_ell": 3, "r_max": 6.0, "num_bessel": 10},
    "small": {"hidden_irreps": "128x0e", "max_ell": 3, "r_max": 6.0, "num_bessel": 10},
    "light": {"hidden_irreps": "64x0e+64x1o", "max_ell": 2, "r_max": 5.0, "num_bessel": 8},
}
"""The sizes that are compared; elements H and O, correlation 3, random weights."""
DEFAULTS = {
    "num_polynomial_cutoff": 5,
    "interaction_cls": "RealAgnosticResidualInteractionBlock",
    "interaction_cls_first": "RealAgnosticResidualInteractionBlock",
    "num_interactions": 2,
    "MLP_irreps": "16x0e",
    "atomic_numbers": [1, 8],
    "avg_num_neighbors": 60.0,
    "correlation": 3,
    "radial_MLP": [64, 64, 64],
    "model_cls": "ScaleShiftMACE",
    "distance_transform": "None",
    "pair_repulsion": False,
    "heads": ["Default"],
}


def build(options, seed=0, dtype="float64"):
    """A stock model with random weights, and its configuration in plain values.

    `options` are the constructor's own, except `scale`, `shift` and `energies` (E0 of each element).
    """
    import numpy as np
    import torch
    from e3nn import o3
    from mace import modules

    torch.set_default_dtype(getattr(torch, dtype))
    torch.manual_seed(seed)
    options = dict(options)
    scale, shift = options.pop("scale", 0.8), options.pop("shift", 0.1)
    energies = options.pop("energies", None)
    config = {**DEFAULTS, **options}
    keywords = {name: value for name, value in config.items() if name != "model_cls"}
    keywords["gate"] = torch.nn.functional.silu
    keywords["num_elements"] = len(config["atomic_numbers"])
    keywords["atomic_energies"] = np.array(energies or [-13.6 * z for z in config["atomic_numbers"]])
    for name in ("hidden_irreps", "MLP_irreps"):
        keywords[name] = o3.Irreps(config[name])
    for name in ("interaction_cls", "interaction_cls_first"):
        keywords[name] = modules.interaction_classes[config[name]]
    if config["model_cls"] == "ScaleShiftMACE":
        keywords.update(atomic_inter_scale=scale, atomic_inter_shift=shift)
    model = getattr(modules, config["model_cls"])(**keywords)
    return model, config


def write(path, model, config, **arrays):
    """Configuration and state of a model, with other arrays, in one compressed npz file."""
    import numpy as np

    state = {f"state/{name}": value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    np.savez_compressed(path, config=np.array(json.dumps(config)), **state, **arrays)


class Peer:
    """Answers the commands for one model."""

    def __init__(self, model, frames, dtype):
        from mace.calculators import MACECalculator

        self.frames = frames
        self.atoms = frames[0]
        self.calculator = MACECalculator(models=model, device="cpu", default_dtype=dtype)

    def use(self, index):
        self.atoms = self.frames[index]
        batch = self.calculator._atoms_to_batch(self.atoms)
        return {"n_atoms": len(self.atoms), "n_edges": int(batch["edge_index"].shape[1])}

    def time(self, n):
        return _timed(lambda: self.calculator.calculate(self.atoms), n)

    def train(self, n):
        model = self.calculator.models[0]
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        batch = self.calculator._atoms_to_batch(self.atoms)

        def step():
            model.zero_grad(set_to_none=True)
            out = model(batch.clone().to_dict(), training=True, compute_force=True)
            (out["forces"].square().mean() + out["energy"].square().mean()).backward()

        return _timed(step, n)

    def forces(self, _):
        self.calculator.calculate(self.atoms)
        results = self.calculator.results
        return {"energy": float(results["energy"]), "forces": results["forces"].tolist()}

    def rss(self, _):
        return {"peak_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _timed(function, n):
    cpu, wall = [], []
    for _ in range(n):
        start = time.process_time(), time.perf_counter()
        function()
        cpu.append(time.process_time() - start[0])
        wall.append(time.perf_counter() - start[1])
    return {"cpu_s": cpu, "wall_s": wall}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(STOCK), default="medium")
    parser.add_argument("--structures", type=Path, required=True, help="extxyz file with H and O")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="npz file for configuration and weights")
    arguments = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before torch is imported
        os.environ[name] = str(arguments.threads)
    answers, sys.stdout = sys.stdout, sys.stderr  # what the package prints must not mix with the answers

    import ase.io
    import torch

    torch.set_num_threads(arguments.threads)
    model, config = build(STOCK[arguments.model], arguments.seed, arguments.dtype)
    if arguments.write:
        write(arguments.write, model, config)
    peer = Peer(model, ase.io.read(arguments.structures, ":"), arguments.dtype)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        command, *values = line.split()
        if command == "quit":
            break
        answer = getattr(peer, command)(int(values[0]) if values else None)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
