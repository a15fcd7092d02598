"""Multiple time steps of a campaign: the model of the inner steps, what is refused, and what is said."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from ase import Atoms

from mlplugins import files
from mlplugins.dynamics.settings import DIRECT, MultipleTimeSteps, SimulationConfig
from mlplugins.elements import require_known
from mlplugins.errors import BadInput
from mlplugins.model_file import artifact
from mlplugins.model_file.artifact import Artifact
from mlplugins.model_file.card import has_no_energy

LIGHT = 1.5
"""Atoms below this mass (u) vibrate like hydrogen."""

RESONANCE = 4.0
"""Outer step from which the bonds of hydrogen resonate, fs: half of the period of O–H is 4.6 fs."""


class Inner(NamedTuple):
    """The model of the inner steps.

    Attributes:
        settings: with the path made absolute.
        fingerprint: SHA-256 of the file; empty for the direct forces of the model itself.
        inputs: `charge`, `spin_multiplicity`, if it takes them.
        made: sentence for the report.
        notes: for the user.
    """

    settings: MultipleTimeSteps
    fingerprint: dict[str, str]
    inputs: tuple[str, ...]
    made: dict[str, str]
    notes: tuple[str, ...]


def checked(config: SimulationConfig, model: Artifact, atoms: Atoms) -> Inner | None:
    """What the inner steps of a campaign need; None without multiple time steps.

    Raises:
        BadInput: no direct forces in the file, or no stress where a cell changes; a file that is missing,
            knows other elements, or is the model itself.
    """
    mts = config.mts
    if mts is None:
        return None
    if mts.inner == DIRECT:
        _require_direct(config, model)
        found, name, fingerprint = model, f"direct forces of {model.path.name}", {}
    else:
        found = _student(config, Path(mts.inner), model, set(atoms.get_chemical_symbols()))
        mts = mts.model_copy(update={"inner": str(found.path)})
        name, fingerprint = found.path.name, {"inner_sha256": files.sha256(found.path)}
    outer, inner = config.timestep, config.timestep / mts.every
    said = (
        f"multiple time steps: {name} every {inner:g} fs (the inner step), {model.path.name} every {outer:g} "
        "fs (the outer step, 'timestep'; 'steps' and intervals count outer steps)"
    )
    notes = [said, *_resonance(config, atoms)]
    made = {"multiple time steps": f"{name} every {inner:g} fs, the potential every {outer:g} fs"}
    return Inner(mts, fingerprint, tuple(found.inputs), made, tuple(notes))


def require_forces(model: Artifact, key: str) -> None:
    """Refuse a model that predicts what heads do, and no energies.

    Raises:
        BadInput: naming the key of the configuration.
    """
    if has_no_energy(model.record):
        raise BadInput(
            f"{key}: '{model.path.name}' was trained without energies, so that no forces move the atoms: "
            "name a model with energies"
        )


def _require_direct(config: SimulationConfig, model: Artifact) -> None:
    if "direct_forces" not in model.more:
        raise BadInput(
            f"'mts.inner': direct, but '{model.path.name}' has no direct forces (output "
            "non_conservative_force): train it with `heads: {direct_forces: {}}`, or name a cheaper model.pt"
        )
    # i-PI's barostats take the virial of every level, and its pressure all of them
    if "direct_stress" not in model.more and (config.needs_pressure or config.engine == "ipi"):
        raise BadInput(
            f"'mts.inner': direct, but '{model.path.name}' has no direct stress (output "
            "non_conservative_stress), without which i-PI has no pressure and no cell may change; use engine "
            "lammps with ensemble nvt or nve and npt_steps 0, or name a cheaper model.pt"
        )


def _student(config: SimulationConfig, path: Path, model: Artifact, symbols: Collection[str]) -> Artifact:
    found = artifact.load(path, device=config.device)
    require_forces(found, "'mts.inner'")
    known = ", ".join(found.elements)
    require_known(
        symbols,
        found.elements,
        "'mts.inner': the structure holds ",
        f", which '{found.path.name}' does not know; it knows {known}",
    )
    if files.sha256(found.path) == files.sha256(model.path):
        raise BadInput(
            f"'mts.inner': '{found.path.name}' is the model itself, so that inner steps would cost as much "
            "as outer ones; name a cheaper model.pt, or direct for its direct forces"
        )
    return found


def _resonance(config: SimulationConfig, atoms: Atoms) -> list[str]:
    if config.timestep <= RESONANCE or atoms.get_masses().min() > LIGHT:
        return []
    return [
        f"mts: an outer step of {config.timestep:g} fs with hydrogen: above half the period of its fastest "
        f"vibrations (O-H 4.6 fs) the kicks of the outer step resonate with them and heat them; expected "
        f"'timestep' up to {RESONANCE:g} fs"
    ]
