"""Nequix models (`.nqx` of the package nequix) → the family `nequip`.

A file is one line of JSON, the configuration, and numpy arrays, the leaves of the JAX model in order; no
pickle.
Same function, other parametrisation; what differs is absorbed into the weights, in float64:

| nequix (JAX)                                 | here                                                     |
|----------------------------------------------|----------------------------------------------------------|
| irreps merged, one weight matrix each        | one per block (scalars, gates, every path)               |
| features: one-hot elements                   | `embedding`, the identity, of as many channels           |
| 2/r_c before the Bessel functions            | √(2/r_c): the rest in the radial network's first layer   |
| radial network without gains                 | divided by our 1/√(fan in) and gain of silu              |
| second moment of silu from quantiles         | ours from e3nn: the ratio goes into all that follows     |
| energies of the elements + one common shift  | composition baseline, added in float64                   |

The weights of its linear maps are normalised as ours. Features and harmonics have natural parity, for which
no release of e3nn changed the sign of a Clebsch–Gordan coefficient. Paper: Koker et al., arXiv 2508.16067.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.lib import format as npy
from scipy.special import erfinv
from torch import Tensor

from mlplugins.checkpoints import _record
from mlplugins.checkpoints._e3nn import (
    TensorPath,
    channel_order,
    fill_linears,
    gate_columns,
    merged_gate_input,
    paths,
    paths_of,
)
from mlplugins.checkpoints.native import Checkpoint
from mlplugins.errors import BadInput
from mlplugins.models import nequip
from mlplugins.models._bounded import like_its_file
from mlplugins.nn.irreps import o3
from mlplugins.nn.radial import SILU_NORM

REFERENCES = [*nequip.REFERENCES, "https://doi.org/10.48550/arXiv.2508.16067"]

LONGEST_LINE = 1_000_000
"""Bytes of the configuration; of published models 6000."""

KEYS = {"atomic_numbers", "avg_n_neighbors", "hidden_irreps", "radial_polynomial_p", "radial_mlp_size"}
"""What the configuration of a Nequix model has and no other format's first line."""


READ = KEYS | {"cutoff", "index_weights", "layer_norm", "lmax", "n_layers"}
READ |= {"radial_basis_size", "radial_mlp_layers", "scale", "shift"}
"""What the model of nequix 0.4.5 is made of."""

TRAINING = re.compile(
    r"atom_energies|avg_n_\w+|batch_size|cache_dir|checkpoint_\w+|ema_decay|extra_\w+|finetune_from|grad_clip_norm"
    r"|hessian_weight|kernel|(energy|force|stress)_weight|learning_rate|log_every|loss_type|max_n_\w+|mlp_init_scale"
    r"|n_epochs|n_graph|optimizer|readout_initialization|resume_from|state_path|(train|val|valid)_\w+|warmup_\w+"
    r"|weight_decay"
    r"|author|comment|date|description|experiment\w*|license|lr\w*|name|notes?|num_workers|patience|project|run_\w+"
    r"|\w*scheduler\w*|seed|tags?|test_\w+|wandb\w*|\w+_(path|dir)"  # a user's own
)
"""Entries that say how a model was trained, and leave its function alone."""


def recognises(path: Path | str) -> bool:
    """Whether the file begins with the configuration of a Nequix model, or is called one."""
    if Path(path).suffix == ".nqx":
        return True  # cut off or not: `read` says what is wrong
    with Path(path).open("rb") as file:
        if file.read(1) != b"{":
            return False
        file.seek(0)
        line = file.readline(LONGEST_LINE)
    return all(f'"{key}"'.encode() in line for key in KEYS)


