"""Li6PS5Cl from five labelled frames and at most 24 labels by CP2K, beside the model of the whole data set.

    python 15_cp2k.py          one to two minutes of a core for each label; killed, it goes on where it was

Installs CP2K where it is missing (Debian, Ubuntu; as root). Every step is a command, printed before it runs.
"""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from ase.io import read, write

import mlplugins

DATA = "data/li6ps5cl_pbe"
START = (0, 3, 5, 10, 19)  # 300 to 900 K, four volumes, ordered and disordered
HOT = 4  # frames of 1000 K to label
HOT_MD = {"model": "potential_38/model.pt", "structure": f"{DATA}/train.extxyz@8", "temperatures": [1000]}


def run(command: str) -> None:
    """One command, as it would be typed."""
    print(f"$ {command}", flush=True)
    subprocess.run(shlex.split(command), check=True)


def install() -> None:
    """CP2K by the package manager, and a fast BLAS."""
    if shutil.which("cp2k.psmp"):
        return
    if not shutil.which("apt-get"):
        sys.exit(
            "cp2k.psmp is not on PATH, and there is no apt-get: install CP2K (https://www.cp2k.org/download)"
        )
    run("apt-get install -y cp2k libopenblas0-pthread")


def hot_frames(labels: dict, steps: int) -> None:
    """Frames of MD at 1000 K by the model of the whole set, labelled like all others."""
    Path("15_hot.yaml").write_text(yaml.safe_dump({**HOT_MD, "steps": steps}))
    Path("15_labels.yaml").write_text(yaml.safe_dump(labels))
    run("mlplugins simulate 15_hot.yaml -o hot")
    frames = read("hot/lammps/T1000_seed1/trajectory.lammpstrj", ":", format="lammps-dump-text")
    write("hot_frames.extxyz", frames[len(frames) // HOT - 1 :: len(frames) // HOT][:HOT])
    run("mlplugins label hot_frames.extxyz --config 15_labels.yaml -o hot_labelled.extxyz")


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 4000  # of 2 fs, at 1000 K
    labels = yaml.safe_load(Path("15_cp2k.yaml").read_text())["labels"]
    if labels["kind"] == "cp2k":
        install()
    frames = read(f"{DATA}/train.extxyz", ":")
    write("start.extxyz", [frames[k] for k in START])
    run("mlplugins learn 15_cp2k.yaml -o learned")
    if not Path("potential_38/model.pt").is_file():
        run("mlplugins train 01_train.yaml -o potential_38")
    hot_frames(labels, steps)
    print("\nRMSE                                 energy (meV/atom)    forces (meV/Å)")
    for name, model in (("five frames and labels", "learned"), ("38 frames", "potential_38")):
        for kind, data in (("test frames", f"{DATA}/test.extxyz"), ("1000 K", "hot_labelled.extxyz")):
            found = mlplugins.evaluate(f"{model}/model.pt", data)
            energy, forces = found["energy"]["rmse_meV_per_atom"], found["forces"]["rmse_meV_per_A"]
            print(f"{name + ', ' + kind:36} {energy:17.2f} {forces:17.1f}", flush=True)


if __name__ == "__main__":
    main()
