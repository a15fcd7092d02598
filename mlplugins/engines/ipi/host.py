"""i-PI: start configuration, XML of each stage, driver line; stages linked by checkpoints."""

from __future__ import annotations

import hashlib
import itertools
import shlex
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms

from mlplugins.dynamics.output import cut_frames, cut_table, largest, last_lines, last_table_step, table
from mlplugins.dynamics.run import Command, Run, Stage, require_axes, threads
from mlplugins.dynamics.start import thermal
from mlplugins.engines.ipi.program import program, sockets_prefix
from mlplugins.engines.ipi.xyz import upright, whole_frames, write_xyz
from mlplugins.units import A_FS_PER_ATOMIC_VELOCITY, ASE_TIME_PER_FS, BOLTZMANN_EV_K

START, MEAN_CELL, TEMPLATE, RESUME = "init.xyz", "mean_cell.xyz", "template.extxyz", "resume.xml"
NPT, EQUILIBRATION, PRODUCTION = "npt", "equilibration", "simulation"
CENTROIDS = "xc"
SCREEN, DRIVER_SCREEN = "screen.out", "driver.out"
KEPT_CHECKPOINTS = 2
TEMPERATURE_COLUMN, KINETIC_COLUMN, VOLUME_COLUMN, CELL_COLUMNS = 3, 4, 7, slice(8, 14)
"""Of the properties below. i-PI's own temperature adds the wanted one for every component that is held."""

THERMOSTATS = {"csvr": "svr", "langevin": "langevin"}
RING_POLYMER_THERMOSTATS = {"csvr": "pile_g", "langevin": "pile_l", "pile": "pile_l"}
BAROSTATS = {"iso": "isotropic", "aniso": "flexible", "flexible": "flexible"}
REASON = {
    "pile_g": "PILE-G: csvr on the centroid, Langevin on the other modes (Ceriotti 2010)",
    "pile_l": "PILE-L: Langevin on every mode (Ceriotti 2010); not for D or conductivity",
    "svr": "svr (stochastic velocity rescaling, Bussi 2007): canonical, and diffusion is left as in NVE",
    "langevin": "Langevin: its friction slows diffusion; not for D or conductivity",
}


def require(run: Run) -> None:
    """Refuse if i-PI is missing."""
    sockets_prefix()
    program()
    require_axes(run, upright(run.atoms).rotation, "i-PI")


def trajectories(run: Run) -> list[Path]:
    """The files that hold the production frames, in order; of a ring polymer its centroids."""
    name = "pos_0" if run.config.beads == 1 else CENTROIDS
    return [run.directory / f"{PRODUCTION}.{name}.xyz"]


def write(run: Run) -> None:
    """Write the start configuration, one XML per stage and the command lines (run.sh)."""
    atoms = upright(run.atoms).atoms
    write_xyz(run.directory / START, atoms)
    if not run.periodic:
        ase.io.write(run.directory / TEMPLATE, atoms, format="extxyz")
    stages = _stages(run)
    for stage in stages:
        (run.directory / f"{stage}.xml").write_text(xml(run, stage), encoding="utf-8")
    lines = [
        "#!/bin/sh",
        f"# {run.title}",
        'cd "$(dirname "$0")"',
        f"export OMP_NUM_THREADS={run.config.threads}",
    ]
    for stage in stages:
        lines += [
            f"i-pi {stage}.xml &",
            " ".join(["mlplugins", *map(shlex.quote, _driver_arguments(run))]),
            "wait",
        ]
    if NPT in stages:
        lines.append(
            "# between npt and what follows `mlplugins simulate` scales mean_cell.xyz to the mean volume"
        )
        write_xyz(run.directory / MEAN_CELL, atoms)
    (run.directory / "run.sh").write_text("\n".join(lines) + "\n", encoding="utf-8")


