"""Makes the figures of the pages to be typed along: python docs/images/make.py (ten minutes on one core).

The others: `demo.png` is of `make demo` and `make readme`, `speed.png` of benchmarks/speed.py,
`universal_*.png` of examples/06_universal.
"""

import shutil
import tempfile
from pathlib import Path

import mlplugins
from mlplugins.testing.walks import LatticeWalk, crystal, write_lammps_dump

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"


def main() -> None:
    """Train and analyse as the pages do, and keep the figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mlplugins.train(EXAMPLES / "01_train.yaml", folder / "potential")
        for figure in ("learning", "parity"):
            shutil.copy(folder / "potential" / f"{figure}.png", HERE / f"first_{figure}.png")
        walk = LatticeWalk(frames=1000, ions=60, hop=2.5, rate=0.4, frame_ps=0.1)
        write_lammps_dump(crystal(walk), folder / "600K.lammpstrj", every=50)
        run = {"files": [str(folder / "600K.lammpstrj")], "temperature": 600}
        settings = {"species": "Li", "charge": 1, "timestep": 2.0, "runs": [run]}
        mlplugins.conductivity(settings, folder / "report")
        shutil.copy(folder / "report/msd.png", HERE / "analyst_msd.png")


if __name__ == "__main__":
    main()
