"""The stock MACE package as a peer (`serve.py`): models of fixed seeds, their weights, their time.

Runs in an environment with mace-torch (it cannot share one with e3nn ≥ 0.5):

    python benchmarks/peers/mace_stock.py water.extxyz --model medium --dtype float32 [--write medium.npz]
"""

import argparse
import json
import os
from pathlib import Path

from serve import Peer, pin, serve

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
    for name in ("hidden_irreps", "MLP_irreps", "edge_irreps"):
        if config.get(name) is not None:
            keywords[name] = o3.Irreps(config[name])
    if "readout_cls" in config:
        keywords["readout_cls"] = modules.readout_classes[config["readout_cls"]]
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


class Stock(Peer):
    """mace-torch's own calculator."""

    def __init__(self, model, frames, dtype):
        from mace.calculators import MACECalculator

        super().__init__(frames)
        self.calculator = MACECalculator(models=model, device="cpu", default_dtype=dtype)

    def evaluate(self, atoms):
        self.calculator.calculate(atoms)
        return self.calculator.results["energy"], self.calculator.results["forces"]

    def training_step(self, atoms):
        model = self.calculator.models[0]
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        batch = self.calculator._atoms_to_batch(atoms)

        def step():
            model.zero_grad(set_to_none=True)
            out = model(batch.clone().to_dict(), training=True, compute_force=True)
            (out["forces"].square().mean() + out["energy"].square().mean()).backward()

        return step


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("frames", help="extxyz file with H and O")
    parser.add_argument("--model", choices=sorted(STOCK), default="medium")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", type=Path, help="npz file for configuration and weights")
    args = parser.parse_args()
    pin(args.threads)
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # e3nn 0.4.4 cannot be imported without

    def make():
        import ase.io
        import torch

        torch.set_num_threads(args.threads)
        model, config = build(STOCK[args.model], 0, args.dtype)
        if args.write:
            write(args.write, model, config)
        return Stock(model, ase.io.read(args.frames, ":"), args.dtype)

    serve(make)


if __name__ == "__main__":
    main()
