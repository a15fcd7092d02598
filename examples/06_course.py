"""The exercise of a course on materials modelling, step by step: from a pair potential to D, Ea and D0.

    python examples/06_course.py                       about a minute; results under course/
    python examples/06_course.py --campaign DIR        instead of the model electrolyte, the trajectories of
                                                       `mlplugins simulate` (its conductivity.yaml)

Cells are marked `# %%`: editors run them one by one as a notebook. Without a potential at hand the
electrolyte is a model: Li ions in the periodic field of a tetragonal host with the barriers reported for
Li10GeP2S12 (0.17 eV along c, 0.28 eV across), moved by Langevin dynamics. Everything after the
trajectories is as for the real thing.
"""

# %% Setup
from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.io import write
from scipy.optimize import minimize

from mlplugins.analysis.msd import mean_squared_displacement
from mlplugins.analysis.trajectory import ReadSettings, read_trajectory
from mlplugins.cli.main import main as mlplugins
from mlplugins.units import ASE_TIME_PER_FS, BOLTZMANN_EV_K, CM2_S_PER_A2_PS

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("-o", "--output", type=Path, default=Path("course"))
parser.add_argument("--campaign", type=Path, help="folder of `mlplugins simulate`")
parser.add_argument("--frames", type=int, default=1600, help="of each trajectory of the model electrolyte")
arguments = parser.parse_args()
folder: Path = arguments.output
folder.mkdir(parents=True, exist_ok=True)
random = np.random.default_rng(0)

# %% 1. Fit a Lennard-Jones potential to energies of argon
# Reference energies come from a Lennard-Jones potential that the fit does not know, with noise of
# 0.2 meV/atom; a course takes them from DFT. E = 4 ε Σ [(σ/r)¹² − (σ/r)⁶] over pairs closer than 10 Å.
EPSILON, SIGMA, CUTOFF = 0.0104, 3.40, 10.0


def pair_sums(atoms: Atoms) -> tuple[float, float]:
    """Σ r⁻¹² and Σ r⁻⁶ over pairs: the energy is linear in 4εσ¹² and 4εσ⁶, one pass is enough."""
    from ase.neighborlist import neighbor_list

    distance = neighbor_list("d", atoms, CUTOFF)
    return 0.5 * float((distance**-12).sum()), 0.5 * float((distance**-6).sum())


frames = []
for lattice in np.linspace(5.0, 5.8, 12):
    atoms = bulk("Ar", "fcc", a=lattice, cubic=True)
    atoms.rattle(0.1, rng=random)
    frames.append(atoms)
sums = np.array([pair_sums(atoms) for atoms in frames])
reference = 4 * EPSILON * (SIGMA**12 * sums[:, 0] - SIGMA**6 * sums[:, 1])
reference += 2e-4 * 4 * random.normal(size=len(frames))


def squared_error(parameters: np.ndarray) -> float:
    epsilon, sigma = parameters
    energy = 4 * epsilon * (sigma**12 * sums[:, 0] - sigma**6 * sums[:, 1])
    return float(((energy - reference) ** 2).mean()) * 1e6


fit = minimize(squared_error, x0=[0.005, 3.7], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-8})
epsilon, sigma = fit.x
print(
    f"1. argon: ε = {epsilon:.5f} eV (true {EPSILON}), σ = {sigma:.4f} Å (true {SIGMA}), {fit.nit} iterations"
)
check = frames[0].copy()
check.calc = LennardJones(epsilon=epsilon, sigma=sigma, rc=CUTOFF, smooth=False)
shift = (
    4 * epsilon * ((sigma / CUTOFF) ** 12 - (sigma / CUTOFF) ** 6)
)  # ASE shifts the energy to zero at the cutoff
from ase.neighborlist import neighbor_list  # noqa: E402

pairs = len(neighbor_list("i", check, CUTOFF)) / 2
own = 4 * epsilon * (sigma**12 * sums[0, 0] - sigma**6 * sums[0, 1])
print(
    f"   the same frame by ASE: {check.get_potential_energy() + pairs * shift:.6f} eV, by the sums: "
    f"{own:.6f} eV"
)

# %% 2. An electrolyte at three temperatures
TEMPERATURES = (600, 800, 1000)
BARRIERS = np.array([0.28, 0.28, 0.17])  # eV, along a, b, c
REPEAT = np.array([8.79 / 2, 8.79 / 2, 12.66 / 4])  # Å between sites
IONS, STEP_FS, EVERY, FRAMES, FRICTION = 80, 4.0, 25, arguments.frames, 0.005  # friction in 1/fs
ACCELERATION = ASE_TIME_PER_FS**2 / 6.94  # eV/(Å u) → Å/fs², for Li


