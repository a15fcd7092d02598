"""SevenNet checkpoints (`.pth` of the package sevenn) → the family `nequip`.

Same function, other parametrisation; what differs is absorbed into the weights, in float64:

| SevenNet (e3nn)                               | here                                                   |
|-----------------------------------------------|--------------------------------------------------------|
| irreps merged, one weight matrix each         | one per block (scalars, gates, every path)             |
| path order of its convolution (by version)    | path order of `nn.convolution`                         |
| Wigner 3j of the e3nn it was trained with     | those of ours: −1 goes into the path's radial weights  |
| 2/r_c before the Bessel functions             | √(2/r_c): the rest in the radial network's first layer |
| one-hot → linear, two linear readout layers   | embedding, one linear layer                            |
| denominator of every convolution              | one normalisation: the ratio goes into `linear_down`   |
| shift of every element                        | composition baseline, added in float64                 |
| fidelity: a one-hot beside the scalars        | constants (`scalar_bias`) of the chosen one            |

Paper: Park et al., J. Chem. Theory Comput. 20, 4857 (2024).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from ase.data import chemical_symbols
from torch import Tensor

from mlplugins.checkpoints import _record, unpickle
from mlplugins.checkpoints._e3nn import (
    TensorPath,
    channel_order,
    coupling_sign,
    fill_linears,
    gate_columns,
    linear_matrices,
    merged_gate_input,
    n_weights,
    paths,
    paths_of,
)
from mlplugins.checkpoints.native import Checkpoint
from mlplugins.errors import BadInput, nearest
from mlplugins.models import nequip
from mlplugins.models._bounded import like_its_file
from mlplugins.nn.irreps import o3

REFERENCES = [*nequip.REFERENCES, "https://doi.org/10.1021/acs.jctc.4c00190"]

SUPPORTED: dict[str, Any] = {
    "_model_type": "E3_equivariant_model",
    "interaction_type": "nequip",
    "use_bias_in_linear": False,
    "readout_as_fcn": False,
    "act_radial": "silu",
    "act_gate": {"e": "silu", "o": "tanh"},
    "act_scalar": {"e": "silu", "o": "tanh"},
    "optimize_by_reduce": True,
}
"""Options of which one value is supported; it is also sevenn's default where the option is absent."""

DEFAULTS = {
    "is_parity": True,
    "self_connection_type": "nequip",
    "lmax_edge": -1,
    "lmax_node": -1,
    "irreps_manual": False,
}

NEWEST = (0, 13)
"""Newest known version of sevenn: another order of weights would give other energies unnoticed."""

SORTED_SINCE = (0, 11, 0)
"""From this version of sevenn on the radial weights follow the sorted output irreps."""


class Fidelity(NamedTuple):
    """The task chosen of a model of several fidelities.

    sevenn appends the one-hot of the task to the scalar inputs of some linear maps, so that each task adds
    constants of its own; their number also counts in 1/√(fan in).
    """

    name: str
    number: int
    n_tasks: int


class LayerPaths(NamedTuple):
    """One interaction block as sevenn builds it."""

    irreps_in: o3.Irreps
    irreps_out: o3.Irreps
    paths: list[TensorPath]


def recognises(path: Path | str) -> bool:
    """Whether the file says that it is a checkpoint of sevenn."""
    try:
        strings = unpickle.names(path).strings
    except BadInput:
        return False
    return {"model_state_dict", "config", "_type_map", "chemical_species"} <= strings


def read(path: Path | str, elements: list[str] | None = None, head: str | None = None) -> Checkpoint:
    """Read a checkpoint; no code in the file is run, sevenn is not needed.

    Args:
        path: the `.pth` file.
        elements: keep only these (symbols); default: all that the model knows.
        head: the task (fidelity) of a model with several, e.g. `PBE`.

    Returns:
        The model as family `nequip` in float64, with shifts as composition energies.

    Raises:
        BadInput: not such a checkpoint, truncated, an unsupported option (named), an unknown element, a task
            that is missing or unknown (those of the file are listed), or Clebsch–Gordan coefficients that are
            not ours up to a sign.
    """
    path = Path(path)
    content = unpickle.load(path, lambda name: name.startswith(("numpy.", "sevenn.", "torch.optim.")))
    if not isinstance(content, dict) or not {"model_state_dict", "config"} <= set(content):
        raise BadInput(f"{path}: not a checkpoint of SevenNet (no 'model_state_dict' and 'config')")
    with _record.intact(path, "checkpoint of SevenNet"):
        return _checkpoint(path, content, elements, head)


