"""NequIP 0.6 training folders (`best_model.pth` with `config.yaml` beside it) → the family `nequip`.

The weights are renamed and rescaled to those of nequip ≥ 0.7, from which `_nequip_weights` fills the model:

| nequip 0.6                              | nequip ≥ 0.7                            |
|-----------------------------------------|-----------------------------------------|
| one-hot elements → linear               | table of embeddings, 1/√elements inside |
| e3nn's FullyConnectedNet                | gain √2 after every silu                |
| two linear readout layers               | one                                     |
| roots of the Bessel functions           | the same over π                         |
| scale and shift of elements, and of all | of elements                             |

What `nequip-deploy` writes is a compiled program, whose weights have lost their names: it is refused, with
the remedy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from ase.data import chemical_symbols
from torch import Tensor

from mlplugins.checkpoints import _record, unpickle
from mlplugins.checkpoints._nequip_weights import GAIN, LayerIrreps, Weights, fill
from mlplugins.checkpoints.native import Checkpoint
from mlplugins.config import parse_yaml
from mlplugins.errors import BadInput
from mlplugins.models import nequip
from mlplugins.models._bounded import like_its_file
from mlplugins.nn.irreps import o3
from mlplugins.nn.radial import SILU_NORM

EMBEDDING = "chemical_embedding.linear.weight"
CONFIG, VERSION = "config.yaml", "extra/nequip_version"
BUILDERS = {
    "SimpleIrrepsConfig",
    "EnergyModel",
    "PerSpeciesRescale",
    "ForceOutput",
    "StressForceOutput",
    "RescaleEnergyEtc",
}
FIXED: dict[str, Any] = {
    "nonlinearity_type": "gate",
    "nonlinearity_scalars": {"e": "silu", "o": "tanh"},
    "nonlinearity_gates": {"e": "silu", "o": "tanh"},
    "resnet": False,
    "ConvNetLayer_resnet": False,
    "global_rescale_shift": None,
}
"""Options of which one value is supported, which is also nequip's default."""
RENAMED = (
    (r"^radial_basis\.basis\.bessel_weights$", "bessel_encode.bessel_weights"),
    (r"^(layer\d+_convnet\.conv\.)tp\.", r"\1tp_scatter.tp."),
    (r"^per_species_rescale\.", "per_type_energy_scale_shift."),
)


def recognises(path: Path | str) -> bool:
    """Whether the file holds weights named as nequip 0.6 names them, or is deployed by it."""
    if _deployed(Path(path)) is not None:
        return True
    try:
        strings = unpickle.names(path).strings
    except BadInput:
        return False
    return any(name.endswith(f"func.{EMBEDDING}") for name in strings)


def read(path: Path | str, elements: list[str] | None = None) -> Checkpoint:
    """Read the weights of a training folder; no code in the files is run, nequip is not needed.

    Args:
        path: `best_model.pth` or `last_model.pth`, with `config.yaml` beside it.
        elements: keep only these (symbols); default: all that the model knows.

    Returns:
        The model as family `nequip` in float64, with the shifts as composition energies.

    Raises:
        BadInput: a deployed model, no configuration, truncated, an unsupported option (named), an unknown
            element, or Clebsch–Gordan coefficients that are not ours up to a sign.
    """
    path = Path(path)
    version = _deployed(path)
    if version is not None:
        raise BadInput(
            f"{path}: a model deployed by nequip {version}, a program without named weights; convert "
            f"the best_model.pth of its training folder, which needs the {CONFIG} beside it"
        )
    config = _config(path.parent / CONFIG)
    state = unpickle.load(path, lambda name: False)
    with _record.intact(path, "model of nequip 0.6"):
        return _checkpoint(path, config, _state(state), elements)


