"""Thermal conductivity from series of the heat flux, with error bars (Green and Kubo, cepstral analysis).

example:
  mlplugins thermal run1/log.lammps run2/log.lammps --timestep 2
  mlplugins thermal flux.dat --timestep 2 --temperature 300 --volume 45100 -o kappa
  mlplugins thermal J.npy --units ase --interval 10 --temperature 80 --volume 6200
  mlplugins thermal 300K/log.lammps 400K/log.lammps 500K/log.lammps --timestep 2
  mlplugins thermal --system LiF lif-*.log --system Li3N li3n-*.log --timestep 2

FILES are runs of one system at one temperature, or at several, which the column Temp tells apart (5 %): then
κ is fitted against temperature. --system NAME FILES keeps systems apart. Read are LAMMPS logs with c_J[1]
c_J[2] c_J[3] in the thermo output (of `compute J all mlplugins/heat/flux`), the output of fix ave/time, CSV
with a head of names, or .npy (samples, 3 or more). J is the flux times the volume, as these computes give it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mlplugins import files
from mlplugins.cli._common import Items, OutputFolder, add_json, console
from mlplugins.errors import BadInput


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins thermal`."""
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="series of the heat flux")
    parser.add_argument(
        "--system",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "FILE"),
        help="the runs of one system of several; may be given again",
    )
    parser.add_argument(
        "--timestep", type=float, metavar="FS", help="MD time step, where the files count steps"
    )
    parser.add_argument("--interval", type=float, metavar="FS", help="between samples, where they do not")
    parser.add_argument("--temperature", type=float, metavar="K", help="default: mean of the column Temp")
    parser.add_argument("--volume", type=float, metavar="A3", help="default: mean of the column Volume, Å³")
    parser.add_argument(
        "--units", choices=("metal", "real", "ase"), default="metal", help="of J (default: %(default)s)"
    )
    parser.add_argument(
        "--columns", nargs="+", action=Items, default=[], metavar="NAME", help="of J: x, y and z"
    )
    parser.add_argument(
        "--others",
        nargs="+",
        action=Items,
        default=[],
        metavar="NAME",
        help="fluxes of particles to project out (liquids of several components): x, y and z of each",
    )
    parser.add_argument("--discard-ps", type=float, default=0.0, metavar="PS", help="left out at the start")
    parser.add_argument(
        "--highest", type=float, metavar="THZ", help="frequency up to which spectra are analysed"
    )
    parser.add_argument("--cut", type=float, metavar="PS", help="where the running integral is read")
    parser.add_argument("-o", "--output", type=OutputFolder, default="thermal", metavar="DIR")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Analyse, write the report, print κ."""
    from mlplugins.analysis.conduction import Settings
    from mlplugins.analysis.conduction_report import UNIT, rows
    from mlplugins.analysis.conduction_trend_report import lines, thermal
    from mlplugins.analysis.numbers import measured

    settings = Settings(
        timestep_fs=args.timestep,
        interval_fs=args.interval,
        temperature_k=args.temperature,
        volume_a3=args.volume,
        units=args.units,
        columns=tuple(args.columns),
        others=tuple(args.others),
        discard_ps=args.discard_ps,
        highest_thz=args.highest,
        cut_ps=args.cut,
    )
    found = thermal(_systems(args), settings, args.output)
    files.write_json(args.json, found.as_json())
    screen = console()

    def say(text: str, style: str | None = None) -> None:
        screen.print(text, style=style, soft_wrap=True, highlight=False, markup=False)

    if found.single is not None:
        for name, value in rows(found.single)[1:]:
            say(f"  {name}: {measured(value, UNIT)}")
    for system in found.systems:
        for point in system.points:
            name = f"{system.name}: " if system.name else ""
            say(f"{name}κ({point.temperature_k:.4g} K) = {measured(point.kappa, UNIT)}")
    for text in lines(found):
        say(text)
    for text in found.warnings:
        say(f"warning: {text}", "yellow")
    say(f"report: {args.output / 'report.html'}")
    return 0


def _systems(args: argparse.Namespace) -> dict[str, list[Path]]:
    """Files by system; "" is the only one."""
    if not args.system:
        return {"": args.files}
    if args.files:
        raise BadInput(
            f"'{args.files[0]}' belongs to no system: expected --system NAME FILES for all files, or for none"
        )
    found: dict[str, list[Path]] = {}
    for name, *paths in args.system:
        if not paths or name in found:
            raise BadInput(
                f"--system {name}: "
                + ("named twice" if name in found else "expected its files behind the name")
            )
        found[name] = [Path(path) for path in paths]
    return found