def _checkpoint(
    path: Path, content: dict[str, Any], elements: list[str] | None, head: str | None
) -> Checkpoint:
    config: dict[str, Any] = {**DEFAULTS, **content["config"]}
    # sevenn < 0.10 did not normalise where it did not say so
    config.setdefault("_normalize_sph", _version(config)[:2] >= (0, 10))
    _refuse_unsupported(path, config)
    fidelity = _fidelity(path, config, head)
    symbols, rows = _elements(config, elements)
    hyperparameters = _hyperparameters(path, config)
    with torch.random.fork_rng(devices=[]), like_its_file(path):
        model = nequip.Model(symbols, hyperparameters)
    epoch = content["epoch"] if isinstance(content.get("epoch"), int) else None
    name = None if fidelity is None else fidelity.name
    source = _record.source("SevenNet", path, str(config["version"]), epoch=epoch, head=name)
    with torch.no_grad():
        shift = _fill(model, _Weights(path, config, content["model_state_dict"], fidelity), rows)
    return Checkpoint(
        potential=model.eval(),
        family="nequip",
        elements=symbols,
        baseline=shift,
        details=_record.details(model, hyperparameters, source=source),
        references=REFERENCES,
    )


def _refuse_unsupported(path: Path, config: dict[str, Any]) -> None:
    for option, value in SUPPORTED.items():
        if config.get(option, value) != value:
            values = ", ".join(f"{name}: {supported!r}" for name, supported in SUPPORTED.items())
            raise BadInput(
                f"{path}: the option '{option}: {config[option]!r}' is not supported (only {value!r}); "
                "supported are SevenNet-0, l3i5 and models with bessel basis, poly_cut or XPLOR cutoff, "
                f"nequip or linear self-connection, with or without parity, l ≤ 3, and {values}"
            )
    if "version" not in config or "_type_map" not in config:
        raise BadInput(f"{path}: a checkpoint of SevenNet without 'version' or '_type_map'")
    if _version(config)[:2] > NEWEST:
        raise BadInput(
            f"{path}: written by sevenn {config['version']}; this mlplugins knows checkpoints "
            f"of sevenn up to {'.'.join(map(str, NEWEST))}: upgrade mlplugins"
        )


def _fidelity(path: Path, config: dict[str, Any], wanted: str | None) -> Fidelity | None:
    """The task of that name; None for a model of one fidelity."""
    if not config.get("use_modality"):
        if wanted is not None:
            raise BadInput(f"{path}: task '{wanted}' of a SevenNet of one fidelity: name none")
        return None
    index = {str(name): int(k) for name, k in config["_modal_map"].items()}
    names = sorted(index, key=lambda name: index[name])
    if wanted is None:
        raise BadInput(
            f"{path}: a model of several fidelities, whose energies are not comparable: name one of "
            f"{', '.join(names)} (--task NAME)"
        )
    if wanted not in index:
        raise BadInput(f"{path}: no task '{wanted}': {nearest(wanted, names)}")
    return Fidelity(wanted, index[wanted], len(index))


def _elements(config: dict[str, Any], wanted: list[str] | None) -> tuple[list[str], list[int]]:
    """Symbols to keep, in sevenn's order, and their rows in its tables."""
    index = {chemical_symbols[int(z)]: int(row) for z, row in config["_type_map"].items()}
    symbols, _ = _record.kept(sorted(index, key=lambda symbol: index[symbol]), wanted)
    return symbols, [index[symbol] for symbol in symbols]


def _hyperparameters(path: Path, config: dict[str, Any]) -> nequip.Hyperparameters:
    l_max, parity = _record.whole("lmax", config["lmax"], 3), bool(config["is_parity"])
    for option in ("lmax_edge", "lmax_node"):
        if config[option] > 0 and config[option] != l_max:
            raise BadInput(
                f"{path}: '{option}: {config[option]}' differs from 'lmax: {l_max}': not supported"
            )
    basis, cutoff = dict(config["radial_basis"]), dict(config["cutoff_function"])
    kinds = basis.get("radial_basis_name"), cutoff.get("cutoff_function_name")
    if kinds[0] != "bessel" or kinds[1] not in ("poly_cut", "XPLOR"):
        raise BadInput(
            f"{path}: radial basis '{kinds[0]}' with cutoff '{kinds[1]}' is not supported (only bessel with "
            "poly_cut or XPLOR)"
        )
    self_connection = _one(path, "self_connection_type", config)
    if self_connection not in ("nequip", "linear"):
        raise BadInput(f"{path}: self_connection_type '{self_connection}' is not supported (nequip, linear)")
    return nequip.Hyperparameters(
        cutoff=float(config["cutoff"]),
        num_layers=int(config["num_convolution_layer"]),
        l_max=l_max,
        num_features=_features(path, config),
        parity=parity if parity else "even",
        num_basis=int(basis.get("bessel_basis_num", 8)),
        envelope_power=_record.whole("poly_cut_p_value", cutoff.get("poly_cut_p_value", 6)),
        xplor_onset=float(cutoff["cutoff_on"]) if kinds[1] == "XPLOR" else None,
        radial_mlp=[int(width) for width in config["weight_nn_hidden_neurons"]],
        solid_harmonics=not config["_normalize_sph"],
        self_connection="linear" if self_connection == "linear" else "species",
        readout_mlp=[],
        scalar_bias=any(config.get(f"use_modal_self_inter_{part}") for part in ("intro", "outro"))
        and bool(config.get("use_modality")),
    )


