"""NequIP checkpoints (`.ckpt`) and packages (`.nequip.zip`) of nequip ≥ 0.7 → the family `nequip`.

A `.ckpt` is a dictionary of Lightning: configuration and weights, without code. A package holds the pickled
network with nequip's own code, which is left alone, and the configuration as YAML.

Paper: Batzner et al., Nat. Commun. 13, 2453 (2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor

from mlplugins.checkpoints import _record, unpickle
from mlplugins.checkpoints._e3nn import unread
from mlplugins.checkpoints._modules import tensors
from mlplugins.checkpoints._nequip_weights import CONSTANTS, Weights, fill
from mlplugins.checkpoints.native import Checkpoint
from mlplugins.config import parse_yaml
from mlplugins.errors import BadInput
from mlplugins.models import nequip
from mlplugins.models._bounded import like_its_file

EMBEDDING = "type_embed.embed_module.weight"
MODELS = ("nequip.model.NequIPGNNModel", "nequip.model.PresetNequIPGNNModel")
PRESETS: dict[str, dict[str, Any]] = {
    "S": {"num_layers": 2, "l_max": 1, "num_features": [128, 64]},
    "M": {"num_layers": 4, "l_max": 2, "num_features": [128, 64, 32]},
    "L": {"num_layers": 6, "l_max": 3, "num_features": [128, 64, 32, 32]},
    "XL": {"num_layers": 6, "l_max": 4, "num_features": [320, 96, 64, 32, 32]},
}
"""What `preset` of PresetNequIPGNNModel stands for, always without `parity`."""
FIXED: dict[str, Any] = {
    "categorical_graph_field_embed": None,
    "convnet_sc": True,
    "convnet_resnet": False,
    "convnet_nonlinearity_type": "gate",
    "convnet_nonlinearity_scalars": {"e": "silu", "o": "tanh"},
    "convnet_nonlinearity_gates": {"e": "silu", "o": "tanh"},
    "learnable_shift": False,
    "readout_mlp_nonlinearity": "silu",
}
"""Options of which one value is supported, which is also nequip's default."""
READ = (
    ["_target_", "preset", "seed", "model_dtype", "type_names", "r_max", "num_layers", "l_max", "parity"]
    + ["num_features", "type_embed_num_features", "radial_mlp_depth", "radial_mlp_width", "num_bessels"]
    + ["readout_mlp_hidden_layers_depth", "readout_mlp_hidden_layers_width", "bessel_trainable"]
    + ["polynomial_cutoff_p", "avg_num_neighbors", "per_edge_type_cutoff", "pair_potential"]
    + ["per_type_energy_scales", "per_type_energy_shifts", "per_type_energy_scales_trainable"]
    + ["per_type_energy_shifts_trainable", "do_derivatives", "compile_mode"]
)
"""Options that are read, here or from the weights; others could change the energy unnoticed."""
REPULSIONS = ("nequip.nn.pair_potential.ZBL", "nequip.nn.ZBL")
TRAINABLE = {
    "bessel_encode.bessel_weights": "bessel_trainable",
    "per_type_energy_scale_shift.scales": "per_type_energy_scales_trainable",
    "per_type_energy_scale_shift.shifts": "per_type_energy_shifts_trainable",
}
"""Entries that are weights only if the option says so, and have an average only then."""
PROGRAM, CONFIG, METADATA = "model/eager_model.pkl", "model/config.yaml", "model/package_metadata.txt"
"""Files of a package."""
StoredModel = tuple[Mapping[str, Any], Mapping[str, str], Mapping[str, Any]]
"""Configuration of the model, versions, weights under their full names."""
NEWEST = (0, 19)
"""Newest known version of nequip: another order of weights would give other energies unnoticed."""


def recognises(path: Path | str) -> bool:
    """Whether the file is a checkpoint of nequip's training module, or a package."""
    if _is_package(path):
        return True
    try:
        strings = unpickle.names(path).strings
    except BadInput:
        return False
    return "hyper_parameters" in strings and any(name.endswith(EMBEDDING) for name in strings)


def read(path: Path | str, elements: list[str] | None = None) -> Checkpoint:
    """Read a checkpoint; no code in the file is run, nequip is not needed.

    Args:
        path: the file; averaged (EMA) weights are taken where it has them.
        elements: keep only these (symbols); default: all that the model knows.

    Returns:
        The model as family `nequip` in float64, with the shifts as composition energies.

    Raises:
        BadInput: not such a file, truncated, an unsupported option (named), an unknown element, or
            Clebsch–Gordan coefficients that are not ours up to a sign.
    """
    path = Path(path)
    with _record.intact(path, "checkpoint of nequip ≥ 0.7"):
        model, versions, full = _package(path) if _is_package(path) else _training(path)
        config = _config(model)
        return _checkpoint(path, config, versions, _state(full, config), elements)


