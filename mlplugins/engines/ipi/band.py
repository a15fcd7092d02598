"""Paths in i-PI: its NEB mover, with an image for each bead and the driver in its own process."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree

import ase.io
import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mlplugins.dynamics.output import last_lines, last_table_step, tail
from mlplugins.dynamics.run import Command, Stage, threads
from mlplugins.engines.band import ImageBand, Relaxed, drive
from mlplugins.engines.ipi.program import driver_file, program, sockets_prefix
from mlplugins.engines.ipi.xyz import upright, write_xyz
from mlplugins.errors import RunFailed
from mlplugins.structures import state as states
from mlplugins.units import A_PER_BOHR, EV_PER_HARTREE

INPUT, START, TEMPLATE, PREFIX, SCREEN = "neb.xml", "start.xyz", "template.extxyz", "neb", "screen.out"
LAST, CHECKPOINT = "RESTART", f"{PREFIX}.chk"
"""i-PI's state at its end, and the one of every few steps."""
EVERY = 5
LONGEST_STEP = 3.0
"""Of FIRE, atomic units with masses of 1: stable up to 4/3² hartree/bohr² (43 eV/Å²); i-PI's own is 1."""
CLIMBED = "NEB_CLIMB finished successfully"
FINISHED = "NEB finished successfully"


def relax(band: ImageBand) -> Relaxed:
    """Optimise by FIRE; then only the highest image climbs, as i-PI does it.

    Raises:
        MissingDependency: i-PI is not installed.
        RunFailed: i-PI ended with an error.
    """
    sockets_prefix()
    images = _begun(band)
    turned = [upright(atoms) for atoms in images]
    frames = []
    for atoms, _ in turned:
        write_xyz(band.directory / START, atoms)
        frames.append((band.directory / START).read_text(encoding="utf-8"))
    (band.directory / START).write_text("".join(frames), encoding="utf-8")
    ase.io.write(
        band.directory / TEMPLATE, turned[0].atoms, format="extxyz", columns=["symbols", "positions"]
    )
    (band.directory / INPUT).write_text(_input(band), encoding="utf-8")
    for old in (*band.directory.glob(f"{PREFIX}.*"), band.directory / LAST):
        if old.name != INPUT:
            old.unlink(missing_ok=True)
    command = Command((sys.executable, program(), INPUT), SCREEN, threads(1))
    (band.directory / SCREEN).unlink(missing_ok=True)
    log = band.directory / f"{PREFIX}.out"
    status = drive(Stage("i-pi neb", command), band, lambda: last_table_step(log))
    found = _checkpoint(band)
    if status != 0 or found is None:
        said = " | ".join(last_lines(band.directory / SCREEN, 4)) or "no output"
        raise RunFailed(f"i-PI stopped in {band.directory / INPUT} (exit code {status}): {said}")
    positions, energies = found
    end = CLIMBED if band.climb else FINISHED
    return Relaxed(
        band.with_positions(positions @ turned[0].rotation.T),
        energies,
        last_table_step(log),
        end in tail(band.directory / SCREEN),
    )


def _input(band: ImageBand) -> str:
    """i-PI's force criterion is of components, its energies are per atom and its steps in bohr."""
    first = band.images[0]
    said = states.keywords(first.info, states.NAMES)
    parameters = {"model": band.model, "template": TEMPLATE, "device": band.device, **said}
    listed = ",".join(f"{name}:{value}" for name, value in parameters.items())
    fixed = f"<fixatoms> [{', '.join(map(str, band.fixed))}] </fixatoms>" if len(band.fixed) else ""
    per_step = EV_PER_HARTREE / A_PER_BOHR**2
    total = 2 * band.steps if band.climb else band.steps
    return f"""\
<!-- path of {len(band.images)} images; run with: i-pi {INPUT} -->
<simulation mode='static' verbosity='medium' safe_stride='{EVERY}'>
  <output prefix='{PREFIX}'>
    <properties filename='out' stride='1'> [ step, bead_potentials{{electronvolt}} ] </properties>
    <checkpoint filename='chk' stride='{EVERY}' overwrite='True'/>
  </output>
  <total_steps> {total} </total_steps>
  <prng> <seed> 1 </seed> </prng>
  <ffdirect name='model' pbc='False'>
    <pes>custom</pes> <pes_path>{driver_file()}</pes_path>
    <parameters> {{{listed}}} </parameters>
  </ffdirect>
  <system>
    <initialize nbeads='{len(band.images)}'> <file mode='xyz'> {START} </file> </initialize>
    <forces> <force forcefield='model'/> </forces>
    <motion mode='neb'>
      <fixcom> False </fixcom> {fixed}
      <neb_optimizer mode='fire'>
        <tolerances>
          <energy> 1 </energy>
          <force units='ev/ang'> {band.fmax / np.sqrt(3):.10g} </force>
          <position> 1 </position>
        </tolerances>
        <spring> <varsprings> False </varsprings> <kappa> {band.spring / per_step:.10g} </kappa> </spring>
        <use_climb> {band.climb} </use_climb>
        <dtmax_fire> {LONGEST_STEP:g} </dtmax_fire>
      </neb_optimizer>
    </motion>
    <ensemble> <temperature units='kelvin'> 300 </temperature> </ensemble>
  </system>
</simulation>
"""


def _begun(band: ImageBand) -> tuple[Atoms, ...]:
    """The images that an interrupted call has saved, else the given ones."""
    found = _checkpoint(band)
    if found is None:
        return band.images
    return band.with_positions(found[0] @ upright(band.images[0]).rotation.T)


def _checkpoint(band: ImageBand) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """(M, N, 3) positions in i-PI's frame, Å, and (M,) energies, eV; None without a whole checkpoint."""
    shape = len(band.images), len(band.images[0]), 3
    for name in (LAST, CHECKPOINT):
        try:
            root = ElementTree.parse(band.directory / name).getroot()
            positions = _numbers(root.findtext(".//beads/q")).reshape(shape)
            energies = _numbers(root.findtext(".//full_pots")).reshape(shape[0])
        except (OSError, ElementTree.ParseError, ValueError):
            continue
        return A_PER_BOHR * positions, EV_PER_HARTREE * energies
    return None


def _numbers(text: str | None) -> NDArray[np.float64]:
    return np.array([float(word) for word in re.findall(r"[^\s,\[\]]+", text or "")])