def next_stage(run: Run) -> Stage | None:
    """What to start now; None if the run is complete. Cuts the output back to the checkpoint used."""
    for stage, steps in _stages(run).items():
        if _checkpoint_step(run.directory / f"{stage}.end") == steps:
            if stage == NPT:
                _write_mean_cell(run)
            continue
        checkpoint = _newest_checkpoint(run.directory, stage)
        if checkpoint is None:
            _remove_output(run.directory, stage)
            return _stage(run, f"{stage}.xml", f"{stage} from the start")
        step = _checkpoint_step(checkpoint)
        for frames in run.directory.glob(f"{stage}.*.xyz"):
            cut_frames(frames, whole_frames, before=step + 1)
        cut_table(run.directory / f"{stage}.out", before=step + 1)
        _write_resume(run, checkpoint, steps)
        return _stage(run, RESUME, f"{stage} from step {step}")
    return None


def steps_done(run: Run) -> int:
    """Steps of all stages."""
    stages = _stages(run).items()
    return sum(min(steps, last_table_step(run.directory / f"{stage}.out")) for stage, steps in stages)


def prune(run: Run) -> None:
    """Remove checkpoints that are no longer needed."""
    for stage in _stages(run):
        for old in _checkpoints(run.directory, stage)[KEPT_CHECKPOINTS:]:
            old.unlink(missing_ok=True)


def has_state(run: Run) -> bool:
    """Whether a checkpoint of the production is there to continue from."""
    return _newest_checkpoint(run.directory, PRODUCTION) is not None


def hottest(run: Run) -> float:
    """Highest temperature in the last part of the logs, K."""
    outputs = [run.directory / f"{stage}.out" for stage in _stages(run)]
    if run.config.beads > 1:
        return max(largest(path, TEMPERATURE_COLUMN) for path in outputs)
    kinetic = max(largest(path, KINETIC_COLUMN) for path in outputs)
    return 2 * kinetic / (BOLTZMANN_EV_K * run.degrees_of_freedom)


def failure(run: Run) -> list[str]:
    """What the driver and the host said last."""
    driver = [line for line in last_lines(run.directory / DRIVER_SCREEN, 20) if "error" in line.lower()]
    return driver[-1:] + last_lines(run.directory / SCREEN, 3)


def xml(run: Run, stage: str) -> str:
    """The input of one stage."""
    config = run.config
    steps = _stages(run)[stage]
    first = next(iter(_stages(run))) == stage
    after_npt = not first and list(_stages(run))[list(_stages(run)).index(stage) - 1] == NPT
    if first or after_npt:
        start = _initial(run, MEAN_CELL if after_npt else START, _own_velocities(run) if first else None)
    else:
        start = f"<file mode='chk'> {EQUILIBRATION}.end </file>"
    frames = _frames(run) if stage == PRODUCTION else ""
    kind = "cv" if config.beads > 1 else "md"  # estimators
    cell = ", cell_h{angstrom}" if stage == NPT and config.barostat.coupling != "iso" else ""
    return f"""\
<!-- {run.title}; {stage}. Needs the driver of run.sh at the socket below. -->
<simulation verbosity='medium'>
  <output prefix='{stage}'>
    <properties filename='out' stride='{config.log_interval if stage != NPT else 10}'> [ step,
      time{{picosecond}}, conserved{{electronvolt}}, temperature{{kelvin}}, kinetic_{kind}{{electronvolt}},
      potential{{electronvolt}}, pressure_{kind}{{megapascal}}, volume{{angstrom3}}{cell} ] </properties>
{frames}    <checkpoint filename='chk' stride='{config.restart_interval}' overwrite='False'/>
    <checkpoint filename='end' stride='{steps}' overwrite='True'/>
  </output>
  <total_steps> {steps} </total_steps>
  <prng> <seed> {run.seed + list(_stages(run)).index(stage)} </seed> </prng>
  <ffsocket name='model' mode='unix' pbc='False'>
    <address> {_address(run)} </address>
    <latency> 1e-4 </latency>
    <exit_on_disconnect> True </exit_on_disconnect>
  </ffsocket>
  <system>
    <initialize nbeads='{config.beads}'>
      {start}
    </initialize>
    <forces> <force forcefield='model'/> </forces>
    <motion mode='dynamics'>
{_constraints(run)}
{_dynamics(run, stage)}
    </motion>
    <ensemble>
      <temperature units='kelvin'> {run.temperature:g} </temperature>
      <pressure units='megapascal'> {config.pressure * 1000:g} </pressure>
    </ensemble>
  </system>
</simulation>
"""