def _training(path: Path) -> StoredModel:
    """Of a `.ckpt`."""
    allowed = ("omegaconf.", "numpy.", "torch.optim.", "lightning.", "pytorch_lightning.")
    content = unpickle.load(path, lambda name: name.startswith(allowed))
    optimizer = content.get("schedulefree_optimizer_state_dict", {"param_groups": []})
    if any(group["train_mode"] for group in optimizer["param_groups"]):
        raise BadInput(
            "a checkpoint of a schedule-free optimizer, saved between validations: it holds the weights of "
            "the next step, not those of the model; convert what `nequip-package build` makes of it"
        )
    hyperparameters = content["hyper_parameters"]
    return hyperparameters["model"], hyperparameters["info_dict"]["versions"], content["state_dict"]


def _is_package(path: Path | str) -> bool:
    inside = {name.partition("/")[2] for name in unpickle.entries(path)}
    return {PROGRAM, METADATA, CONFIG} <= inside


def _package(path: Path) -> StoredModel:
    """Of a `.nequip.zip`."""
    allowed = ("nequip.", "e3nn.", "torch.nn.", "torch.fx.", "numpy.")
    root = unpickle.load(path, lambda name: name.startswith(allowed), PROGRAM, ".data/{}.storage")
    config, metadata = (
        parse_yaml(unpickle.text(path, name), f"{path}: {name}") for name in (CONFIG, METADATA)
    )
    return config["training_module"]["model"], metadata["versions"], dict(tensors(root, constants=True))


def _checkpoint(
    path: Path,
    config: dict[str, Any],
    versions: Mapping[str, str],
    state: dict[str, Tensor],
    elements: list[str] | None,
) -> Checkpoint:
    version = str(versions["nequip"])
    if _numbers(version) > NEWEST:
        raise BadInput(
            f"written by nequip {version}; this mlplugins knows nequip up to "
            f"{'.'.join(map(str, NEWEST))}: upgrade mlplugins"
        )
    symbols, rows = _elements(config, elements)
    hyperparameters = _hyperparameters(config, state, symbols, rows)
    weights = Weights(state, rows, same_signs=_numbers(str(versions["e3nn"])) >= (0, 6))
    with torch.random.fork_rng(devices=[]), like_its_file(path):
        model = nequip.Model(symbols, hyperparameters)
    with torch.no_grad():
        shift = fill(model, weights, _average_neighbors(config, symbols))
    return Checkpoint(
        potential=model.eval(),
        family="nequip",
        elements=symbols,
        baseline=shift,
        details=_record.details(model, hyperparameters, source=_record.source("NequIP", path, version)),
        references=list(nequip.REFERENCES),
    )


