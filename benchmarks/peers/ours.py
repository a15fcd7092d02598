"""A model.pt through MLCalculator as a peer (`serve.py`); its checkpoint for training steps.

python benchmarks/peers/ours.py water.extxyz --model model.pt [--source mace:medium.npz | --source FILE]
"""

import argparse
import copy
import json

from serve import Peer, pin, serve


def potential_of(source):
    """The checkpoint behind a model: foreign file, or `mace:FILE.npz` as mace_stock.py writes it."""
    import numpy as np
    import torch

    from mlplugins import checkpoints
    from mlplugins.checkpoints import mace

    if not source.startswith("mace:"):
        from pathlib import Path

        return checkpoints.reader(Path(source)).read(Path(source))
    with np.load(source[5:]) as file:
        config = json.loads(str(file["config"]))
        state = {name[6:]: torch.from_numpy(file[name]) for name in file.files if name.startswith("state/")}
    return mace.from_state(mace.HomeConfig(**config), state)


class Ours(Peer):
    """MLCalculator with the neighbour list of every step, as the stock calculators do it."""

    def __init__(self, model, source, frames):
        from mlplugins import MLCalculator

        super().__init__(frames)
        self.source = source
        self.calculator = MLCalculator(model, skin=0.0)

    def evaluate(self, atoms):
        self.calculator.calculate(atoms, ["energy", "forces"])
        return self.calculator.results["energy"], self.calculator.results["forces"]

    def training_step(self, atoms):
        import torch

        from mlplugins.models.base import energy_derivatives
        from mlplugins.structures.batch import graph_of

        checkpoint = potential_of(self.source)
        model = copy.deepcopy(checkpoint.potential).float()
        model.use_native_ops()
        model.train()
        graph = graph_of(atoms, checkpoint.elements, model.cutoff, torch.float32)
        graph.vectors.requires_grad_()
        weights = list(model.parameters())

        def step():
            model.zero_grad(set_to_none=True)
            energy = model(graph)["energy"]
            forces, _ = energy_derivatives(energy, graph, 1, create_graph=True)
            (forces.square().mean() + energy.sum().square()).backward(inputs=weights)

        return step


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("frames", help="extxyz file")
    parser.add_argument("--model", required=True)
    parser.add_argument("--source", help="for training steps")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    pin(args.threads)

    def make():
        import ase.io
        import torch

        torch.set_num_threads(args.threads)
        return Ours(args.model, args.source, ase.io.read(args.frames, ":"))

    serve(make)


if __name__ == "__main__":
    main()
