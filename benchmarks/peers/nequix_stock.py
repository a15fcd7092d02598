"""The stock nequix package, on its PyTorch backend (eager), as a peer (`serve.py`).

Runs in an environment with nequix, here benchmarks/.envs/nequix, and knows nothing of mlplugins:

    pip install torch==2.13.0 "jax[cpu]" e3nn-jax equinox jraph optax ase matscipy h5py pyyaml cloudpickle
    pip install tqdm e3nn torch-geometric && pip install --no-deps nequix==0.4.5
    python benchmarks/peers/nequix_stock.py water.extxyz --model nequix-mp-1.nqx
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from serve import Peer, pin, serve


class Stock(Peer):
    """nequix's own calculator."""

    def __init__(self, model, frames):
        from nequix.calculator import NequixCalculator

        super().__init__(frames)
        with tempfile.TemporaryDirectory() as folder:  # it writes its .pt beside the .nqx
            copy = shutil.copy(model, Path(folder) / "model.nqx")
            self.calculator = NequixCalculator(model_path=copy, backend="torch", use_kernel=False)

    def evaluate(self, atoms):
        self.calculator.calculate(atoms)
        return self.calculator.results["energy"], self.calculator.results["forces"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("frames", help="extxyz file")
    parser.add_argument("--model", required=True, help=".nqx file")
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