def _one(path: Path, option: str, config: dict[str, Any]) -> Any:
    """The value of an option that may be a list over the layers."""
    value = config[option]
    values = value if isinstance(value, list) else [value]
    if any(other != values[0] for other in values):
        raise BadInput(f"{path}: '{option}: {value}' differs between the layers: not supported")
    return values[0]


def _features(path: Path, config: dict[str, Any]) -> int | list[int]:
    """Channels of the hidden irreps, which must be the same in all layers."""
    manual = config["irreps_manual"]
    if manual is False:
        return int(config["channel"])
    irreps = [o3.Irreps(text) for text in manual]
    l_max = int(config["lmax"])
    hidden = max(irreps, key=lambda layer: layer.dim)
    channels = [sorted({mul for mul, ir in hidden if ir.l == degree}) for degree in range(l_max + 1)]
    scalars = [o3.Irreps([(mul, ir) for mul, ir in hidden if (ir.l, ir.p) == (0, 1)])] * 2
    if (
        len(irreps) != int(config["num_convolution_layer"]) + 1
        or any(len(muls) != 1 for muls in channels)
        or [irreps[0], irreps[-1]] != scalars
    ):
        raise BadInput(
            f"{path}: irreps {manual} are not supported (expected the same channels for a degree in every "
            f"layer, scalars first and last, degrees up to lmax = {l_max})"
        )
    return [muls[0] for muls in channels]


def _version(config: dict[str, Any]) -> tuple[int, ...]:
    """Numbers of the version of sevenn, e.g. (0, 9, 2)."""
    parts = str(config.get("version", "")).split(".")
    return tuple(int(part) for part in parts[:3] if part.isdigit())


def _renamed(name: str) -> str:
    """A weight's name as sevenn ≥ 0.9.2 spells it.

    >>> _renamed("0 convolution.denumerator")
    '0_convolution.denominator'
    """
    module, dot, rest = name.partition(".")
    module = module.replace("EdgeEmbedding", "edge_embedding").replace("reducing nn", "reduce")
    return module.replace(" ", "_") + dot + rest.replace("denumerator", "denominator")