def read(path: Path | str, elements: list[str] | None = None) -> Checkpoint:
    """Read a model; JAX and nequix are not needed.

    Args:
        path: the `.nqx` file.
        elements: keep only these (symbols); default: all that the model knows.

    Returns:
        The model as family `nequip` in float64; energies of the elements as composition energies.

    Raises:
        BadInput: truncated or damaged, irreps that are not supported, an option of another generation, or an
            unknown element.
    """
    path = Path(path)
    with _record.intact(path, "Nequix model"), path.open("rb") as file:
        config = dict(json.loads(file.readline(LONGEST_LINE)))
        _require_known(config)
        known = [chemical_symbols[int(z)] for z in sorted(config["atomic_numbers"])]  # nequix sorts them
        symbols, rows = _record.kept(known, elements)
        hyperparameters = _hyperparameters(config)
        with torch.random.fork_rng(devices=[]), like_its_file(path):
            model = nequip.Model(symbols, hyperparameters)
        with torch.no_grad():
            baseline = _fill(model, config, _Leaves(file), rows)
    source = _record.source("Nequix", path, version=None)  # the files do not say which
    return Checkpoint(
        potential=model.eval(),
        family="nequip",
        elements=symbols,
        baseline=baseline,
        details=_record.details(model, hyperparameters, source=source),
        references=REFERENCES,
    )


def _require_known(config: dict[str, Any]) -> None:
    """Refuse options that may change the function without an array of their own, as a repulsion would."""
    missing = sorted(READ - set(config))
    if missing:
        raise BadInput(f"not an intact Nequix model: its first line has no entry {', '.join(missing)}")
    unknown = {
        key: value
        for key, value in config.items()
        if value and key not in READ and not TRAINING.fullmatch(key)
    }
    if unknown:
        named = ", ".join(f"'{key}: {value}'" for key, value in unknown.items())
        raise BadInput(
            f"the option {named} is unknown (nequix 0.4.5 has none of this name): upgrade mlplugins; or, if "
            "energies do not depend on it, take it out of the first line of the file"
        )


def _hyperparameters(config: dict[str, Any]) -> nequip.Hyperparameters:
    hidden, l_max = o3.Irreps(config["hidden_irreps"]), _record.whole("lmax", config["lmax"], 3)
    if [ir for _, ir in hidden] != [ir for _, ir in o3.Irreps.spherical_harmonics(l_max)]:
        raise BadInput(
            f"hidden_irreps '{config['hidden_irreps']}' with lmax {l_max} are not supported: expected each "
            "degree up to lmax once, with its natural parity (0e + 1o + 2e + 3o)"
        )
    if not float(config["radial_polynomial_p"]).is_integer():
        raise BadInput(f"radial_polynomial_p {config['radial_polynomial_p']}: expected a whole number")
    return nequip.Hyperparameters(
        cutoff=float(config["cutoff"]),
        num_layers=int(config["n_layers"]),
        l_max=l_max,
        num_features=[mul for mul, _ in hidden],
        num_basis=int(config["radial_basis_size"]),
        envelope_power=_record.whole("radial_polynomial_p", config["radial_polynomial_p"]),
        radial_mlp=[int(config["radial_mlp_size"])] * int(config["radial_mlp_layers"]),
        self_connection="species" if config["index_weights"] else "linear",
        readout_mlp=[],
        num_embedding=len(config["atomic_numbers"]),
        layer_norm=bool(config["layer_norm"]),
    )


