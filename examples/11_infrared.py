"""The infrared spectrum of a molecule: labels by GFN2-xTB → potential with dipole → MD → spectrum.

    pip install "mlplugins[labels,lammps]"
    python examples/11_infrared.py -o infrared            about four minutes on two cores

Formaldehyde moves at 500 K by GFN2-xTB (tblite), whose energies, forces and dipoles train a potential. LAMMPS
runs from several start velocities at 300 K, writes the dipole, and `mlplugins spectra` makes the spectrum,
which is compared with the harmonic lines of the potential and of GFN2-xTB itself.
"""

# %% Setup
from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixCom
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.optimize import BFGS
from ase.vibrations import Infrared
from tblite.ase import TBLite

import mlplugins
from mlplugins.analysis.spectra.settings import Settings

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("-o", "--output", type=Path, default=Path("infrared"))
parser.add_argument("--frames", type=int, default=400)
parser.add_argument("--epochs", type=int, default=150)
parser.add_argument("--runs", type=int, default=6)
parser.add_argument("--steps", type=int, default=20000, help="of 0.5 fs, in each run")
parser.add_argument("--processes", type=int, default=2, help="runs at the same time")
arguments = parser.parse_args()
folder: Path = arguments.output.resolve()
folder.mkdir(parents=True, exist_ok=True)
KELVIN, STEP_FS = 300.0, 0.5

# %% 1. The unit of the dipoles
# A dipole of an ion moves with it: by e·Å for each Å, if that is its unit.
ion = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]])
moments = []
for shift in (0.0, 1.0):
    ion.positions[:, 0] = shift
    ion.calc = TBLite(method="GFN2-xTB", charge=-1, verbosity=0)
    moments.append(ion.get_dipole_moment())
slope = float(moments[1][0] - moments[0][0])
if abs(slope + 1) > 1e-6:
    raise SystemExit(f"dipoles are not in e·Å: OH⁻ moved by 1 Å changes its dipole by {slope}")
print(f"1. tblite's dipoles are in e·Å: that of OH⁻ changes by {slope:.6f} per Å")

# %% 2. Label frames
molecule = Atoms("OCH2", [[0, 0, 0], [0, 0, 1.2], [0.94, 0, 1.79], [-0.94, 0, 1.79]])
molecule.calc = TBLite(method="GFN2-xTB", verbosity=0)
BFGS(molecule, logfile=None).run(fmax=1e-4)
rest = molecule.copy()
thermalize_momenta(molecule, temperature_K=500, rng=np.random.default_rng(1))
molecule.set_constraint(FixCom())
dynamics = Langevin(
    molecule,
    units.fs,
    temperature_K=500,
    friction=0.02 / units.fs,
    fixcm=False,
    rng=np.random.default_rng(2),
)
frames: list[Atoms] = []
while len(frames) < arguments.frames:
    dynamics.run(10)
    frame = Atoms(molecule.symbols, molecule.positions, info={"mu": molecule.get_dipole_moment()})
    energy, forces = molecule.get_potential_energy(), molecule.get_forces(apply_constraint=False)
    frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces)
    frames.append(frame)
write(folder / "frames.extxyz", frames)
print(f"2. {len(frames)} frames by GFN2-xTB: {folder / 'frames.extxyz'}")

# %% 3. Train
model = folder / "model" / "model.pt"
if not model.exists():
    configuration = {
        "data": {"train": str(folder / "frames.extxyz"), "validation": 0.1},
        "heads": {"dipole": {"unit": "e*A", "key": "mu", "width": 16}},
        "model": {
            "family": "nequip",
            "cutoff": 4.0,
            "num_layers": 2,
            "num_features": 12,
            "l_max": 2,
            "radial_mlp": [32],
        },
        "training": {"epochs": arguments.epochs, "batch_size": 10, "lr": 0.01, "dtype": "float32"},
    }
    trained = mlplugins.train(configuration, folder / "model")
    errors = trained.metrics["validation"]
    print(
        f"3. validation: forces {errors['forces']['rmse_meV_per_A']:.1f} meV/Å, dipole "
        f"{errors['dipole']['rmse_me_A_per_atom']:.2f} me·Å/atom (RMSE)"
    )

