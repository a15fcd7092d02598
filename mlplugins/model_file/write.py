"""Any family → model.pt: a metatomic model, our entries, the trainable weights, checksums."""

from __future__ import annotations

import copy
import io
import json
import math
import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch
from ase.data import atomic_numbers
from metatomic.torch import AtomisticModel, ModelCapabilities, ModelMetadata, ModelOutput

from mlplugins import files
from mlplugins.errors import BadInput, RunFailed
from mlplugins.model_file import format
from mlplugins.model_file.card import RADIAL, ModelCard, has_no_energy
from mlplugins.model_file.doubts import closest
from mlplugins.model_file.made_for import MADE_FOR, conditions
from mlplugins.model_file.module import MetatomicModel
from mlplugins.model_file.precision import DTYPES
from mlplugins.model_file.radial import DEFAULT, RadialFunctions, RadialTables
from mlplugins.model_file.tables import chosen
from mlplugins.models.base import Potential
from mlplugins.models.capabilities import is_trainable, of_whole_molecule, predicts_variance
from mlplugins.ops.build import OPS_LIBRARY
from mlplugins.quantities import ENERGY, QUANTITIES
from mlplugins.structures.state import CHARGE, SPIN


def save(
    potential: Potential,
    path: Path | str,
    card: ModelCard,
    dtype: str = "float32",
    portable: bool = False,
    tables: RadialTables = DEFAULT,
) -> RadialFunctions | None:
    """Write `potential` as a metatomic model file (atomically: an existing file survives a failure).

    Args:
        potential: a trained family, in any dtype; it is copied, not changed.
        path: file to write.
        card: elements, baseline and record stored in the file.
        dtype: `float32` or `float64`, the precision the model computes in; energies are float64 either way.
        portable: write a file free of our ops, for engines that know nothing of mlplugins; LAMMPS then has no
            exchange mode.
        tables: cubic tables in place of radial networks.

    Returns:
        What the file computes its radial functions with; None for a family without radial networks.

    Raises:
        BadInput: unknown dtype, a baseline that does not match the elements, or tables that cannot be.
    """
    if dtype not in DTYPES:
        raise BadInput(f"dtype: expected float32 or float64, got '{dtype}'")
    if of_whole_molecule(potential) and dtype != "float64":
        raise BadInput(f"dtype: the weights of a {card.family} cancel over many digits, expected float64")
    if len(card.baseline) != len(card.elements):
        raise BadInput(
            f"baseline: expected {len(card.elements)} values, one per element, got {len(card.baseline)}"
        )
    for name in potential.variants:
        if len(card.baselines.get(name.removeprefix(ENERGY), ())) != len(card.elements):
            raise BadInput(
                f"baselines: expected {len(card.elements)} values of '{name}', one per element, got "
                f"{card.baselines.get(name.removeprefix(ENERGY))}"
            )
    exact = _folded(potential)
    inside, radial = chosen(exact, card.elements, dtype, portable, tables)
    if radial is not None:
        count = {"n_parameters": sum(p.numel() for p in potential.parameters())}  # of the networks, too
        card = replace(card, details={**count, **card.details, RADIAL: asdict(radial)})
    model = _wrap(_finished(inside, dtype, portable), card, dtype, portable)
    try:
        with files.replacing(Path(path)) as temporary:
            with warnings.catch_warnings(), _recorded_extensions(portable):
                # torch.jit is metatomic's format
                warnings.filterwarnings("ignore", category=DeprecationWarning)
                model.save(str(temporary))
            _seal(str(temporary), _trainable(potential))
    except OSError as error:
        raise RunFailed(f"cannot write {path}: {error.strerror or error}") from error
    return radial


