"""A universal model, put to work: SevenNet-0 → fine-tuned on Li6PS5Cl → conductivity → a fast student.

    python examples/06_universal/run.py --checkpoint checkpoint_sevennet_0.pth        about 35 CPU-minutes

The checkpoint comes from the wheel of sevenn (docs/universal.md); MLPLUGINS_SEVENNET, the path of that wheel,
does as well. Every step is one `mlplugins` command. A killed run is continued by the same command. Writes
universal/results.json, learning_curve.png and diffusion.png.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import ase.io
import yaml

from mlplugins import plotting

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "data" / "li6ps5cl_pbe"
IN_WHEEL = "sevenn/pretrained_potentials/SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth"
TRAIN, TEST = f"{DATA}/train.extxyz", f"{DATA}/test.extxyz"
FRAMES = {5: [f"{TRAIN}@::8"], 10: [f"{TRAIN}@::4"], 20: [f"{TRAIN}@::2", f"{TRAIN}@1"], 38: [TRAIN]}
"""Training frames, each set part of the next one."""
CALIBRATION_EPOCHS = 10
KNOTS = 1025


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, help="checkpoint_sevennet_0.pth")
    parser.add_argument("-o", "--output", type=Path, default=Path("universal"), help="default: universal")
    parser.add_argument("--frames", nargs="+", type=int, choices=FRAMES, default=list(FRAMES))
    parser.add_argument("--passes", type=int, default=342, help="frames × epochs of a fine-tuning run")
    parser.add_argument("--steps", type=int, help="production steps of each MD run; default: as in md.yaml")
    parser.add_argument("--student-epochs", type=int, help="default: as in student.yaml")
    arguments = parser.parse_args()
    sizes = sorted(arguments.frames)
    teacher = f"tuned_{sizes[-1]}"
    out = arguments.output.resolve()
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = _checkpoint(arguments.checkpoint, out)
    results: dict[str, Any] = {"base": base(out, checkpoint)}
    results["fine-tuned"] = {n: finetuned(out, checkpoint, n, arguments.passes) for n in reversed(sizes)}
    results["teacher"] = dynamics(out, "teacher", _tables(out, teacher), arguments.steps)
    results["student"] = student(out, teacher, arguments.student_epochs)
    results["student"] |= dynamics(out, "student", _tables(out, "student"), arguments.steps)
    results["scratch"] = {n: scratch(out, n, results["fine-tuned"][n]["cpu_s"]) for n in sizes}
    results["ms_per_call"] = speed(out, teacher)
    (out / "results.json").write_text(json.dumps(results, indent=1))
    with plotting.style():
        plot_learning(results, out / "learning_curve.png")
        plot_diffusion(results, out / "diffusion.png")
    summary(results)
    return 0


def base(out: Path, checkpoint: Path) -> dict[str, Any]:
    """SevenNet-0 as it comes, for four elements: errors on the test set."""
    if not (out / "base.json").exists():
        mlplugins(out, f"convert {checkpoint} --elements Li P S Cl -o base.pt --json convert.json")
        mlplugins(out, f"evaluate base.pt {TEST} --json base.json")
    return _read(out / "base.json")


def finetuned(out: Path, checkpoint: Path, n: int, passes: int) -> dict[str, Any]:
    """SevenNet-0 fine-tuned on n frames."""
    content = yaml.safe_load((HERE / "finetune.yaml").read_text())
    content["base"]["checkpoint"] = str(checkpoint)
    content["data"] |= {"train": FRAMES[n], "test": TEST}
    content["training"]["epochs"] = max(1, passes // n)
    metrics = _trained(out, f"tuned_{n}", "finetune", content)
    kept = {"base": metrics["finetune"]["base_errors"]["test"], "forgetting": metrics["forgetting"]}
    return _errors(metrics) | kept


def scratch(out: Path, n: int, cpu_s: float) -> dict[str, Any]:
    """A model of our own on the same frames, for as many CPU-seconds."""
    content = yaml.safe_load((HERE / "scratch.yaml").read_text())
    content["data"] |= {"train": FRAMES[n], "test": TEST}
    content["training"]["epochs"] = CALIBRATION_EPOCHS
    epoch = _trained(out, f"calibration_{n}", "train", content)["cpu_s"] / CALIBRATION_EPOCHS
    content["training"]["epochs"] = max(1, round(cpu_s / epoch))
    if (out / f"scratch_{n}.yaml").exists():  # the length is measured once
        content = yaml.safe_load((out / f"scratch_{n}.yaml").read_text())
    return _errors(_trained(out, f"scratch_{n}", "train", content))


def student(out: Path, teacher: str, epochs: int | None) -> dict[str, Any]:
    """A small model that learns the teacher's labels of the training frames and of frames from its MD."""
    content = yaml.safe_load((HERE / "student.yaml").read_text())
    content["base"]["checkpoint"] = f"{teacher}/checkpoint.ckpt"
    content["data"]["train"] = [TRAIN, "md_teacher/lammps/*/trajectory.lammpstrj@::20"]
    content["training"]["epochs"] = epochs or content["training"]["epochs"]
    metrics = _trained(out, "student", "finetune", content)
    if not (out / "student.json").exists():
        mlplugins(out, f"evaluate student/model.pt {TEST} --json student.json")
    kept = ("validation", "n_parameters", "cpu_s", "epochs")
    frames = metrics["finetune"]["n_train_frames"]
    return {key: metrics[key] for key in kept} | {"test": _read(out / "student.json"), "n_frames": frames}