class _Weights:
    """The state dictionary, with every weight asked for by name, in float64."""

    def __init__(
        self, path: Path, config: dict[str, Any], state: dict[str, Tensor], fidelity: Fidelity | None = None
    ) -> None:
        self.path = path
        self.fidelity = fidelity
        self.config = config
        self.state = {_renamed(name): weight for name, weight in state.items()}
        self.sorted_paths = _version(config) >= SORTED_SINCE and ".dev" not in str(config["version"])

    def get(self, name: str, *shape: int) -> Tensor:
        """A weight of this shape (one −1: any length); flat weights are reshaped to it."""
        if name not in self.state:
            raise BadInput(f"{self.path}: no weight '{name}' (written by sevenn {self.config['version']})")
        weight = self.state[name].detach().to(torch.float64)
        if weight.dim() < 2:
            expected = math.prod(abs(n) for n in shape)
            fits = weight.numel() % expected == 0 if -1 in shape else weight.numel() == expected
        else:
            fits = tuple(weight.shape) == shape
        if not fits:
            raise BadInput(f"{self.path}: '{name}' has shape {tuple(weight.shape)}, expected {shape}")
        return weight.reshape(shape)

    def sign(self, prefix: str, path: TensorPath) -> int:
        """−1 if the path's Clebsch–Gordan coefficients have the opposite sign of ours."""
        l1, l2, l3 = path.ir_in.l, path.degree, path.ir_out.l
        if 0 in (l1, l2, l3):
            return 1  # e3nn multiplies and contracts directly
        name = f"{prefix}convolution._compiled_main_left_right._w3j_{l1}_{l2}_{l3}"
        if name not in self.state:
            raise BadInput(
                f"{self.path}: no Clebsch–Gordan coefficients for ({l1}, {l2}, {l3}) in the checkpoint, "
                "without which their sign is unknown (a model of cuEquivariance, FlashTP or OpenEquivariance "
                "must be saved with the e3nn backend first)"
            )
        sign = coupling_sign(self.state[name], l1, l2, l3)
        if sign == 0:
            raise BadInput(
                f"{self.path}: '{name}' is neither ours nor its opposite: unknown convention of e3nn"
            )
        return sign

    def matrices(
        self, name: str, irreps_in: o3.Irreps, irreps_out: o3.Irreps, n_species: int = 0
    ) -> dict[o3.Irrep, Tensor]:
        """A linear map between merged irreps, with `n_species` one per element."""
        flat = self.get(name, n_weights(irreps_in, irreps_out, n_species))
        return linear_matrices(flat, irreps_in, irreps_out, n_species)

    def with_constants(
        self, part: str, name: str, irreps_in: o3.Irreps, irreps_out: o3.Irreps
    ) -> tuple[dict[o3.Irrep, Tensor], Tensor]:
        """A linear map that may depend on the task, and the constants of the chosen one, added to 0e.

        Args:
            part: of the option `use_modal_{part}` that says whether it depends.
            name: of the weight.
            irreps_in, irreps_out: merged; without the one-hot.
        """
        invariant = o3.Irrep("0e")
        n_out = irreps_out.count(invariant)
        if self.fidelity is None or not self.config.get(f"use_modal_{part}"):
            return self.matrices(name, irreps_in, irreps_out), torch.zeros(n_out, dtype=torch.float64)
        n_own, count = n_weights(irreps_in, irreps_out), self.fidelity.n_tasks
        own, onehot = self.get(name, n_own + count * n_out).split([n_own, count * n_out])
        matrices = linear_matrices(own, irreps_in, irreps_out)
        fan_in = irreps_in.count(invariant)
        if invariant in matrices:
            matrices[invariant] = matrices[invariant] * math.sqrt(fan_in / (fan_in + count))
        constants = onehot.reshape(count, n_out)[self.fidelity.number] / math.sqrt(fan_in + count)
        return matrices, constants

    def of_elements(self, name: str, n_species: int) -> Tensor:
        """A number for each element: of the chosen task, or the only one."""
        weight = self.state.get(name)
        if self.fidelity is not None and weight is not None and weight.dim() == 2:
            return self.get(name, self.fidelity.n_tasks, n_species)[self.fidelity.number]
        return self.get(name, -1).expand(n_species)


def _fill(model: nequip.Model, weights: _Weights, rows: list[int]) -> list[float]:
    """Copy all weights into the model; returns the shift of every element, eV."""
    n_species = len(weights.config["_type_map"])
    scalars = o3.Irreps([(model.embedding.shape[1], "0e")])
    onehot = o3.Irreps([(n_species, "0e")])
    matrices, constants = weights.with_constants(
        "node_embedding", "onehot_to_feature_x.linear.weight", onehot, scalars
    )
    embedding = matrices[scalars[0].ir][0] / math.sqrt(n_species) + constants
    model.embedding.copy_(embedding[rows])
    if "edge_embedding.basis_function.coeffs" in weights.state:
        model.basis.roots.copy_(
            weights.get("edge_embedding.basis_function.coeffs", model.basis.roots.numel()) * model.cutoff
        )
    denominators = [float(weights.get(f"{t}_convolution.denominator", 1)) for t in range(model.n_layers)]
    mean = sum(denominators) / len(denominators)
    model.average_neighbors.fill_(mean**2)
    for t, layer in enumerate(_layers(model, weights.config)):
        interaction = _interactions(model)[t]
        _fill_linears(interaction, layer, weights, f"{t}_", rows)
        for weight in interaction.linear_down.weights:
            weight.mul_(mean / denominators[t])
        _fill_radial(interaction, layer, weights, f"{t}_convolution.")
        interaction.convolution.radial.weights[0].mul_(math.sqrt(2.0 / model.cutoff))
    scale, shift = (
        weights.of_elements(f"rescale_atomic_energy.{name}", n_species)[rows] for name in ("scale", "shift")
    )
    model.energy_scale.copy_(scale)
    return (shift + scale * _fill_readout(model, weights)).tolist()


