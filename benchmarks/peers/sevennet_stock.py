"""The stock sevenn package as a peer (`serve.py`).

Runs in an environment with sevenn and knows nothing of mlplugins:

    python benchmarks/peers/sevennet_stock.py water.extxyz [--model 7net-0]
"""

import argparse

from serve import Peer, pin, serve


class Stock(Peer):
    """sevenn's own calculator."""

    def __init__(self, model, frames):
        from sevenn.calculator import SevenNetCalculator

        super().__init__(frames)
        self.calculator = SevenNetCalculator(model, device="cpu")
        self.checkpoint = model

    def evaluate(self, atoms):
        self.calculator.calculate(atoms)
        return self.calculator.results["energy"], self.calculator.results["forces"]

    def training_step(self, atoms):
        from ase.calculators.singlepoint import SinglePointCalculator
        from sevenn.train.dataload import graph_build
        from sevenn.util import load_checkpoint
        from torch_geometric.loader import DataLoader

        model = load_checkpoint(self.checkpoint).build_model()
        model.set_is_batch_data(True)
        model = model.train()
        atoms = atoms.copy()
        zeros = {"energy": 0.0, "forces": 0.0 * atoms.positions, "stress": 0.0 * atoms.cell.array.ravel()[:6]}
        atoms.calc = SinglePointCalculator(atoms, **zeros)
        (batch,) = DataLoader(graph_build([atoms], self.calculator.cutoff, y_from_calc=True), batch_size=1)

        def step():
            model.zero_grad(set_to_none=True)
            out = model(batch.clone())
            (out["inferred_total_energy"].square().mean() + out["inferred_force"].square().mean()).backward()

        return step


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("frames", help="extxyz file")
    parser.add_argument(
        "--model", default="7net-0", help="name or checkpoint file; default: 7net-0 (11Jul2024)"
    )
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    pin(args.threads)

    def make():
        import ase.io
        import torch

        torch.set_num_threads(args.threads)
        return Stock(args.model, ase.io.read(args.frames, ":"))

    serve(make)


if __name__ == "__main__":
    main()