def dynamics(out: Path, name: str, model: str, steps: int | None) -> dict[str, Any]:
    """Three temperatures in LAMMPS → D, activation energy, conductivity."""
    content = yaml.safe_load((HERE / "md.yaml").read_text())
    content |= {"model": model, "structure": f"{TRAIN}@31"}
    if steps is not None:
        content |= {"steps": steps, "equilibration": {"steps": min(steps, 500)}}
    _write(out / f"md_{name}.yaml", content)
    if not (out / f"md_{name}.json").exists():
        mlplugins(out, f"simulate md_{name}.yaml -o md_{name}")
        mlplugins(out, f"conductivity md_{name}/conductivity.yaml -o report_{name} --json md_{name}.json")
    found = _read(out / f"md_{name}.json")
    return {"runs": found["runs"], "arrhenius": found["arrhenius"], "warnings": found["warnings"]}


def speed(out: Path, teacher: str) -> dict[str, float]:
    """CPU-milliseconds of energy and forces, 52 atoms with neighbour list, interleaved; medians of 15."""
    from mlplugins import MLCalculator

    atoms = ase.io.read(f"{TRAIN}@31")
    models = {
        "base": "base.pt",
        "teacher": f"{teacher}/tables.pt",
        "student": "student/tables.pt",
    }
    calculators = {name: MLCalculator(out / path) for name, path in models.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(20):
        atoms.rattle(1e-3, seed=turn)
        for name, calculator in calculators.items():
            start = time.process_time()
            calculator.calculate(atoms, ["energy", "forces"])
            times[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(values[5:]) for name, values in times.items()}


def plot_learning(results: dict[str, Any], path: Path) -> None:
    """Test errors over the number of training frames."""
    figure = plotting.canvas(plotting.PAGE, 3.0)
    axes = figure.subplots(1, 2)
    shown = (
        ("forces", "mae_meV_per_A", "force MAE (meV/Å)"),
        ("energy", "mae_meV_per_atom", "energy MAE (meV/atom)"),
    )
    names = {
        "fine-tuned": ("C0", "SevenNet-0, fine-tuned"),
        "scratch": ("C1", "small model from scratch, equal CPU time"),
    }
    for axis, (quantity, unit, label) in zip(axes, shown, strict=True):
        for name, (colour, text) in names.items():
            rows = sorted((n, row["test"][quantity][unit]) for n, row in results[name].items())
            axis.semilogx(*zip(*rows, strict=True), "o-", color=colour, label=text)
        rows = sorted((n, row["base"][quantity][unit]) for n, row in results["fine-tuned"].items())
        axis.semilogx(*zip(*rows, strict=True), "k--", label="SevenNet-0, only the energy references fitted")
        sizes = list(results["fine-tuned"])
        axis.set(xlabel="training frames", ylabel=label, xticks=sizes, xticklabels=sizes)
        axis.set_ylim(bottom=0)
        axis.minorticks_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    plotting.save(figure, path)


def plot_diffusion(results: dict[str, Any], path: Path) -> None:
    """D(Li) of teacher and student over 1000/T, 95 % intervals."""
    figure = plotting.canvas(1.2 * plotting.COLUMN, 3.0)
    axis = figure.subplots()
    for shift, (name, colour) in zip((-0.003, 0.003), (("teacher", "C0"), ("student", "C2")), strict=True):
        runs = results[name]["runs"]
        values = [run["D_cm2_s"] for run in runs]
        error = [[d["value"] - d["low"] for d in values], [d["high"] - d["value"] for d in values]]
        inverse = [1000 / run["T_K"] + shift for run in runs]
        text = f"{name}, {results['ms_per_call'][name]:.1f} CPU-ms per call"
        axis.errorbar(
            inverse, [d["value"] for d in values], error, fmt="o", color=colour, capsize=3, label=text
        )
    axis.set(yscale="log", xlabel="1000 K / T", ylabel="D(Li) (cm²/s)")
    plotting.finish(axis)
    axis.legend()
    plotting.save(figure, path)


def summary(results: dict[str, Any]) -> None:
    """The figures of the documentation."""
    print("test set as it comes:", _line(results["base"]))
    for n in results["scratch"]:
        tuned, own = results["fine-tuned"][n], results["scratch"][n]
        print(
            f"{n:3d} frames: base {_line(tuned['base'])}; fine-tuned {_line(tuned['test'])} in "
            f"{tuned['cpu_s']:.0f} CPU-s; scratch {_line(own['test'])} in {own['cpu_s']:.0f} CPU-s"
        )
    for name in ("teacher", "student"):
        for run in results[name]["runs"]:
            d = run["D_cm2_s"]
            print(f"{name}, {run['T_K']:g} K: D {d['value']:.2e} [{d['low']:.2e}, {d['high']:.2e}] cm²/s")
    print("CPU-ms per call:", results["ms_per_call"])


def mlplugins(folder: Path, command: str) -> None:
    """One command; the example ends if it fails."""
    print(f"\n$ mlplugins {command}", flush=True)
    words = [str(Path(sys.executable).parent / "mlplugins"), *shlex.split(command)]
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    code = subprocess.run(words, cwd=folder, env=environment).returncode
    if code:
        sys.exit(f"'mlplugins {command}' failed with exit code {code}")


def _trained(out: Path, name: str, verb: str, content: dict[str, Any]) -> dict[str, Any]:
    """metrics.json of a training run, which is made unless it is there."""
    _write(out / f"{name}.yaml", content)
    if not (out / name / "metrics.json").exists():
        mlplugins(out, f"{verb} {name}.yaml -o {name}")
    return _read(out / name / "metrics.json")


def _tables(out: Path, run: str) -> str:
    """The run's model with radial tables, as used in MD."""
    path = f"{run}/tables.pt"
    if not (out / path).exists():
        words = f"--radial-tables {KNOTS} --structures {TEST} --json {run}/tables.json"
        mlplugins(out, f"export {run}/checkpoint.ckpt -o {path} {words}")
    return path


def _checkpoint(given: Path | None, out: Path) -> Path:
    if given is not None:
        return given.resolve()
    wheel = os.environ.get("MLPLUGINS_SEVENNET", "")
    if not wheel.endswith(".whl"):
        sys.exit("where is SevenNet-0? give --checkpoint FILE, or the wheel of sevenn in MLPLUGINS_SEVENNET")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(IN_WHEEL, out))


def _errors(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: metrics[key] for key in ("test", "epochs", "cpu_s", "n_parameters")}


def _line(errors: dict[str, Any]) -> str:
    values = (
        errors["energy"]["mae_meV_per_atom"],
        errors["forces"]["mae_meV_per_A"],
        errors["stress"]["mae_meV_per_A3"],
    )
    return "{:.1f} meV/atom, {:.1f} meV/Å, {:.2f} meV/Å³".format(*values)


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False))


if __name__ == "__main__":
    sys.exit(main())
