"""Writing a model.pt from a checkpoint, foreign or native."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlplugins import checkpoints, files
from mlplugins.checkpoints import added, native
from mlplugins.checkpoints.native import Checkpoint
from mlplugins.errors import BadInput, nearest
from mlplugins.model_file.archive import layers
from mlplugins.model_file.card import RADIAL
from mlplugins.model_file.precision import DTYPES
from mlplugins.model_file.radial import DEFAULT, RadialTables
from mlplugins.model_file.write import save
from mlplugins.models.capabilities import unfused_degree
from mlplugins.structures import state as states

CHECKPOINT = "checkpoint.ckpt"
"""In the folder of a run."""


@dataclass(frozen=True)
class Changes:
    """What is changed of the model.

    Attributes:
        tables: radial tables; by default those that are certified, in float32.
        zbl: a screened nuclear repulsion is added: True, or where its switching function begins and ends, Å.
        d3: dispersion is added: functional and damping (`pbe-bj`), or these and the cutoff of the pairs, Å.
    """

    tables: RadialTables = DEFAULT
    zbl: bool | Sequence[float] = False
    d3: str | Sequence[Any] | None = None


@dataclass(frozen=True)
class Variant:
    """Which of the models in one file.

    Attributes:
        head: level of theory: head of MACE, task (fidelity) of SevenNet.
        charge: fix a model with an embedding of it to this total charge, e; None: it stays an input.
        spin: the same of the spin multiplicity 2S + 1.
    """

    head: str | None = None
    charge: int | None = None
    spin: int | None = None

    def conditions(self) -> dict[str, float]:
        """Charge and spin that are fixed."""
        given = {"total_charge": self.charge, "total_spin": self.spin}
        return {name: float(value) for name, value in given.items() if value is not None}


def convert(
    checkpoint: Path | str,
    output: Path | str = "model.pt",
    elements: Sequence[str] | None = None,
    head: str | Variant | None = None,
    dtype: str = "float32",
    portable: bool = False,
    changes: Changes = Changes(),
) -> dict[str, Any]:
    """Write the model of a foreign checkpoint as a model.pt, without the foreign package.

    Args:
        checkpoint: of SevenNet, MACE, NequIP or Nequix, found by its content; or a model.pt of ours.
        output: the file to write.
        elements: symbols to keep; None: all of the model.
        head: which one of several: head of MACE, task (fidelity) of SevenNet; or a `Variant`, with charge and
            spin.
        dtype: precision in which the model computes, `float32` or `float64`.
        portable: free of the ops of mlplugins, for engines that know nothing of them.
        changes: radial tables, core repulsion, …

    Returns:
        What `mlplugins convert --json` writes.

    Raises:
        BadInput: no such file, an unknown format or option, an element that the model does not know, a
            term that it has already.
        RunFailed: the file cannot be written.
    """
    path = Path(checkpoint)
    tables = () if changes.tables is None else changes.tables.structures
    _check(dtype, Path(output), [files.in_folder(path, "model.pt"), tables])
    variant = head if isinstance(head, Variant) else Variant(head)
    kept = None if elements is None else list(elements)
    found = checkpoints.read(path, kept, variant.head, variant.conditions())
    source = found.details["source"]
    name = f"{source['format']} ({path.name})"
    terms = added.terms(changes.zbl, changes.d3)
    warnings = added.doubts(found, terms)
    potential, found = added.add(found.potential, found, terms, path.name if path.is_file() else "")
    found = replace(found, potential=potential)
    stored = _write(found, Path(output), _Options(name, dtype, portable, changes.tables))
    return {
        "model": str(output),
        "family": found.family,
        "parts": found.parts,
        "elements": found.elements,
        "cutoff_A": found.potential.cutoff,
        "layers": layers(found.potential.reach, found.potential.cutoff),
        "parameters": found.details["n_parameters"],
        "dtype": dtype,
        "portable": portable,
        "source": source,
        "inputs": states.ranges(found.potential.inputs),
        "unfused_degree": unfused_degree(found.potential),
        "warnings": warnings,
        **stored,
    }


def export_checkpoint(
    checkpoint: Path | str,
    output: Path | str = "model.pt",
    dtype: str | None = None,
    portable: bool = False,
    tables: RadialTables = DEFAULT,
) -> dict[str, Any]:
    """Write the model of a checkpoint.ckpt of `train` or `finetune` as a model.pt; for an unfinished run with
    the best averaged weights so far.

    Args:
        checkpoint: the file, or the folder of the run.
        output: the file to write.
        dtype: precision in which the model computes; None: as it was trained.
        portable, tables: as in `convert`.

    Returns:
        What `mlplugins export --json` writes.

    Raises:
        BadInput: no such file, or not such a checkpoint.
        RunFailed: the file cannot be written.
    """
    path = files.in_folder(checkpoint, CHECKPOINT)
    _check(dtype, Path(output), [path, () if tables is None else tables.structures])
    found = native.read(path)
    chosen = dtype or str(found.details["configuration"]["training"]["dtype"])
    name = f"{found.family} for {'-'.join(found.elements)}"
    stored = _write(found, Path(output), _Options(name, chosen, portable, tables))
    record = {"model": str(output), "family": found.family, "elements": found.elements}
    return {**record, "dtype": chosen, "portable": portable, **stored}


@dataclass(frozen=True)
class _Options:
    name: str
    dtype: str
    portable: bool
    tables: RadialTables


def _check(dtype: str | None, output: Path, inputs: Any) -> None:
    """Refuse what cannot work before anything is read."""
    if dtype is not None and dtype not in DTYPES:
        raise BadInput(f"dtype '{dtype}': {nearest(dtype, DTYPES)}")
    files.require_writable(output, "output", inputs=inputs)


def _write(found: Checkpoint, output: Path, options: _Options) -> dict[str, Any]:
    """Write the file, and return the record of its radial functions."""
    card = replace(found, name=options.name)
    radial = save(found.potential, output, card, options.dtype, options.portable, options.tables)
    return {RADIAL: radial and asdict(radial)}
