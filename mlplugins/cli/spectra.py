"""Infrared, Raman and power spectra, and vibrational densities of states, with error bands.

example:
  mlplugins spectra ir mu.dat --timestep 0.5 --temperature 300
  mlplugins spectra ir run.mu_* --beads 16 --timestep 0.25 --temperature 300 --experiment water.txt
  mlplugins spectra raman alpha.npy --unit A^3 --interval 1 --temperature 300 --laser 532
  mlplugins spectra vdos run1/v.lammpstrj run2/v.lammpstrj --timestep 0.5 -o vdos

FILES are runs of one system: i-PI's extras (dipole, polarizability) and velocities, LAMMPS' fix ave/time
(c_mu[*]) and dumps, trajectories of ASE, CSV with a head of names, .npy. With --beads N every N files, in
order, are the beads of one run, whose mean is analysed. Intensities are per volume (n(ν)α(ν) in cm⁻¹) with
--volume, else of the whole system (km/mol).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mlplugins import files
from mlplugins.cli._common import Items, OutputFolder, add_json, console

KINDS = ("ir", "raman", "vdos", "power")
CORRECTIONS = ("harmonic", "standard", "schofield", "none")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins spectra`."""
    parser.add_argument("kind", choices=KINDS, help="of spectrum")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="series or trajectories")
    parser.add_argument(
        "--timestep", type=float, metavar="FS", help="MD time step, where the files count steps"
    )
    parser.add_argument("--interval", type=float, metavar="FS", help="between samples, where they do not")
    parser.add_argument(
        "--temperature", type=float, metavar="K", help="of the runs (vdos: that of the velocities)"
    )
    parser.add_argument("--volume", type=float, metavar="A3", help="intensities per volume, Å³")
    parser.add_argument(
        "--unit",
        metavar="UNIT",
        help="of the series, where the file does not say it: e*A, Debye, e*Bohr; A^3, Bohr^3, e^2*A^2/eV; "
        "A/fs, A/ps, ase; atomic",
    )
    parser.add_argument(
        "--columns", nargs="+", action=Items, default=[], metavar="NAME", help="of the table, or of frames"
    )
    parser.add_argument(
        "--order", nargs="+", action=Items, metavar="XX", help="of six components, e.g. xx yy zz yz xz xy"
    )
    parser.add_argument(
        "--species", nargs="+", action=Items, default=[], metavar="EL", help="of the atoms of .npy, of types"
    )
    parser.add_argument("--beads", type=int, metavar="N", help="files of one path integral")
    parser.add_argument("--width", type=float, metavar="CM", help="of a line, cm⁻¹ (default: 10, or more)")
    parser.add_argument("--window", type=float, metavar="FS", help="length of the window, instead of --width")
    parser.add_argument("--range", nargs=2, type=float, metavar=("LOW", "HIGH"), help="that is shown, cm⁻¹")
    parser.add_argument("--highest", type=float, metavar="CM", help="the highest mode there is, cm⁻¹")
    parser.add_argument(
        "--correction", choices=CORRECTIONS, default="harmonic", help="for quanta (default: %(default)s)"
    )
    parser.add_argument("--laser", type=float, metavar="NM", help="wave length: Raman cross sections")
    parser.add_argument(
        "--cell", nargs="+", type=float, default=[], metavar="A", help="take back jumps of the dipole by it"
    )
    parser.add_argument("--keep-jumps", action="store_true", help="of the dipole, as they are")
    parser.add_argument("--discard-ps", type=float, default=0.0, metavar="PS", help="left out at the start")
    parser.add_argument("--experiment", type=Path, metavar="FILE", help="two columns: cm⁻¹, intensity")
    parser.add_argument(
        "--experiment-scale", type=float, metavar="F", help="factor on it (default: to the same area)"
    )
    parser.add_argument("-o", "--output", type=OutputFolder, default="spectra", metavar="DIR")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Analyse, write the report, print the peaks."""
    from mlplugins.analysis.spectra.report import spectra, with_error
    from mlplugins.analysis.spectra.settings import Settings

    low, high = args.range or (0.0, None)
    settings = Settings(
        timestep_fs=args.timestep,
        interval_fs=args.interval,
        temperature_k=args.temperature,
        volume_a3=args.volume,
        unit=args.unit,
        columns=tuple(args.columns),
        order=" ".join(args.order) if args.order else None,
        species=tuple(args.species),
        beads=args.beads,
        width_cm=args.width,
        window_fs=args.window,
        low_cm=low,
        high_cm=high,
        highest_cm=args.highest,
        correction=args.correction,
        laser_nm=args.laser,
        cell=tuple(args.cell),
        keep_jumps=args.keep_jumps,
        discard_ps=args.discard_ps,
        experiment=args.experiment,
        experiment_scale=args.experiment_scale,
    )
    found = spectra(args.kind, args.files, settings, args.output)
    files.write_json(args.json, found.as_json())
    screen = console()

    def say(text: str, style: str | None = None) -> None:
        screen.print(text, style=style, soft_wrap=True, highlight=False, markup=False)

    unit = found.integral_unit
    for name, text in found.assumptions:
        if name in ("unit", "window", "quantum correction", "temperature", "volume"):
            say(f"  {name}: {text}")
    for peak in found.peaks:
        share = 100 * peak.intensity / found.integral
        say(f"{peak.position:9.1f} cm⁻¹  {with_error(peak.intensity, peak.error)} {unit}  ({share:.1f} %)")
    say(f"integral {with_error(found.integral, found.integral_error)} {unit}")
    for text in found.warnings:
        say(f"warning: {text}", "yellow")
    say(f"report: {args.output / 'report.html'}")
    return 0