def _own_velocities(run: Run) -> Atoms | None:
    """The structure with velocities for i-PI, None if i-PI shall draw them.

    i-PI's own ones have a random kinetic energy: right for a thermostat, not for the energy of an NVE run.
    """
    if run.atoms.has("momenta"):
        return run.atoms
    drawn = run.config.beads > 1 or run.config.ensemble != "nve" or len(_stages(run)) > 1
    return None if drawn else thermal(run.atoms, run.temperature, run.seed)


def _initial(run: Run, file: str, own: Atoms | None) -> str:
    """Where positions, masses and velocities come from."""
    lines = [f"<file mode='xyz'> {file} </file>"]
    if run.atoms.has("masses"):  # before the velocities, from which i-PI makes momenta at once
        masses = ", ".join(f"{mass:.10g}" for mass in run.atoms.get_masses())
        lines.append(f"<masses mode='manual' units='dalton'> [{masses}] </masses>")
    if own is not None:
        velocities = (
            own.get_velocities() @ upright(run.atoms).rotation * ASE_TIME_PER_FS / A_FS_PER_ATOMIC_VELOCITY
        )
        values = ", ".join(f"{v:.12g}" for v in velocities.ravel())
        lines.append(f"<velocities mode='manual' units='atomic_unit'> [{values}] </velocities>")
    else:
        lines.append(f"<velocities mode='thermal' units='kelvin'> {run.temperature:g} </velocities>")
    return "\n      ".join(lines)


def _frames(run: Run) -> str:
    wanted = {"pos": "positions", **({CENTROIDS: "x_centroid"} if run.config.beads > 1 else {})}
    return "".join(
        f"    <trajectory filename='{name}' stride='{run.config.dump_interval}' format='xyz' "
        f"cell_units='angstrom'> {what}{{angstrom}} </trajectory>\n"
        for name, what in wanted.items()
    )


def _constraints(run: Run) -> str:
    held = np.flatnonzero(run.fixed)
    if not len(held):
        return "      <fixcom> True </fixcom>"
    components = ", ".join(map(str, held))
    return f"      <fixcom> False </fixcom>\n      <fixatoms_dof> [{components}] </fixatoms_dof>"


def _dynamics(run: Run, stage: str) -> str:
    config = run.config
    modes = THERMOSTATS if config.beads == 1 else RING_POLYMER_THERMOSTATS
    kind = modes["langevin" if stage == EQUILIBRATION else config.thermostat.kind]
    tau = config.thermostat.time_constant if stage == PRODUCTION else config.equilibration.time_constant
    mode = {NPT: "npt", EQUILIBRATION: "nvt", PRODUCTION: config.ensemble}[stage]
    lines = [
        f"      <dynamics mode='{mode}'>",
        f"        <timestep units='femtosecond'> {config.timestep:g} </timestep>",
    ]
    if mode != "nve":
        reason = f" <!-- {REASON[kind]} -->" if stage == PRODUCTION else ""
        heat = f"<thermostat mode='{kind}'> <tau units='femtosecond'> {tau:g} </tau> </thermostat>"
        lines.append(f"        {heat}{reason}")
    if mode == "npt":
        fixed = "\n          <hfix> [xy, xz, yz] </hfix>" if config.barostat.coupling == "aniso" else ""
        tau_p = f"<tau units='femtosecond'> {config.barostat.time_constant:g} </tau>"
        lines.append(
            f"        <barostat mode='{BAROSTATS[config.barostat.coupling]}'> {tau_p}\n"
            f"          <thermostat mode='langevin'> {tau_p} </thermostat>{fixed}\n        </barostat>"
        )
    return "\n".join([*lines, "      </dynamics>"])