def langevin(temperature: float, seed: int) -> np.ndarray:
    """Unwrapped positions (frames, ions, 3), Å: BAOAB steps in U = Σ_axis Eb/2 (1 − cos 2πx/a)."""
    noise = np.random.default_rng(seed)
    spread = np.sqrt(BOLTZMANN_EV_K * temperature * ACCELERATION)
    keep = np.exp(-FRICTION * STEP_FS)
    kick = np.sqrt(1 - keep**2) * spread
    wave = 2 * np.pi / REPEAT
    position = REPEAT * noise.integers(0, 4, (IONS, 3)).astype(float)
    velocity = spread * noise.normal(size=(IONS, 3))
    stored = np.empty((FRAMES, IONS, 3))
    strength = -0.25 * STEP_FS * ACCELERATION * BARRIERS * wave  # of half a step
    force = strength * np.sin(wave * position)
    for step in range(FRAMES * EVERY):
        velocity += force
        position += 0.5 * STEP_FS * velocity
        velocity = keep * velocity + kick * noise.normal(size=velocity.shape)
        position += 0.5 * STEP_FS * velocity
        force = strength * np.sin(wave * position)
        velocity += force
        if step % EVERY == 0:
            stored[step // EVERY] = position
    return stored


CELL = REPEAT * 4
if arguments.campaign is None:
    lines = [
        "species: Li",
        "charge: 1",
        f"timestep: {STEP_FS}",
        f"interval: {EVERY}",
        "discard_ps: 5",
        "runs:",
    ]
    for number, temperature in enumerate(TEMPERATURES):
        moved = langevin(temperature, number)
        host = CELL * random.random((8, 3))
        images = []
        for ions in moved:
            frame = Atoms(f"Li{IONS}S8", np.concatenate([ions, host]), cell=CELL, pbc=True)
            frame.wrap()
            images.append(frame)
        write(folder / f"{temperature}K.extxyz", images, columns=["symbols", "positions"])
        lines.append(f"  - {{files: [{temperature}K.extxyz], temperature: {temperature}}}")
    (folder / "runs.yaml").write_text("\n".join(lines) + "\n")
    source, example = folder / "runs.yaml", folder / f"{TEMPERATURES[-1]}K.extxyz"
else:
    source, example = arguments.campaign / "conductivity.yaml", None
print(f"2. trajectories: {source}")

# %% 3. The mean squared displacement by hand
# ⟨|r(t + τ) − r(t)|²⟩ over all time origins and ions: two lines, and O(F²). The FFT does it in O(F log F).
if example is not None:
    run = read_trajectory([example], ReadSettings("Li", timestep_fs=STEP_FS, interval=EVERY))
    paths = run.displacements
    lags = np.arange(1, 200)
    by_hand = np.array([((paths[lag:] - paths[:-lag]) ** 2).sum(axis=2).mean() for lag in lags])
    by_fft = mean_squared_displacement(paths)[lags].sum(axis=1)
    print(f"3. own MSD against the package: largest difference {np.abs(by_hand / by_fft - 1).max():.1e}")
    time = lags * run.interval_fs / 1000
    slope = np.polyfit(time[20:], by_hand[20:], 1)[0]
    print(f"   D at {TEMPERATURES[-1]} K from a straight line: {slope / 6 * CM2_S_PER_A2_PS:.3g} cm²/s")

# %% 4. D, Ea, D0 and σ with error bars
code = mlplugins(
    ["conductivity", str(source), "-o", str(folder / "report"), "--json", str(folder / "results.json")]
)
if code:
    raise SystemExit(code)
results = json.loads((folder / "results.json").read_text())

# %% 5. The Arrhenius line by hand, and what the barriers say
temperatures = np.array([entry["T_K"] for entry in results["runs"]])
d = np.array([entry["D_cm2_s"]["value"] for entry in results["runs"]])
line = np.polyfit(1 / (BOLTZMANN_EV_K * temperatures), np.log(d), 1)
law = results["arrhenius"]
print(f"5. unweighted line: Ea = {-line[0]:.3f} eV, D0 = {np.exp(line[1]):.3g} cm²/s")
ea, d0 = law["Ea_eV"], law["D0_cm2_s"]
print(f"   weighted, 95 %: Ea = {ea['value']:.3f} [{ea['low']:.3f}, {ea['high']:.3f}] eV,")
print(f"                   D0 = {d0['value']:.3g} [{d0['low']:.3g}, {d0['high']:.3g}] cm²/s")
for entry in results["runs"]:
    x, y, z = (value["value"] for value in entry["D_axes_cm2_s"])
    print(f"   {entry['T_K']:g} K: D along a, b, c = {x:.2g}, {y:.2g}, {z:.2g} cm²/s")
print(f"   report: {folder / 'report' / 'report.html'}")