def _fill_readout(model: nequip.Model, weights: _Weights) -> Tensor:
    """Two linear layers in one; returns the constant that the task adds to the energy of every atom."""
    scalars = o3.Irreps([(_interactions(model)[-1].irreps_out.dim, "0e")])
    n_hidden = weights.get("reduce_hidden_to_energy.linear.weight", -1, 1).shape[0]
    matrices, constants = weights.with_constants(
        "output_block", "reduce_input_to_hidden.linear.weight", scalars, o3.Irreps([(n_hidden, "0e")])
    )
    out = weights.get("reduce_hidden_to_energy.linear.weight", n_hidden, 1) / math.sqrt(n_hidden)
    model.readout.weights[0].copy_(matrices[scalars[0].ir][0] @ out)
    return constants @ out.squeeze(1)


def _interactions(model: nequip.Model) -> list[nequip.Interaction]:
    return cast("list[nequip.Interaction]", list(model.interactions))


def _layers(model: nequip.Model, config: dict[str, Any]) -> Iterator[LayerPaths]:
    """Irreps and paths of every layer."""
    manual = config["irreps_manual"]
    harmonics = o3.Irreps.spherical_harmonics(int(config["lmax"]), -1 if config["is_parity"] else 1)
    irreps_in = o3.Irreps([(model.embedding.shape[1], "0e")])
    for t, interaction in enumerate(_interactions(model)):
        if manual is False:
            irreps_out = interaction.irreps_out.sort().irreps
        else:
            irreps_out = o3.Irreps(manual[t + 1])
        if sorted(irreps_out) != sorted(interaction.irreps_out):
            raise BadInput(
                f"irreps {irreps_out} of layer {t} are not supported (expected {interaction.irreps_out})"
            )
        last = t == model.n_layers - 1
        reached = {ir for _, a in irreps_in for _, b in harmonics for ir in a * b}
        kept = {ir for ir in reached if ir.l <= irreps_out.lmax and (ir.p == 1 or not last)}
        yield LayerPaths(irreps_in, irreps_out, paths(irreps_in, harmonics, kept))
        irreps_in = irreps_out


def _fill_linears(
    interaction: nequip.Interaction, layer: LayerPaths, weights: _Weights, prefix: str, rows: list[int]
) -> None:
    merged = merged_gate_input(layer.irreps_out)
    by_output = sorted(layer.paths, key=lambda path: path.sort_key)
    middle = o3.Irreps([(path.channels, path.ir_out) for path in by_output]).simplify()
    shortcut = f"{prefix}self_connection_intro."
    if interaction.self_connection.per_species:
        n = len(weights.config["_type_map"])
        matrices = weights.matrices(shortcut + "fc_tensor_product.weight", layer.irreps_in, merged, n)
        matrices = {ir: matrix[rows] for ir, matrix in matrices.items()}
    else:
        matrices = weights.matrices(shortcut + "linear.weight", layer.irreps_in, merged)
    up, before = weights.with_constants(
        "self_inter_intro", f"{prefix}self_interaction_1.linear.weight", layer.irreps_in, layer.irreps_in
    )
    down, after = weights.with_constants(
        "self_inter_outro", f"{prefix}self_interaction_2.linear.weight", middle, merged
    )
    fill_linears(
        interaction,
        (layer.irreps_in, layer.irreps_out),
        by_output,
        {"linear_up": up, "linear_down": down, "self_connection": matrices},
    )
    if interaction.linear_up.bias is not None and interaction.self_connection.bias is not None:
        interaction.linear_up.bias.copy_(before)
        columns = gate_columns(interaction.gate, layer.irreps_out)
        index = torch.cat([index for ir, index in columns if ir == o3.Irrep("0e")])
        interaction.self_connection.bias.copy_(after[index])


def _fill_radial(interaction: nequip.Interaction, layer: LayerPaths, weights: _Weights, prefix: str) -> None:
    """The radial network; the sign of every path's Clebsch–Gordan coefficients goes into its last layer."""
    radial = interaction.convolution.radial.weights
    for k, weight in enumerate(radial[:-1]):
        weight.copy_(weights.get(f"{prefix}weight_nn.layer{k}.weight", *weight.shape))
    theirs = sorted(layer.paths, key=lambda path: path.sort_key) if weights.sorted_paths else layer.paths
    n_columns = sum(path.channels for path in theirs)
    columns = weights.get(f"{prefix}weight_nn.layer{len(radial) - 1}.weight", radial[-1].shape[0], n_columns)
    signs = [torch.full((path.channels,), weights.sign(prefix, path)) for path in theirs]
    ours = paths_of(interaction.convolution, interaction.irreps_in)
    radial[-1].copy_((columns * torch.cat(signs))[:, channel_order(theirs, ours)])