def _trainable(potential: Potential) -> bytes | None:
    """The weights before they are folded for inference, which fine-tuning starts from; None if the family is
    solved in closed form, where nothing is trained further."""
    if not is_trainable(potential):
        return None
    buffer = io.BytesIO()
    # not as an archive: within this one, half a file could be taken for a whole one
    torch.save(potential.state_dict(), buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def _seal(path: str, weights: bytes | None) -> None:
    """Add the weights, and the checksums of all entries, which engines compare when they load the file."""
    with zipfile.ZipFile(path, "a") as archive:
        folder = archive.namelist()[0].partition("/")[0]
        if weights is not None:
            archive.writestr(f"{folder}/{format.WEIGHTS}", weights)
        entries = [(entry, entry.filename.partition("/")[2]) for entry in archive.infolist()]
        lines = [f"{entry.CRC:08x} {entry.file_size} {name}\n" for entry, name in entries]
        archive.writestr(f"{folder}/{format.MANIFEST}", "".join(lines))


def _system_outputs(potential: Potential) -> str:
    """What heads predict of whole systems, as LAMMPS reads it: `mlplugins::dipole:3`."""
    own = [QUANTITIES[name] for name in potential.predicts if name != "energy"]
    found = [f"{q.output}:{math.prod(q.shape)}" for q in own if q.per == "system" and q.output]
    return " ".join([*found, *(f"{name}:1" for name in _energies(potential))])


def _energies(potential: Potential) -> list[str]:
    """Outputs by which several energies are chosen, that of the first among them."""
    return [ENERGY + potential.energy_name, *potential.variants] if potential.variants else []


@contextmanager
def _recorded_extensions(portable: bool) -> Iterator[None]:
    """Our ops at most: metatomic records every library that the process happens to have loaded."""
    loaded = torch.ops.loaded_libraries
    # a newer build may have replaced ours under a long training
    ours = {path for path in loaded if path.endswith(OPS_LIBRARY) and os.path.exists(path) and not portable}
    others = set(loaded) - ours
    loaded.difference_update(others)
    try:
        yield
    finally:
        loaded.update(others)


def for_inference(potential: Potential, dtype: str, portable: bool = False) -> Potential:
    """A copy as files hold it: folded, in float32 or float64, with the native ops unless it is portable."""
    return _finished(_folded(potential), dtype, portable)


def _folded(potential: Potential) -> Potential:
    """A copy with what depends on its weights only computed before these are rounded."""
    potential = copy.deepcopy(potential).to(dtype=torch.float64).eval().requires_grad_(False)
    potential.optimise_for_inference()
    return potential


def _finished(potential: Potential, dtype: str, portable: bool) -> Potential:
    """The same object in the precision of the file, with its ops."""
    potential.to(dtype=DTYPES[dtype])
    if not portable:
        potential.use_native_ops()
    return potential


def _state(potential: Potential, card: ModelCard) -> dict[str, str]:
    """What the model takes of a structure as a whole, or was made for; whether it needs all atoms at once."""
    keys = {CHARGE: format.CHARGE, SPIN: format.SPIN}
    fixed = {keys[MADE_FOR[name]]: f"= {value:g}" for name, value in conditions(card.details).items()}
    together = any(part.coupled for part in potential.parts())
    whole = {format.TOGETHER: format.ALL_ATOMS} if together else {}
    return fixed | whole | {keys[n]: f"{low:g} {high:g}" for n, (low, high) in potential.inputs.items()}


def _outputs(potential: Potential) -> dict[str, ModelOutput]:
    """What the file declares."""
    outputs = {
        str(q.output): ModelOutput(
            unit=q.output_unit, sample_kind="atom", description=q.description or q.noun
        )
        for q in (QUANTITIES[name] for name in potential.predicts)
    }
    for name in _energies(potential):
        energy = f"potential energy, {name.removeprefix(ENERGY)}"
        outputs[name] = ModelOutput(unit="eV", sample_kind="atom", description=energy)
    if "direct_forces" in potential.predicts:
        stress = QUANTITIES["direct_stress"]
        outputs[str(stress.output)] = ModelOutput(
            unit=stress.unit, sample_kind="system", description=stress.description
        )
    if predicts_variance(potential):
        outputs["energy_uncertainty"] = ModelOutput(
            unit="eV", sample_kind="atom", description="standard deviation of the predicted energy"
        )
    if potential.feature_width > 0:
        outputs["feature"] = ModelOutput(
            unit="", sample_kind="atom", description="inputs of the readout's layers times the energy scale"
        )
    return outputs


def _closest(card: ModelCard) -> str:
    """The shortest distances of the training frames, as LAMMPS reads them."""
    found = closest(card.details).items()
    return " ".join(f"{'-'.join(str(atomic_numbers[s]) for s in pair.split('-'))}:{r:g}" for pair, r in found)


def _wrap(potential: Potential, card: ModelCard, dtype: str, portable: bool) -> AtomisticModel:
    whole = of_whole_molecule(potential)
    exchange_width = 0 if portable else potential.exchange_width
    rows = [card.baseline, *(card.baselines[name.removeprefix(ENERGY)] for name in potential.variants)]
    module = MetatomicModel(potential, card.elements, torch.tensor(rows, dtype=torch.float64), DTYPES[dtype])
    capabilities = ModelCapabilities(
        outputs=_outputs(potential),
        atomic_types=[atomic_numbers[symbol] for symbol in card.elements],
        interaction_range=float("inf") if whole else potential.reach,
        length_unit="angstrom",
        supported_devices=["cpu", "cuda"],
        # of inputs and outputs: metatomic knows one for both, and a total energy needs more than seven digits
        dtype="float64",
    )
    metadata = ModelMetadata(
        name=card.name,
        authors=list(card.stated.get("authors") or []),
        references={
            "model": list(card.stated.get("cite") or []),
            "architecture": card.references,
            "implementation": ["mlplugins"],
        },
        extra={
            format.FORMAT: str(format.NEWEST),
            format.FAMILY: card.family,
            format.CUTOFF: repr(potential.cutoff),
            format.EXCHANGE_WIDTH: str(exchange_width),
            format.DTYPE: dtype,
            **({format.ATOM_ORDER: format.BY_TAG} if whole else {}),
            **_state(potential, card),
            **({format.ENERGY: "none"} if has_no_energy(card.details) else {}),
            **({format.SYSTEM_OUTPUTS: totals} if (totals := _system_outputs(potential)) else {}),
            **({format.CLOSEST: pairs} if (pairs := _closest(card)) else {}),
            format.RECORD: json.dumps(
                {
                    "elements": card.elements,
                    "baseline_eV": card.baseline,
                    **({"baselines_eV": card.baselines} if card.baselines else {}),
                    "portable": portable,
                    **card.details,
                }
            ),
        },
    )
    return AtomisticModel(module.eval(), metadata, capabilities)