def _stages(run: Run) -> dict[str, int]:
    """Stages that have steps, in order."""
    config = run.config
    stages = {
        NPT: config.equilibration.npt_steps,
        EQUILIBRATION: config.equilibration.steps,
        PRODUCTION: config.steps,
    }
    return {stage: steps for stage, steps in stages.items() if steps}


def _stage(run: Run, source: str, how: str) -> Stage:
    Path(sockets_prefix() + _address(run)).unlink(missing_ok=True)  # left behind by a killed i-PI
    driver = (sys.executable, "-m", "mlplugins.cli.main", *_driver_arguments(run))
    return Stage(
        f"i-PI {how}",
        Command((sys.executable, program(), source), SCREEN),
        (Command(driver, DRIVER_SCREEN, threads(run.config.threads)),),
    )


def _driver_arguments(run: Run) -> list[str]:
    template = START if run.periodic else TEMPLATE
    return [
        "ipi-driver",
        str(run.config.model),
        template,
        "--unix",
        _address(run),
        "--device",
        run.config.device,
    ]


def _address(run: Run) -> str:
    return "mlplugins_" + hashlib.sha256(str(run.directory.resolve()).encode()).hexdigest()[:12]


def _write_mean_cell(run: Run) -> None:
    rows = table(run.directory / f"{NPT}.out")
    half = rows[len(rows) // 2 :]
    atoms = upright(run.atoms).atoms
    if run.config.barostat.coupling == "iso":
        volume = float(np.mean(half[:, VOLUME_COLUMN]))
        cell = atoms.cell.array * (volume / atoms.get_volume()) ** (1 / 3)
    else:
        xx, yy, zz, xy, xz, yz = half[:, CELL_COLUMNS].mean(axis=0)
        cell = np.array([[xx, 0, 0], [xy, yy, 0], [xz, yz, zz]])
    atoms.set_cell(cell, scale_atoms=True)
    write_xyz(run.directory / MEAN_CELL, atoms)


def _checkpoint_step(path: Path) -> int:
    """Step of a checkpoint; −1 if it is missing or was cut by a kill."""
    try:
        text = ElementTree.parse(path).getroot().findtext("step")
    except (OSError, ElementTree.ParseError):
        return -1
    return int(text) if text else 0


def _checkpoints(directory: Path, stage: str) -> list[Path]:
    """Checkpoints of a stage, newest first."""
    found = [path for path in directory.glob(f"{stage}.chk_*") if path.name.rpartition("_")[2].isdigit()]
    return sorted(found, key=lambda path: int(path.name.rpartition("_")[2]), reverse=True)


def _newest_checkpoint(directory: Path, stage: str) -> Path | None:
    """The newest whole checkpoint; the state at the end of a run that was lengthened is one."""
    whole = (path for path in _checkpoints(directory, stage) if _checkpoint_step(path) > 0)
    found = [*itertools.islice(whole, 1), directory / f"{stage}.end"]
    newest = max(found, key=_checkpoint_step)
    return newest if _checkpoint_step(newest) > 0 else None


def _write_resume(run: Run, checkpoint: Path, steps: int) -> None:
    """The checkpoint, with what may have changed since: the number of steps, and the folder's own socket."""
    tree = ElementTree.parse(checkpoint)
    for total in tree.iter("total_steps"):
        total.text = f" {steps} "
    for output in tree.iter("checkpoint"):
        if output.get("filename") == "end":
            output.set("stride", str(steps))
    for address in tree.iter("address"):
        address.text = f" {_address(run)} "
    tree.write(run.directory / RESUME, encoding="unicode")


def _remove_output(directory: Path, stage: str) -> None:
    for path in directory.glob(f"{stage}.*"):
        if path.suffix != ".xml":
            path.unlink()
