"""i-PI's input of each stage of a run."""

from __future__ import annotations

import hashlib

import numpy as np
from ase import Atoms

from mlplugins.dynamics.run import Run
from mlplugins.dynamics.start import thermal
from mlplugins.engines.ipi.xyz import upright
from mlplugins.units import A_FS_PER_ATOMIC_VELOCITY, ASE_TIME_PER_FS

START, MEAN_CELL = "init.xyz", "mean_cell.xyz"
NPT, EQUILIBRATION, PRODUCTION = "npt", "equilibration", "simulation"
CENTROIDS = "xc"
THERMOSTATS = {"csvr": "svr", "langevin": "langevin"}
RING_POLYMER_THERMOSTATS = {"csvr": "pile_g", "langevin": "pile_l", "pile": "pile_l"}
BAROSTATS = {"iso": "isotropic", "aniso": "flexible", "flexible": "flexible"}
REASON = {
    "pile_g": "PILE-G: csvr on the centroid, Langevin on the other modes (Ceriotti 2010)",
    "pile_l": "PILE-L: Langevin on every mode (Ceriotti 2010); not for D or conductivity",
    "svr": "svr (stochastic velocity rescaling, Bussi 2007): canonical, and diffusion is left as in NVE",
    "langevin": "Langevin: its friction slows diffusion; not for D or conductivity",
}


def xml(run: Run, stage: str) -> str:
    """The input of one stage."""
    config = run.config
    steps = stages_of(run)[stage]
    first = next(iter(stages_of(run))) == stage
    after_npt = not first and list(stages_of(run))[list(stages_of(run)).index(stage) - 1] == NPT
    if first or after_npt:
        start = _initial(run, MEAN_CELL if after_npt else START, _own_velocities(run) if first else None)
    else:
        start = f"<file mode='chk'> {EQUILIBRATION}.end </file>"
    frames = _frames(run) if stage == PRODUCTION else ""
    kind = "cv" if config.beads > 1 else "md"  # estimators
    cell = ", cell_h{angstrom}" if stage == NPT and config.barostat.coupling != "iso" else ""
    return f"""\
<!-- {run.title}; {stage}. Needs the driver of run.sh at the socket below. -->
<simulation verbosity='medium' safe_stride='{config.restart_interval}'>
  <output prefix='{stage}'>
    <properties filename='out' stride='{config.log_interval if stage != NPT else 10}'> [ step,
      time{{picosecond}}, conserved{{electronvolt}}, temperature{{kelvin}}, kinetic_{kind}{{electronvolt}},
      potential{{electronvolt}}, pressure_{kind}{{megapascal}}, volume{{angstrom3}}{cell} ] </properties>
{frames}    <checkpoint filename='chk' stride='{config.restart_interval}' overwrite='False'/>
    <checkpoint filename='end' stride='{steps}' overwrite='True'/>
  </output>
  <total_steps> {steps} </total_steps>
  <prng> <seed> {run.seed + list(stages_of(run)).index(stage)} </seed> </prng>
{_sockets(run)}
  <system>
    <initialize nbeads='{config.beads}'>
      {start}
    </initialize>
{_forces(run)}
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


def _sockets(run: Run) -> str:
    """A socket for the driver of each model."""
    sockets = {"model": address(run)}
    if run.config.mts is not None:
        sockets["inner"] = address(run, "inner")
    return "\n".join(
        f"  <ffsocket name='{name}' mode='unix' pbc='False'>\n"
        f"    <address> {place} </address>\n"
        "    <latency> 1e-4 </latency>\n"
        "    <exit_on_disconnect> True </exit_on_disconnect>\n"
        "  </ffsocket>"
        for name, place in sockets.items()
    )


def _forces(run: Run) -> str:
    """The forces, with their weights on the levels of multiple time steps, from the outer one inwards.

    Of a dipole, charges, … that both models predict i-PI keeps the values of the last force: the model's.
    """
    if run.config.mts is None:
        return "    <forces> <force forcefield='model'/> </forces>"
    levels = {"inner": "[-1, 1]", "model": "[1, 0]"}
    return "\n".join(
        [
            "    <forces>   <!-- outer steps: the model less the inner one; inner steps: the inner one -->",
            *(
                f"      <force forcefield='{name}'> <mts_weights> {weights} </mts_weights> </force>"
                for name, weights in levels.items()
            ),
            "    </forces>",
        ]
    )


def _own_velocities(run: Run) -> Atoms | None:
    """The structure with velocities for i-PI, None if i-PI shall draw them.

    i-PI's own ones have a random kinetic energy: right for a thermostat, not for the energy of an NVE run.
    """
    if run.atoms.has("momenta"):
        return run.atoms
    drawn = run.config.beads > 1 or run.config.ensemble != "nve" or len(stages_of(run)) > 1
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
    if config.mts is not None:
        inner = config.timestep / config.mts.every
        lines.append(f"        <nmts> [1, {config.mts.every}] </nmts> <!-- inner steps of {inner:g} fs -->")
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


def stages_of(run: Run) -> dict[str, int]:
    """Stages that have steps, in order."""
    config = run.config
    stages = {
        NPT: config.equilibration.npt_steps,
        EQUILIBRATION: config.equilibration.steps,
        PRODUCTION: config.steps,
    }
    return {stage: steps for stage, steps in stages.items() if steps}


def address(run: Run, model: str = "") -> str:
    """The name of the unix socket of a run, from its folder.

    Args:
        run: the run.
        model: `inner` for that of the model of the inner steps.
    """
    return "mlplugins_" + hashlib.sha256(str(run.directory.resolve()).encode()).hexdigest()[:12] + model
