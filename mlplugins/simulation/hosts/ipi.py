"""i-PI: start configuration, XML of each stage, driver line; stages linked by checkpoints."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import ase.io
import numpy as np

from mlplugins.engines import ipi as engine
from mlplugins.errors import MissingDependency
from mlplugins.simulation.files import cut_frames, cut_table, largest, last_lines, last_table_step, table
from mlplugins.simulation.plan import Run
from mlplugins.simulation.process import Command, Stage, threads
from mlplugins.structures.ipi_xyz import upright, write_xyz

START, MEAN_CELL, TEMPLATE = "init.xyz", "mean_cell.xyz", "template.extxyz"
NPT, EQUILIBRATION, PRODUCTION = "npt", "equilibration", "simulation"
SCREEN, DRIVER_SCREEN = "screen.out", "driver.out"
KEPT_CHECKPOINTS = 2
TEMPERATURE_COLUMN, VOLUME_COLUMN = 3, 7  # of the properties below

THERMOSTATS = {"csvr": "svr", "langevin": "langevin"}
REASON = {
    "csvr": "svr (stochastic velocity rescaling, Bussi 2007): canonical, and diffusion is left as in NVE",
    "langevin": "Langevin: its friction slows diffusion; not for D or conductivity",
}


def require(run: Run) -> None:
    """Refuse if i-PI's program is missing (importing this file has already asked for the package)."""
    _program()


def trajectories(run: Run) -> list[Path]:
    """The files that hold the production frames, in order."""
    return [run.directory / f"{PRODUCTION}.pos_0.xyz"]


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
        cut_frames(run.directory / f"{stage}.pos_0.xyz", "ipi", before=step + 1)
        cut_table(run.directory / f"{stage}.out", before=step + 1)
        return _stage(run, checkpoint.name, f"{stage} from step {step}")
    return None


def steps_done(run: Run) -> int:
    """Steps of all stages; also removes checkpoints that are no longer needed."""
    done = 0
    for stage, steps in _stages(run).items():
        for old in _checkpoints(run.directory, stage)[KEPT_CHECKPOINTS:]:
            old.unlink(missing_ok=True)
        done += min(steps, last_table_step(run.directory / f"{stage}.out"))
    return done


def hottest(run: Run) -> float:
    """Highest temperature in the last part of the logs, K."""
    return max(largest(run.directory / f"{stage}.out", TEMPERATURE_COLUMN) for stage in _stages(run))


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
        start = (
            f"<file mode='xyz'> {MEAN_CELL if after_npt else START} </file>\n      "
            f"<velocities mode='thermal' units='kelvin'> {run.temperature:g} </velocities>"
        )
        if run.atoms.has("masses"):
            masses = ", ".join(f"{mass:.10g}" for mass in run.atoms.get_masses())
            start += f"\n      <masses mode='manual' units='dalton'> [{masses}] </masses>"
    else:
        start = f"<file mode='chk'> {EQUILIBRATION}.end </file>"
    positions = (
        f"    <trajectory filename='pos' stride='{config.dump_interval}' format='xyz' cell_units='angstrom'>"
        " positions{angstrom} </trajectory>\n"
        if stage == PRODUCTION
        else ""
    )
    return f"""\
<!-- {run.title}; {stage}. Needs the driver of run.sh at the socket below. -->
<simulation verbosity='medium'>
  <output prefix='{stage}'>
    <properties filename='out' stride='{config.log_interval if stage != NPT else 10}'> [ step,
      time{{picosecond}}, conserved{{electronvolt}}, temperature{{kelvin}}, kinetic_md{{electronvolt}},
      potential{{electronvolt}}, pressure_md{{megapascal}}, volume{{angstrom3}} ] </properties>
{positions}    <checkpoint filename='chk' stride='{config.restart_interval}' overwrite='False'/>
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
    <initialize nbeads='1'>
      {start}
    </initialize>
    <forces> <force forcefield='model'/> </forces>
    <motion mode='dynamics'>
      <fixcom> True </fixcom>
{_dynamics(run, stage)}
    </motion>
    <ensemble>
      <temperature units='kelvin'> {run.temperature:g} </temperature>
      <pressure units='megapascal'> {config.pressure * 1000:g} </pressure>
    </ensemble>
  </system>
</simulation>
"""


def _dynamics(run: Run, stage: str) -> str:
    config = run.config
    kind = "langevin" if stage == EQUILIBRATION else config.thermostat.kind
    tau = config.thermostat.time_constant if stage == PRODUCTION else config.equilibration.time_constant
    mode = {NPT: "npt", EQUILIBRATION: "nvt", PRODUCTION: config.ensemble}[stage]
    lines = [
        f"      <dynamics mode='{mode}'>",
        f"        <timestep units='femtosecond'> {config.timestep:g} </timestep>",
    ]
    if mode != "nve":
        reason = f" <!-- {REASON[kind]} -->" if stage == PRODUCTION else ""
        heat = (
            f"<thermostat mode='{THERMOSTATS[kind]}'> <tau units='femtosecond'> {tau:g} </tau> </thermostat>"
        )
        lines.append(f"        {heat}{reason}")
    if mode == "npt":
        tau_p = f"<tau units='femtosecond'> {config.barostat.time_constant:g} </tau>"
        lines.append(
            f"        <barostat mode='isotropic'> {tau_p}\n"
            f"          <thermostat mode='langevin'> {tau_p} </thermostat>\n        </barostat>"
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
    Path(engine.SOCKETS_PREFIX + _address(run)).unlink(missing_ok=True)  # left behind by a killed i-PI
    driver = (sys.executable, "-m", "mlplugins.cli.main", *_driver_arguments(run))
    return Stage(
        f"i-PI {how}",
        Command((sys.executable, _program(), source), SCREEN),
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


def _program() -> str:
    beside = Path(sys.executable).parent / "i-pi"
    program = str(beside) if beside.is_file() else shutil.which("i-pi")
    if program is None:
        raise MissingDependency("the program i-pi is not in the PATH: pip install 'mlplugins[ipi]'")
    return program


def _write_mean_cell(run: Run) -> None:
    rows = table(run.directory / f"{NPT}.out")
    volume = float(np.mean(rows[len(rows) // 2 :, VOLUME_COLUMN]))
    atoms = upright(run.atoms).atoms
    atoms.set_cell(atoms.cell * (volume / atoms.get_volume()) ** (1 / 3), scale_atoms=True)
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
    whole = (path for path in _checkpoints(directory, stage) if _checkpoint_step(path) > 0)
    return next(whole, None)


def _remove_output(directory: Path, stage: str) -> None:
    for path in directory.glob(f"{stage}.*"):
        if path.suffix != ".xml":
            path.unlink()