class _Loader(yaml.SafeLoader):
    """Plain YAML; what asks for Python objects (indices of the training set, versions) is read as None."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)


def _deployed(path: Path) -> str | None:
    """Version of nequip that deployed the file, if it is such a file."""
    inside = {name.partition("/")[2] for name in unpickle.entries(path)}
    return unpickle.text(path, VERSION).decode(errors="replace") if VERSION in inside else None


def _config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BadInput(
            f"no '{path}': weights of nequip 0.6 need the {CONFIG} of their training folder beside them"
        )
    config = parse_yaml(path.read_bytes(), str(path), _Loader)
    version = str(config.get("nequip_version")) if isinstance(config, dict) else "?"
    if not version.startswith("0.6."):
        raise BadInput(f"{path}: written by nequip {version}; this format is read as of nequip 0.6")
    for option, value in FIXED.items():
        if config.get(option, value) != value:
            raise BadInput(
                f"{path}: the option '{option}: {config[option]}' is not supported (only {value!r}); "
                "supported are energy models with gates of silu and tanh, l_max ≤ 3, with or without parity"
            )
    unknown = [name for name in config["model_builders"] if name not in BUILDERS]
    if unknown:
        raise BadInput(
            f"{path}: the model builder '{unknown[0]}' is not supported; supported are "
            f"{', '.join(sorted(BUILDERS))}"
        )
    return dict(config)


def _state(full: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights as nequip ≥ 0.7 names and scales them; `scale` is the factor of all energies."""
    prefix = next(name for name in full if name.endswith(f"func.{EMBEDDING}")).removesuffix(EMBEDDING)
    own = {name.removeprefix(prefix): value for name, value in full.items() if name.startswith(prefix)}
    outside = {name: value for name, value in full.items() if not name.startswith(prefix)}
    factors = [value.double() for name, value in outside.items() if name.endswith("scale_by")]
    shifts = [value for name, value in outside.items() if name.endswith("shift_by") and value.numel()]
    known = ("scale_by", "shift_by", "_empty")
    rest = [name for name in outside if not name.endswith(known)]
    if rest or shifts:
        raise BadInput(f"entries without a place in this architecture: {', '.join(rest) or 'shift_by'}")
    scale = math.prod(float(factor) for factor in factors if factor.numel())
    hidden, out = (own.pop(f"{name}.linear.weight").double() for name in _READOUT)
    readout = hidden.reshape(-1, out.numel()) @ out.reshape(-1, 1) / math.sqrt(out.numel())
    found: dict[str, Tensor] = {"per_atom_energy_readout.mlp_module.mlp.0.weight": readout}
    for name, value in own.items():
        renamed = name
        for pattern, replacement in RENAMED:
            renamed = re.sub(pattern, replacement, renamed)
        layer = re.search(r"\.conv\.fc\.layer(\d+)\.weight$", name)
        if layer is not None:
            k = int(layer[1])
            renamed = name.replace(f"fc.layer{k}.", f"edge_mlp.mlp.{2 * k}.")
            value = value.double() * (SILU_NORM / GAIN if k else 1.0)
        elif name.startswith("per_species_rescale."):
            value = value.double() * scale
        elif name.endswith("bessel_weights"):
            value = value.double() / math.pi
        found[renamed] = value
    prefix = "per_type_energy_scale_shift."
    scales = found.get(f"{prefix}scales")
    if scales is None or not scales.numel():
        found[f"{prefix}scales"] = torch.tensor([scale], dtype=torch.float64)
    found.setdefault(f"{prefix}shifts", torch.zeros(0, dtype=torch.float64))
    return found


_READOUT = ("conv_to_output_hidden", "output_hidden_to_scalar")