class _Leaves:
    """The arrays of a file, taken in order, each with the shape that the configuration announces."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.taken = 0

    def take(self, *shape: int) -> Tensor:
        """The next array, in float64."""
        self.taken += 1
        version = npy.read_magic(self.file)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        found, fortran, dtype = header(self.file)
        if found != shape or fortran or dtype.kind not in "fib":  # before memory is asked for
            raise BadInput(f"array {self.taken} is {dtype} {found}, expected numbers {shape}")
        n_bytes = math.prod(shape) * dtype.itemsize
        content = self.file.read(n_bytes)
        if len(content) < n_bytes:
            raise BadInput(f"truncated: array {self.taken} has {len(content)} of {n_bytes} bytes")
        array = np.frombuffer(content, dtype).reshape(shape)
        return torch.from_numpy(array.astype(np.float64))

    def matrices(self, irreps_in: o3.Irreps, irreps_out: o3.Irreps, n: int = 0) -> dict[o3.Irrep, Tensor]:
        """A linear map between merged irreps, (n or 1, channels in, channels out) for each irrep.

        JAX orders the entries of a dictionary by name, here "w[0,0] …", "w[1,1] …".
        """
        shapes = {
            f"w[{i},{k}]": (ir, a, b)
            for i, (a, ir) in enumerate(irreps_in)
            for k, (b, other) in enumerate(irreps_out)
            if ir == other
        }
        own = [shapes[name] for name in sorted(shapes)]
        return {ir: self.take(*([n] if n else []), a, b).reshape(max(n, 1), a, b) for ir, a, b in own}

    def finish(self) -> None:
        """Refuse weights that were not taken.

        Published files end with a newline, or with the numbers of the configuration once more.
        """
        while start := self.file.read(1).strip():
            self.file.seek(-len(start), 1)
            self.take()


def _fill(model: nequip.Model, config: dict[str, Any], leaves: _Leaves, rows: list[int]) -> list[float]:
    """Copy all weights into the model; returns the baseline of every element, eV."""
    n_species = len(config["atomic_numbers"])
    energies = leaves.take(n_species)[rows] + float(config["shift"])
    model.embedding.copy_(torch.eye(n_species, dtype=torch.float64)[rows])
    model.average_neighbors.fill_(float(config["avg_n_neighbors"]))
    follows_gate = _silu_norm() / SILU_NORM
    for t, module in enumerate(model.interactions):
        interaction = cast(nequip.Interaction, module)
        n_skips = n_species if config["index_weights"] else 0
        _fill_interaction(interaction, int(config["lmax"]), leaves, rows, n_skips)
        interaction.convolution.radial.weights[0].mul_(math.sqrt(2.0 / model.cutoff))
        for linear in (interaction.linear_up, interaction.self_connection) if t > 0 else ():
            for weight in linear.weights:
                weight.mul_(follows_gate)
    scalars = o3.Irreps([(model.readout.weights[0].shape[0], "0e")])
    readout = leaves.matrices(scalars, o3.Irreps("0e"))[scalars[0].ir][0]
    model.readout.weights[0].copy_(readout * follows_gate)
    leaves.finish()
    model.energy_scale.fill_(float(config["scale"]))
    return energies.tolist()


def _fill_interaction(
    interaction: nequip.Interaction, l_max: int, leaves: _Leaves, rows: list[int], n_species: int
) -> None:
    """One interaction block, in the order of its leaves: radial network, linear maps, layer norm."""
    irreps_in, irreps_out = interaction.irreps_in, interaction.irreps_out
    harmonics = o3.Irreps.spherical_harmonics(l_max)
    theirs = sorted(paths(irreps_in, harmonics, {ir for _, ir in irreps_out}), key=lambda path: path.sort_key)
    middle = o3.Irreps([(path.channels, path.ir_out) for path in theirs]).simplify()
    merged = merged_gate_input(irreps_out)
    _fill_radial(interaction, leaves, theirs)
    matrices = {
        "linear_up": leaves.matrices(irreps_in, irreps_in),
        "linear_down": leaves.matrices(middle, merged),
        "self_connection": leaves.matrices(irreps_in, merged, n_species),
    }
    if n_species:
        matrices["self_connection"] = {ir: w[rows] for ir, w in matrices["self_connection"].items()}
    fill_linears(interaction, (irreps_in, irreps_out), theirs, matrices)
    if interaction.layer_norm is not None:
        weights = {ir: leaves.take(mul) for mul, ir in merged}
        columns = gate_columns(interaction.gate, irreps_out)
        interaction.layer_norm.weight.copy_(torch.cat([weights[ir][index] for ir, index in columns]))


def _fill_radial(interaction: nequip.Interaction, leaves: _Leaves, theirs: list[TensorPath]) -> None:
    """The radial network: theirs multiplies no gains."""
    radial = interaction.convolution.radial.weights
    order = channel_order(theirs, paths_of(interaction.convolution, interaction.irreps_in))
    for k, weight in enumerate(radial):
        matrix = leaves.take(*weight.shape) * math.sqrt(weight.shape[0])
        if k > 0:
            matrix = matrix / SILU_NORM
        weight.copy_(matrix[:, order] if k == len(radial) - 1 else matrix)


def _silu_norm() -> float:
    """1/√⟨silu²⟩ over a normal distribution as e3nn-jax has it: over 1 000 001 quantiles."""
    x = np.sqrt(2) * erfinv(np.linspace(-1.0, 1.0, 1_000_003)[1:-1])
    return float(np.mean((x / (1 + np.exp(-x))) ** 2) ** -0.5)