def _state(full: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights of the one model, averaged ones where there are, without their common prefix."""
    found = [name for name in full if name.endswith(EMBEDDING)]
    if len(found) != 1:
        raise BadInput(f"expected one model with an embedding of the elements, found {len(found)}")
    prefix = found[0].removesuffix(EMBEDDING)
    own = {name.removeprefix(prefix): value for name, value in full.items() if name.startswith(prefix)}
    averages = [name for name in full if name.startswith("ema.ema_weight_")]
    if not averages:
        return own
    if not full["ema._extra_state"]["is_holding_ema_weights"]:
        return own  # saved during validation: the model itself holds the averages
    ordered = [full[f"ema.ema_weight_{k}"] for k in range(len(averages))]
    constant = {name for name, option in TRAINABLE.items() if not config.get(option, False)}
    constant |= {"pair_potential.atomic_numbers", "pair_potential._qqr2exesquare"}
    names = [name for name in unread(own, CONSTANTS) if name not in constant]
    if [own[name].shape for name in names] != [weight.shape for weight in ordered]:
        raise BadInput("the averaged (EMA) weights do not fit the model's")
    return {**own, **dict(zip(names, ordered))}


def _config(model: Mapping[str, Any]) -> dict[str, Any]:
    """The model's options, presets resolved; unsupported ones are refused."""
    config = {"parity": True, "l_max": 1, "num_features": 32, **model}
    if config["_target_"] not in MODELS:
        raise BadInput(
            f"a model of '{config['_target_']}'; supported are {' and '.join(MODELS)} (of a model that was "
            "fine-tuned from a package, convert a checkpoint of the original kind)"
        )
    if "preset" in config:
        preset = PRESETS.get(str(config["preset"]).upper())
        if preset is None:
            raise BadInput(f"the preset '{config['preset']}' is unknown; known are {', '.join(PRESETS)}")
        config = {**config, "parity": False, **preset, **model}
    for option, value in FIXED.items():
        _require(config, option, config.get(option, value) == value, f"only {value!r}")
    for option in config.keys() - set(READ) - set(FIXED):
        _require(config, option, False, "unknown to this mlplugins; upgrade it")
    pair = config.get("pair_potential")
    if pair is not None:
        zbl = isinstance(pair, Mapping) and pair.get("_target_") in REPULSIONS
        only = "only ZBL: nequip 0.19.1 itself can neither build nor rightly evaluate models with another one"
        _require(config, "pair_potential", zbl, only)
        _require(pair, "units", pair["units"] == "metal", "only 'metal': energies in eV, lengths in Å")
    return config


def _require(config: Mapping[str, Any], option: str, holds: bool, expected: str) -> None:
    if not holds:
        raise BadInput(
            f"the option '{option}: {config[option]}' is not supported ({expected}); supported are models "
            "with gates of silu and tanh, l_max ≤ 4, with or without parity, ZBL as pair potential"
        )


def _elements(config: Mapping[str, Any], wanted: list[str] | None) -> tuple[list[str], list[int]]:
    known = [str(name) for name in config["type_names"]]
    foreign = [name for name in known if name not in chemical_symbols[1:]]
    if foreign:
        raise BadInput(f"the model's types {', '.join(foreign)} are not chemical symbols: not supported")
    return _record.kept(known, wanted)


def _hyperparameters(
    config: Mapping[str, Any], state: Mapping[str, Tensor], symbols: list[str], rows: list[int]
) -> nequip.Hyperparameters:
    """Sizes from the weights, the rest from the configuration."""
    pair = config.get("pair_potential")
    n = config["num_features"]
    readout = _widths(state, "per_atom_energy_readout.mlp_module.mlp.")
    radial = _widths(state, "layer0_convnet.conv.edge_mlp.mlp.")
    return nequip.Hyperparameters(
        cutoff=float(config["r_max"]),
        num_layers=sum(name.endswith("_convnet.conv.linear_1.weight") for name in state),
        l_max=int(config["l_max"]),
        num_features=int(n) if isinstance(n, int) else [int(k) for k in n],
        parity=bool(config["parity"]),
        num_basis=state["bessel_encode.bessel_weights"].numel(),
        envelope_power=_record.whole("polynomial_cutoff_p", config.get("polynomial_cutoff_p", 6)),
        radial_mlp=radial,
        readout_mlp=readout,
        num_embedding=int(state[EMBEDDING].shape[1]),
        zbl=pair is not None,
        zbl_power=_record.whole("polynomial_cutoff_p", (pair or {}).get("polynomial_cutoff_p", 6)),
        pair_cutoffs=_pair_cutoffs(config, state, symbols, rows),
        neighbors_by_element=isinstance(config["avg_num_neighbors"], Mapping),
    )


def _pair_cutoffs(
    config: Mapping[str, Any], state: Mapping[str, Tensor], symbols: list[str], rows: list[int]
) -> dict[str, dict[str, float]] | None:
    """Cutoff of every centre and neighbour, Å, where they differ."""
    if config.get("per_edge_type_cutoff") is None:
        return None
    n = len(config["type_names"])
    cutoffs = state["edge_norm._rmax_recip"].to(torch.float64).reciprocal().reshape(n, n)
    kept = cutoffs[rows][:, rows].clamp(max=float(config["r_max"])).tolist()
    return {center: dict(zip(symbols, row)) for center, row in zip(symbols, kept)}


def _widths(state: Mapping[str, Tensor], prefix: str) -> list[int]:
    """Hidden widths of a perceptron."""
    shapes = [state[name].shape for name in state if name.startswith(prefix) and name.endswith(".weight")]
    return [int(shape[1]) for shape in shapes[:-1]]


def _average_neighbors(config: Mapping[str, Any], symbols: list[str]) -> Tensor:
    """Average number of neighbours: one, or one of each element."""
    value = config["avg_num_neighbors"]
    numbers = [value[symbol] for symbol in symbols] if isinstance(value, Mapping) else value
    return torch.tensor(numbers, dtype=torch.float64)


def _numbers(version: str) -> tuple[int, int]:
    """Major and minor version, e.g. (0, 19)."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