# %% 4. Molecular dynamics in LAMMPS
BOX = 30.0
DECK = """\
units metal
boundary p p p
read_data start.data
mass 1 15.999
mass 2 12.011
mass 3 1.008
pair_style mlplugins {model}
pair_coeff * * O C H
neighbor 2.0 bin
timestep {step}
velocity all create {kelvin} {seed} mom yes rot yes dist gaussian
fix warm all langevin {kelvin} {kelvin} 0.1 {seed}
fix move all nve
run {warm}
unfix warm
fix mix all langevin {kelvin} {kelvin} 1.0 {seed} # modes of a molecule exchange little energy
velocity all zero linear
compute mu all pair mlplugins
fix mu all ave/time 2 1 2 c_mu[*] file mu.dat format " %.8g"
thermo 500
run {steps}
"""
rest.set_cell([BOX] * 3)
rest.center()
jobs: list[subprocess.Popen[bytes]] = []
series: list[Path] = []
for seed in range(1, arguments.runs + 1):
    here = folder / f"run{seed}"
    here.mkdir(exist_ok=True)
    write(here / "start.data", rest, format="lammps-data", specorder=["O", "C", "H"], masses=False)
    values = {"model": model, "step": STEP_FS / 1000, "kelvin": KELVIN, "seed": 4711 + seed}
    (here / "in.lmp").write_text(
        DECK.format(**values, steps=arguments.steps, warm=max(1000, arguments.steps // 10))
    )
    while sum(job.poll() is None for job in jobs) >= arguments.processes:
        next(job for job in jobs if job.poll() is None).wait()
    command = [shutil.which("lmp") or "lmp", "-in", "in.lmp", "-log", "log.lammps", "-screen", "none"]
    jobs.append(subprocess.Popen(command, cwd=here))
    series.append(here / "mu.dat")
if any(job.wait() for job in jobs):
    raise SystemExit(f"LAMMPS failed: see log.lammps in {folder}")
print(f"4. {len(series)} runs of {arguments.steps * STEP_FS / 1000:g} ps")

# %% 5. The spectrum, beside harmonic lines
settings = Settings(timestep_fs=STEP_FS, temperature_k=KELVIN, high_cm=4000.0)
found = mlplugins.spectra("ir", series, settings, folder / "report")


def harmonic(calculator: Calculator, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Wave numbers, cm⁻¹, and intensities, km/mol."""
    atoms = rest.copy()
    atoms.set_cell(None)
    atoms.calc = calculator
    BFGS(atoms, logfile=None).run(fmax=1e-3)
    lines = Infrared(atoms, name=str(folder / name))
    lines.clean()
    lines.run()
    return lines.get_frequencies()[-6:].real, 42.2561 * lines.intensities[-6:]


of_model = harmonic(mlplugins.MLCalculator(model), "harmonic-model")
of_xtb = harmonic(TBLite(method="GFN2-xTB", verbosity=0), "harmonic-xtb")
print("5. harmonic: potential (cm⁻¹, km/mol)     GFN2-xTB")
for a, b, c, d in zip(*of_model, *of_xtb, strict=True):
    print(f"   {a:19.0f} {b:10.2f} {c:16.0f} {d:10.2f}")
print("   molecular dynamics (cm⁻¹, km/mol)")
for peak in found.peaks:
    print(f"   {peak.position:19.0f} {peak.intensity:10.2f} ± {peak.error:.2f}")
above = found.per_cm > 700.0  # not the rotation
total = float(np.trapezoid(found.main[above], found.per_cm[above]))
print(
    f"   all above 700 cm⁻¹: MD {total:.1f}, harmonic {of_model[1].sum():.1f}, GFN2-xTB "
    f"{of_xtb[1].sum():.1f} km/mol"
)
for text in found.warnings:
    print(f"   warning: {text}")
print(f"   report: {folder / 'report' / 'report.html'}")