def _checkpoint(
    path: Path, config: Mapping[str, Any], state: dict[str, Tensor], elements: list[str] | None
) -> Checkpoint:
    known = [str(config["type_to_chemical_symbol"][k]) for k in range(int(config["num_types"]))]
    foreign = [name for name in known if name not in chemical_symbols[1:]]
    if foreign:
        raise BadInput(f"the model's types {', '.join(foreign)} are not chemical symbols: not supported")
    symbols, rows = _record.kept(known, elements)
    embedding = state.pop(EMBEDDING).double().reshape(len(known), -1) / math.sqrt(len(known))
    state["type_embed.embed_module.weight"] = embedding
    parameters = _hyperparameters(config, state, embedding.shape[1])
    weights = Weights(state, rows, same_signs=False, layers=_layers(config), one_hot=True)
    with torch.random.fork_rng(devices=[]), like_its_file(path):
        model = nequip.Model(symbols, parameters)
    neighbors = config.get("avg_num_neighbors")
    if isinstance(neighbors, str):
        raise BadInput(f"the option 'avg_num_neighbors: {neighbors}' was not resolved; expected a number")
    with torch.no_grad():
        average = torch.tensor(1.0 if neighbors is None else float(neighbors), dtype=torch.float64)
        shift = fill(model, weights, average)
    return Checkpoint(
        potential=model.eval(),
        family="nequip",
        elements=symbols,
        baseline=shift,
        details=_record.details(
            model, parameters, source=_record.source("NequIP", path, str(config["nequip_version"]))
        ),
        references=list(nequip.REFERENCES),
    )


def _hyperparameters(
    config: Mapping[str, Any], state: Mapping[str, Tensor], n_embedding: int
) -> nequip.Hyperparameters:
    hidden, harmonics = o3.Irreps(config["feature_irreps_hidden"]), o3.Irreps(config["irreps_edge_sh"])
    l_max = _record.whole("l_max", harmonics.lmax, 3)
    parity: Any = None
    natural = harmonics == o3.Irreps.spherical_harmonics(l_max)
    features = [
        hidden.count(o3.Irrep(degree, 1 if not natural else (-1) ** degree)) for degree in range(l_max + 1)
    ]
    kinds = {
        "even": (not natural, [(n, (degree, 1)) for degree, n in enumerate(features)]),
        False: (natural, [(n, (degree, (-1) ** degree)) for degree, n in enumerate(features)]),
        True: (natural, [(n, (degree, p)) for degree, n in enumerate(features) for p in (1, -1)]),
    }
    for kind, (possible, irreps) in kinds.items():
        if possible and sorted(o3.Irreps(irreps)) == sorted(hidden):
            parity = kind
    if parity is None or o3.Irreps.spherical_harmonics(l_max, -1 if natural else 1) != harmonics:
        raise BadInput(
            f"'feature_irreps_hidden: {hidden}' with 'irreps_edge_sh: {harmonics}' is not supported; "
            "supported are all degrees up to l_max, of natural parity, of both, or all even"
        )
    radial = [name for name in state if name.startswith("layer0_convnet.conv.edge_mlp.mlp.")]
    return nequip.Hyperparameters(
        cutoff=float(config["r_max"]),
        num_layers=int(config.get("num_layers", 3)),
        l_max=l_max,
        num_features=features,
        parity=parity,
        num_basis=state["bessel_encode.bessel_weights"].numel(),
        envelope_power=_record.whole("PolynomialCutoff_p", config.get("PolynomialCutoff_p", 6)),
        radial_mlp=[int(state[name].shape[1]) for name in radial[:-1]],
        readout_mlp=[],
        num_embedding=n_embedding,
    )


def _layers(config: Mapping[str, Any]) -> list[LayerIrreps]:
    """Irreps of every layer, in nequip's order; the last one, too, gives more than scalars."""
    hidden, harmonics = o3.Irreps(config["feature_irreps_hidden"]), o3.Irreps(config["irreps_edge_sh"])
    irreps = o3.Irreps(config["chemical_embedding_irreps_out"])
    layers = []
    for _ in range(int(config.get("num_layers", 3))):
        reached = {ir for _, a in irreps for _, b in harmonics for ir in a * b}
        kept = [(mul, ir) for mul, ir in hidden if ir in reached]
        out = o3.Irreps([*(i for i in kept if i[1].l == 0), *(i for i in kept if i[1].l > 0)]).simplify()
        layers.append(LayerIrreps(irreps, out, harmonics))
        irreps = out
    return layers
