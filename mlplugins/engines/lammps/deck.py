"""LAMMPS input scripts: the commands common to all uses of a model, and the script of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlplugins.dynamics.run import Run
from mlplugins.dynamics.settings import DIRECT
from mlplugins.dynamics.start import AXES, patterns
from mlplugins.dynamics.watch import COLUMNS, DEVIATION, FORCE, TABLE
from mlplugins.engines.lammps.data import type_order
from mlplugins.errors import BadInput
from mlplugins.structures import state as states
from mlplugins.units import BAR_PER_EV_A3, FS_PER_PS, GPA_PER_EV_A3

DATA, DECK = "data.lmp", "in.lmp"
TRAJECTORY, LOG, FINISHED = "trajectory.lammpstrj", "log.lammps", "finished"
KEPT = "kept.lammpstrj"
LARGEST_SEED = 900_000_000
BAR_PER_GPA = BAR_PER_EV_A3 / GPA_PER_EV_A3
COUPLINGS = {"iso": "iso", "aniso": "aniso", "flexible": "tri"}
THERMOSTAT_REASON = {
    "csvr": (
        "# csvr (stochastic velocity rescaling, Bussi 2007): canonical, one global scaling: diffusion\n"
        "# stays as in NVE; i-PI calls it svr and ASE Bussi, so that the three engines sample alike"
    ),
    "nose-hoover": "# Nose-Hoover chain of length 3: canonical and deterministic, diffusion as in NVE",
    "langevin": "# Langevin: its friction slows diffusion; not for D or conductivity",
}


def deck_head(
    model: Path | str, elements: Sequence[str], boundary: str, keywords: str = "", data: str = DATA
) -> list[str]:
    """First commands of a deck: units, structure and potential.

    Args:
        model: model file.
        elements: symbols in type order.
        boundary: e.g. `p p p`.
        keywords: of the pair style, e.g. `device cpu mode fold`.
        data: data file.

    >>> deck_head("model.pt", ["Li", "S"], "p p p")[-1]
    'pair_coeff * * Li S'
    """
    return [
        "units metal",
        "atom_style atomic",
        f"boundary {boundary}",
        f"read_data {data}",
        f"pair_style mlplugins {quoted(model)} {keywords}".rstrip(),
        f"pair_coeff * * {' '.join(elements)}",
    ]


def words(keywords: Mapping[str, float]) -> str:
    """Keywords of the pair style.

    >>> words({"charge": -1.0, "spin": 2.0})
    'charge -1 spin 2'
    """
    return " ".join(f"{name} {value:g}" for name, value in keywords.items())


def quoted(path: Path | str) -> str:
    """A path as one word of a LAMMPS deck.

    >>> quoted("my models/a.pt")
    '"my models/a.pt"'
    """
    text = str(path)
    if not re.search(r"[\s#&$\"']", text):
        return text
    if '"' in text or "$" in text:
        raise BadInput(f"LAMMPS cannot read a path with a quote or a dollar sign: {text}")
    return f'"{text}"'


def deck(run: Run, restart: str | None = None, step: int = 0) -> str:
    """The deck of a run, from the start or from a restart file written at `step`."""
    config = run.config
    n_npt = config.equilibration.npt_steps
    n_equilibration = n_npt + config.equilibration.steps
    sections = [_head(run, restart), _output(run), *_watch(run)]
    if n_npt > 0 and step < n_npt:
        sections.append(_npt_section(run, step))
    if step < n_equilibration and config.equilibration.steps > 0:
        sections.append(_equilibration_section(run, n_equilibration, step))
    sections.append(_production_section(run, step, restart is not None and step >= n_equilibration))
    return "\n".join(sections)


def _head(run: Run, restart: str | None) -> str:
    config = run.config
    periodic = " ".join("p" if flag else "s" for flag in run.atoms.pbc)
    start = f"read_data       {DATA}" if restart is None else f"read_restart    {restart}"
    settings = (
        "" if restart else f"atom_style      atomic\natom_modify     map yes\nboundary        {periodic}\n"
    )
    return (
        f"# {run.title}\n"
        f"units           metal\n{settings}{start}\n"
        f"pair_style      mlplugins {quoted(config.model)} device {config.device}{_inner(run)}{_state(run)}"
        f"{_watched(run)}\n"
        f"pair_coeff      * * {' '.join(type_order(run.atoms))}\n"
        f"neighbor        1.0 bin\n"
        f"neigh_modify    every 1 delay 0 check yes\n"
        f"timestep        {config.timestep / FS_PER_PS:g}   # ps\n"
        f"{_levels(run)}{_fixed_groups(run)}{'' if restart else _start_velocities(run)}"
    )


def _state(run: Run) -> str:
    """Charge and spin, which the structure keeps only for models that take them."""
    said = words(states.keywords(run.atoms.info, states.NAMES))
    return f" {said}" if said else ""


def _watched(run: Run) -> str:
    """Keywords for a run that watches its uncertainty, which `fix pair` asks for."""
    if run.watch is None:
        return ""
    return {DEVIATION.key: " out_freq 0", FORCE.key: f" probes {run.watch.probes}"}.get(
        run.watch.measure.key, ""
    )


def _watch(run: Run) -> list[str]:
    """Table of the uncertainty, and the end of the run above `stop_above`."""
    watch = run.watch
    if watch is None:
        return []
    n = watch.every
    lines = [
        f"# {watch.measure.words}, {watch.measure.unit}",
        f"fix             known all pair {n} mlplugins {watch.measure.key} 1",
        "compute         ids all property/atom id",
        "compute         worst all reduce max c_ids f_known replace 1 2   # the atom, and its value",
        "compute         mean all reduce ave f_known",
        "variable        largest equal c_worst[2]",
        f"fix             table all ave/time {n} 1 {n} c_worst[2] c_worst[1] c_mean append {TABLE} "
        f'title1 "{watch.title}" title2 "# {COLUMNS}" format " %.8g"',
        f'variable        dull equal "c_worst[2] <= {watch.kept_above!r}"',
    ]
    if watch.stop_above is not None:
        limit = f"v_largest > {watch.stop_above!r} error soft message yes"
        lines.append(f"fix             stop all halt {n} {limit}   # later `run` commands do nothing")
    return ["\n".join(lines) + "\n"]


def _kept(run: Run) -> tuple[str, str]:
    """The dump of uncertain frames in one stage, and its end."""
    watch = run.watch
    if watch is None:
        return "", ""
    return (
        f"dump            kept all custom {watch.every} {KEPT} id element xu yu zu f_known\n"
        f"dump_modify     kept element {' '.join(type_order(run.atoms))} sort id format float %.8g time yes "
        f"units yes flush yes append yes skip v_dull\n",
        "undump          kept\n",
    )


def _inner(run: Run) -> str:
    """Keyword for the model of the inner steps."""
    mts = run.config.mts
    if mts is None:
        return ""
    return f" inner {mts.inner if mts.inner == DIRECT else quoted(mts.inner)}"


def _levels(run: Run) -> str:
    mts = run.config.mts
    if mts is None:
        return ""
    inner = run.config.timestep / mts.every
    return (
        f"# the timestep is the outer one, of {mts.every} inner ones of {inner:g} fs; the lengths 1.0 and\n"
        "# 2.0 have no meaning for this pair style\n"
        f"run_style       respa 2 {mts.every} inner 1 1.0 2.0 outer 2\n"
    )


def _fixed_groups(run: Run) -> str:
    """Groups of the fixed atoms, and the degrees of freedom of the others."""
    groups = patterns(run.fixed)
    if not groups:
        return ""
    lines = [f"group           fixed_{name} id {ranges(indices + 1)}" for name, indices in groups.items()]
    counted = f"compute_modify  thermo_temp extra/dof {int(run.fixed.sum())}   # held components do not count"
    return "\n".join([*lines, counted]) + "\n"


def _start_velocities(run: Run) -> str:
    if run.atoms.has("momenta"):
        return "# velocities: those of the data file\n"
    create = f"velocity        all create {run.temperature:g} {run.seed}"
    if not run.atoms.constraints:
        return f"{create} mom yes rot no dist gaussian\n"
    lines = [f"{create} mom no rot no dist gaussian"]
    for name in patterns(run.fixed):
        zeros = " ".join("0" if axis in name else "NULL" for axis in AXES)
        lines.append(f"velocity        fixed_{name} set {zeros}")
    return "\n".join([*lines, f"velocity        all scale {run.temperature:g} temp thermo_temp"]) + "\n"


def _hold(run: Run) -> tuple[str, str]:
    """Fixes that zero forces on fixed components, to follow every fix that adds forces; and their removal."""
    fixes, ends = [], []
    for name in patterns(run.fixed):
        zeros = " ".join("0.0" if axis in name else "NULL" for axis in AXES)
        fixes.append(f"fix             hold_{name} fixed_{name} setforce {zeros}\n")
        ends.append(f"unfix           hold_{name}\n")
    return "".join(fixes), "".join(ends)


def _counted(run: Run, fix: str) -> str:
    """Let a thermostat count the degrees of freedom that move (the default is 3N - 3)."""
    return f"\nfix_modify      {fix} temp thermo_temp" if run.atoms.constraints else ""


def ranges(ids: NDArray[np.intp]) -> str:
    """Sorted numbers as LAMMPS' ranges.

    >>> ranges(np.array([1, 2, 3, 7, 9, 10]))
    '1:3 7 9:10'
    """
    runs = np.split(ids, np.flatnonzero(np.diff(ids) != 1) + 1)
    return " ".join(f"{run[0]}:{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _output(run: Run) -> str:
    return (
        f"log             {LOG} append\n"
        "thermo_style    custom step time temp pe etotal econserve press vol\n"
        "thermo_modify   flush yes lost error\n"
        f"thermo          {run.config.log_interval}\n"
    )


def _npt_section(run: Run, step: int) -> str:
    """NPT, then the mean cell of its second half."""
    config = run.config
    n = config.equilibration.npt_steps
    sample = max(n // 2, 1)
    kept, end = _kept(run)
    cell = run.atoms.cell.standard_form()[0].array  # lower triangular, as LAMMPS wants it
    tilted = np.abs(cell[[1, 2, 2], [0, 0, 1]]).max() > 1e-8
    tilts = ("xy", "xz", "yz") if tilted or config.barostat.coupling == "flexible" else ()
    names = ("lx", "ly", "lz", *tilts)
    lines = [
        f"# NPT for {n} steps; the mean cell of the second half is kept",
        *(f"variable        mean_{name} equal {name}" for name in names),
        *_triclinic(run),
        _langevin(run, config.equilibration.time_constant, step),
        f"fix             integrate all nph {_pressure(run)}",
        f"fix             cell all ave/time 1 {sample} {n} " + " ".join(f"v_mean_{name}" for name in names),
        *filter(None, [kept.rstrip()]),
        f"run             {n}",
        *filter(None, [end.rstrip()]),
        *(f"variable        {name}0 equal $(f_cell[{i}]:%.10f)" for i, name in enumerate(names, 1)),
        "unfix           cell",
        "unfix           heat",
        "unfix           still",
        "unfix           integrate",
    ]
    axes = [f"{a} final 0.0 ${{l{a}0}}" for a in "xyz"] + [f"{tilt} final ${{{tilt}0}}" for tilt in tilts]
    lines.append(f"change_box      all {' '.join(axes)} remap units box")
    return "\n".join(lines) + "\n"


def _equilibration_section(run: Run, until: int, step: int) -> str:
    hold, release = _hold(run)
    kept, end = _kept(run)
    still = "" if hold else "unfix           still\n"
    return (
        "# equilibration: Langevin brings energy to every mode\n"
        f"restart         {run.config.restart_interval} restart.*\n"
        f"{_langevin(run, run.config.equilibration.time_constant, step)}\n"
        f"fix             integrate all nve\n{hold}{kept}"
        f"run             {until} upto\n{end}"
        f"unfix           heat\n{still}unfix           integrate\n{release}"
    )


def _production_section(run: Run, step: int, resumed: bool) -> str:
    config = run.config
    append = " append yes" if resumed else ""
    rests = "velocity        all zero linear   # the centre of mass rests\n"
    still = "" if resumed or run.atoms.constraints else rests
    # a run that was stopped ends at another step
    last = "*" if run.watch is not None and run.watch.stop_above is not None else str(config.total_steps)
    return (
        f"# production\n{still}"
        f"restart         {config.restart_interval} restart.*\n"
        f"{_integrator(run, step)}\n{_hold(run)[0]}"
        f"dump            trajectory all custom {config.dump_interval} {TRAJECTORY} id element xu yu zu\n"
        f"dump_modify     trajectory element {' '.join(type_order(run.atoms))} sort id "
        f"format float %.6f time yes units yes flush yes{append}\n{_kept(run)[0]}"
        f"run             {config.total_steps} upto\n"
        f"write_restart   restart.{last}   # with it the run can be lengthened\n"
        f'print           "$(step)" file {FINISHED} screen no\n'
    )


def _integrator(run: Run, step: int) -> str:
    config = run.config
    npt = config.ensemble == "npt"
    move = f"nph {_pressure(run)}" if npt else "nve"
    if config.ensemble == "nve":
        return "fix             integrate all nve"
    kind, tau = config.thermostat.kind, _ps(config.thermostat.time_constant)
    reason = "\n".join([THERMOSTAT_REASON[kind], *(_triclinic(run) if npt else ())])
    if kind == "nose-hoover":
        style = (
            f"npt temp {_temperatures(run)} {tau} {_pressure(run)}"
            if npt
            else f"nvt temp {_temperatures(run)} {tau}"
        )
        return f"{reason}\nfix             integrate all {style} tchain 3{_counted(run, 'integrate')}"
    heat = (
        f"fix             heat all temp/csvr {_temperatures(run)} {tau} {run.seed}{_counted(run, 'heat')}"
        if kind == "csvr"
        else _langevin(run, config.thermostat.time_constant, step)
    )
    return f"{reason}\nfix             integrate all {move}\n{heat}"


def _langevin(run: Run, time_constant: float, step: int) -> str:
    """Langevin with the centre of mass at rest, unless atoms are fixed.

    LAMMPS' own `zero yes` takes the mean random force off every atom alike: with unequal masses that is no
    projection, and the sampled temperature is too high. Taking out the momentum is one, and exact.
    """
    seed = (run.seed + step - 1) % LARGEST_SEED + 1  # after a restart not the same noise again
    heat = f"fix             heat all langevin {_temperatures(run)} {_ps(time_constant)} {seed}"
    if run.atoms.constraints:
        return heat
    return f"{heat}\nfix             still all momentum 1 linear 1 1 1   # the centre of mass rests"


def _triclinic(run: Run) -> list[str]:
    """Make the cell triclinic for LAMMPS if its angles are to change."""
    return ["change_box      all triclinic"] if run.config.barostat.coupling == "flexible" else []


def _temperatures(run: Run) -> str:
    return f"{run.temperature:g} {run.temperature:g}"


def _pressure(run: Run) -> str:
    bar = f"{run.config.pressure * BAR_PER_GPA:g}"
    return f"{COUPLINGS[run.config.barostat.coupling]} {bar} {bar} {_ps(run.config.barostat.time_constant)}"


def _ps(time_fs: float) -> str:
    return f"{time_fs / FS_PER_PS:g}"
