"""What loading a model file decides: is it ours, which energy, what it is asked for, how it is evaluated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mlplugins.errors import BadInput, nearest
from mlplugins.model_file import runtime
from mlplugins.model_file.archive import Archive, Entries, is_ours
from mlplugins.model_file.evaluate import BORN, Asked, EdgeGradientModel
from mlplugins.model_file.general import GeneralModel, declared
from mlplugins.structures import state as states


def energies(module: Any) -> dict[str, str]:
    """Outputs of a module of ours with several energies → its names of these, the first `energy`."""
    known = list(getattr(module, "energies", []))
    pairs = getattr(module, "names", []) if known else []
    return {output: name for name, output in pairs if name in known and output != "energy"}


def asked(path: Path, loaded: Any, non_conservative: bool, ours: bool, energy: str) -> Asked:
    """What a model is asked for; the dipole of one of `ours` has a derivative."""
    more = declared(loaded.capabilities().outputs)
    more += (BORN,) if ours and "dipole" in more else ()
    if non_conservative and "direct_forces" not in more:
        raise BadInput(
            f"'{path.name}' predicts no direct forces (output non_conservative_force): train a model with "
            "heads: {direct_forces: {}}, or leave non_conservative out"
        )
    several = energies(loaded.module) if ours else {}
    if non_conservative and several.get(energy, "energy") != "energy":
        raise BadInput(
            f"'{path.name}': its direct forces are those of '{next(iter(several))}', not of '{energy}': "
            "leave non_conservative or the variant out"
        )
    return Asked(more, non_conservative, several, energy)


def ours(archive: Archive, loaded: Any, energy: str) -> Entries | None:
    """Our entries, if the module is one of ours; None for others, and for wrappers around one of ours."""
    module, capabilities = loaded.module, loaded.capabilities()
    entries = archive.entries
    if entries is None or not is_ours(runtime.class_name(module)):
        return None
    if energy != "energy" and energy not in energies(module):
        return None
    if capabilities.length_unit != "angstrom" or capabilities.outputs[energy].unit != "eV":
        return None  # somebody declared other units, which metatomic then converts
    lists = loaded.requested_neighbor_lists()
    range_ = lists[0].engine_cutoff("angstrom") if len(lists) == 1 else math.nan
    if range_ != entries.cutoff:
        raise BadInput(
            f"'{archive.path}' is damaged: its metadata say a cutoff of {entries.cutoff:g} Å, but the model "
            f"asks for neighbours within {range_:g} Å: copy it again, or export the model again"
        )
    return entries


def evaluator(
    loaded: Any, ours: Entries | None, energy: str, asked: Asked, kind: tuple[torch.dtype, torch.device]
) -> EdgeGradientModel | GeneralModel:
    if ours is not None:
        return EdgeGradientModel(loaded.module, loaded.requested_neighbor_lists()[0], asked, *kind)
    return GeneralModel(loaded, energy, asked, *kind)


def longest_list(loaded: Any) -> float:
    """The longest of the neighbour lists that a model asks for, Å; 0 without any."""
    lists = loaded.requested_neighbor_lists()
    return max((each.engine_cutoff("angstrom") for each in lists), default=0.0)


def require_supported(given: str, device: torch.device, path: Path, supported: Sequence[str]) -> None:
    if device.type not in supported:
        raise BadInput(f"device '{given}': '{path.name}' supports {', '.join(supported)}")


def leave_out_composition(path: Path, loaded: Any, ours: Entries | None) -> None:
    if ours is None:
        why = "does not say its composition energies (files written by mlplugins do)"
        raise BadInput(f"'{path.name}' {why}, so that they cannot be left out (baseline)")
    loaded.module.baseline.zero_()
    if hasattr(loaded.module, "baselines"):
        loaded.module.baselines.zero_()


def energy_output(path: Path, outputs: list[str], wanted: str | None) -> str:
    energies = [name for name in outputs if name == "energy" or name.startswith("energy/")]
    name = wanted or ("energy" if "energy" in energies or len(energies) != 1 else energies[0])
    name = name if name in energies else f"energy/{name}" if f"energy/{name}" in energies else name
    if name in energies:
        return name
    if wanted is None and energies:
        raise BadInput(
            f"'{path.name}' has several energies and no default among them: choose one of "
            f"{', '.join(sorted(energies))} (ASE and i-PI: variant, LAMMPS: variant/energy)"
        )
    text = nearest(name, energies) if energies else f"it has {', '.join(outputs) or 'no outputs'}"
    raise BadInput(f"'{path.name}' has no output '{name}': {text}")


def inputs(path: Path, model: Any) -> dict[str, tuple[float, float]]:
    """The inputs that a model of others asks for beside positions, elements and cell, of any value."""
    wanted = model.requested_inputs(use_new_names=True)
    other = [key for key, value in wanted.items() if key not in states.NAMES or value.sample_kind != "system"]
    if other:
        raise BadInput(
            f"'{path.name}' needs more than positions, elements, cell, charge and spin multiplicity "
            f"({', '.join(other)}), which mlplugins does not supply"
        )
    return dict.fromkeys(wanted, (-math.inf, math.inf))
