"""Weights of mace-torch models for the family `mace` (the files are read in `checkpoints.mace`).

What differs between the two, all absorbed here:

| | mace-torch | here |
|---|---|---|
| feature rows | mul_ir | ir_mul (weights are the same, only activations differ) |
| radial weights | paths sorted by output irrep | paths grouped by input irrep |
| element-dependent maps | 1/√(channels · elements) | 1/√channels |
| product basis | any spanning set of symmetric tensors, kept in the file | an orthonormal basis, recomputed |
| energy | scale · (Σ readouts + ZBL) + shift | scale · (Σ readouts + shift) + ZBL |
| heads | all | one, or all (`--head all`) |
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, cast

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from mlplugins.checkpoints import _record
from mlplugins.checkpoints._mace_blocks import (
    embedding_readout,
    fill_non_linear,
    fill_state,
    state_inputs,
)
from mlplugins.checkpoints._mace_state import Source, columns_of_paths, fill_element_map, fill_linear
from mlplugins.checkpoints.native import Checkpoint
from mlplugins.errors import BadInput
from mlplugins.models import mace
from mlplugins.nn.contraction import PathWeights, SymmetricContraction, monomial_basis
from mlplugins.nn.irreps import o3
from mlplugins.nn.linear import Linear
from mlplugins.nn.radial import BiasedMLP, RadialMLP
from mlplugins.nn.state import StateEmbedding
from mlplugins.nn.zbl import ROUNDED
from mlplugins.quantities import ENERGY

ALL = "all"
"""In place of the name of a head: all of them."""
COULOMB_EV_A = 14.3996
"""e²/(4πε₀) as mace-torch rounds it, eV Å: kept, for equal energies."""
SCREENING_A = 0.529
"""Bohr radius as mace-torch rounds it, Å."""
SPAN_TOLERANCE = 1e-5
"""Coefficients of order one: float32 files have rounded ones, another convention would be off by 0.1."""


@dataclass(frozen=True)
class HomeConfig:
    """Architecture of a mace-torch model, with the names of that package.

    Attributes:
        model_cls: class of the model.
        interaction_cls_first, interaction_cls: classes of the first and the later interaction blocks.
        hidden_irreps: such as "128x0e+128x1o".
        MLP_irreps: hidden irreps of the last readout, for one head.
        distance_transform: "None", "Agnesi" or "Soft".
        edge_irreps, edge_irreps_first: of the features that neighbours see, where they are not those of the
            nodes, in the later layers and the first.
        gate_norms: factors behind silu and sigmoid in the gates of non-linear blocks; default: ours.
    """

    r_max: float
    num_bessel: int
    num_polynomial_cutoff: int
    max_ell: int
    interaction_cls: str
    interaction_cls_first: str
    num_interactions: int
    hidden_irreps: str
    MLP_irreps: str
    atomic_numbers: Sequence[int]
    avg_num_neighbors: float
    correlation: int
    radial_MLP: Sequence[int] = (64, 64, 64)
    model_cls: str = "ScaleShiftMACE"
    radial_type: str = "bessel"
    distance_transform: str = "None"
    pair_repulsion: bool = False
    gate: str = "silu"
    radial_gate: str = "silu"
    heads: Sequence[str] = field(default_factory=lambda: ["Default"])
    readout_cls: str = "NonLinearReadoutBlock"
    apply_cutoff: bool = True
    edge_irreps: str | None = None
    edge_irreps_first: str | None = None
    gate_norms: Sequence[float] | None = None
    embedding_specs: Mapping[str, Any] | None = None
    use_embedding_readout: bool = False
    use_so3: bool = False
    use_agnostic_product: bool = False
    use_last_readout_only: bool = False
    keep_last_layer_irreps: bool = False


def hyperparameters(config: HomeConfig) -> mace.Hyperparameters:
    """Our hyper-parameters for a mace-torch architecture.

    Raises:
        BadInput: an option that this package does not have.
    """
    hidden = o3.Irreps(config.hidden_irreps)
    channels = hidden.count("0e")
    natural = o3.Irreps([(channels, (degree, (-1) ** degree)) for degree in range(hidden.lmax + 1)])
    mlp = o3.Irreps(config.MLP_irreps)
    _require("hidden_irreps", config.hidden_irreps, hidden == natural, "equal channels of 0e, 1o, 2e, …")
    _require("MLP_irreps", config.MLP_irreps, mlp.dim == mlp.count("0e") > 0, "scalars (0e) only")
    fixed: dict[str, tuple[object, ...]] = {
        "model_cls": ("ScaleShiftMACE", "MACE"),
        "radial_type": ("bessel",),
        "gate": ("silu",),
        "radial_gate": ("silu",),
        "readout_cls": ("NonLinearReadoutBlock", "NonLinearBiasReadoutBlock"),
        "use_so3": (False,),
        "keep_last_layer_irreps": (False,),
        "distance_transform": ("None", "Agnesi", "Soft"),
    }
    for name, valid in fixed.items():
        value = getattr(config, name)
        _require(name, value, value in valid, " or ".join(str(choice) for choice in valid))
    kinds = {f"{kind}InteractionBlock": kind for kind in mace.INTERACTIONS}
    for name in ("interaction_cls_first", "interaction_cls"):
        value = getattr(config, name)
        _require(name, value, value in kinds, " or ".join(kinds))
    return mace.Hyperparameters(
        cutoff=float(config.r_max),
        num_interactions=int(config.num_interactions),
        num_channels=int(channels),
        max_L=int(hidden.lmax),
        l_max=int(config.max_ell),
        correlation=int(config.correlation),
        num_basis=int(config.num_bessel),
        envelope_power=int(config.num_polynomial_cutoff),
        radial_mlp=[int(width) for width in config.radial_MLP],
        readout_mlp=int(mlp.dim),
        interaction_first=kinds[config.interaction_cls_first],
        interaction=kinds[config.interaction_cls],
        distance_transform=config.distance_transform.lower(),
        zbl=bool(config.pair_repulsion),
        sent_channels=_sent_channels("edge_irreps", config.edge_irreps),
        sent_channels_first=_sent_channels("edge_irreps_first", config.edge_irreps_first),
        envelope_on_weights=not config.apply_cutoff,
        biased_readout=config.readout_cls == "NonLinearBiasReadoutBlock",
    )


def _sent_channels(name: str, irreps: str | None) -> list[int] | None:
    """Channels by degree of irreps of natural parity."""
    if irreps is None:
        return None
    found = o3.Irreps(irreps)
    natural = [ir for _, ir in found] == [ir for _, ir in o3.Irreps.spherical_harmonics(len(found) - 1)]
    _require(name, irreps, natural, "irreps 0e + 1o + 2e + …")
    return [int(mul) for mul, _ in found]


def from_state(
    config: HomeConfig,
    state: Mapping[str, Tensor],
    head: str | None = None,
    elements: Sequence[str] | None = None,
    conditions: Mapping[str, float] = MappingProxyType({}),
) -> Checkpoint:
    """A potential with the weights of a mace-torch model.

    Args:
        config: its architecture.
        state: its `state_dict()`, every entry; the precision of the result is that of the weights.
        head: which head of several, by name; default: the only one, or the one called "Default". `all`: all
            of them, as several energies, of which that one, or else the first, is the default.
        elements: keep only these (symbols), in this order; default: all.
        conditions: `total_charge`, e, and `total_spin` (multiplicity) that the model is fixed to; others
            stay inputs of a model with embeddings of them.

    Raises:
        BadInput: an unknown option, a head that must be chosen or does not exist, an unknown element, entries
            that are missing, left over or of another shape, coupling coefficients of another convention.
    """
    inputs = state_inputs(config.embedding_specs or {}, conditions)
    parameters = hyperparameters(config)
    if inputs:
        parameters = replace(parameters, state=inputs, state_readout=bool(config.use_embedding_readout))
    symbols, rows = _record.kept([_symbol(int(number)) for number in config.atomic_numbers], elements)
    source = Source(state, rows, len(config.atomic_numbers))
    which = _head_index(config.heads, head)
    others = [name for name in config.heads if _keeps_all(config.heads, head) and name != config.heads[which]]
    if others:
        parameters = _with_energies(parameters, config.heads[which], others)
    with torch.random.fork_rng(devices=[]):
        model = mace.Model(symbols, parameters)
    with torch.no_grad():
        _fill_elements(model, source, config.embedding_specs or {}, conditions)
        _fill_layers(model, config, source, which)
        _radial_basis(model, source)
        baseline = _energies(model, config, source, which)
        if config.use_embedding_readout:
            baseline = _with_readout(baseline, model, config, source, which)
        baselines = {name: _energy(model, config, source, name) for name in others}
    source.finish()
    return Checkpoint(
        potential=model.to(source.dtype).eval(),
        family="mace",
        elements=symbols,
        baseline=baseline,
        details=_record.details(
            model,
            parameters,
            home={**asdict(config), "head": ALL if others else config.heads[which], **conditions},
        ),
        references=list(mace.REFERENCES),
        baselines=baselines,
    )


def _keeps_all(heads: Sequence[str], head: str | None) -> bool:
    return head == ALL and ALL not in heads


def _with_energies(
    parameters: mace.Hyperparameters, first: str, others: Sequence[str]
) -> mace.Hyperparameters:
    """Hyper-parameters of a model with all heads."""
    odd = [name for name in (first, *others) if not re.fullmatch(r"[A-Za-z0-9_+-]+", name)]
    _require("heads", ", ".join(odd), not odd, "heads called by letters, digits, _, + and - (--head NAME)")
    _require("use_embedding_readout", True, not parameters.state_readout, "one head (--head NAME)")
    width = parameters.readout_mlp if parameters.num_interactions > 1 else 0
    readout = {"width": width, "biased": parameters.biased_readout and width > 0}
    heads = {ENERGY + name: dict(readout) for name in others}
    return replace(parameters, heads=heads, energy_name=first)


def _energy(model: mace.Model, config: HomeConfig, source: Source, name: str) -> list[float]:
    """Fill in one more energy; returns its atomic energies."""
    own, place = cast(Any, model.heads[ENERGY + name]), list(config.heads).index(name)
    for readout, prefix in zip(own.readouts, _readout_names(config)):
        _readout(readout, source, prefix, len(config.heads), place)
    scale, shift, energies = _scale_shift(config, source, place)
    own.common_scale.fill_(scale / float(model.energy_scale))
    own.energy_scale.fill_(scale)
    own.shift.fill_(shift / scale)
    return energies


def _fill_elements(
    model: mace.Model, source: Source, specs: Mapping[str, Any], fixed: Mapping[str, float]
) -> None:
    """What atoms know before the first layer: their element, and the charge and spin of their structure."""
    n, channels = source.n_elements, model.embedding.shape[1]
    weight = source.take("node_embedding.linear.weight", n * channels).view(n, channels)
    model.embedding.copy_(weight[source.rows] / math.sqrt(n))
    if not specs:
        return
    inputs = isinstance(model.state, StateEmbedding)
    state = cast(StateEmbedding, model.state) if inputs else StateEmbedding({}, channels, False)
    fill_state(state, specs, source, fixed)
    if not inputs:  # all are fixed: a part of the elements' own vectors
        model.embedding.add_(torch.nn.functional.silu(state.constant))


def _with_readout(
    baseline: Sequence[float], model: mace.Model, config: HomeConfig, source: Source, head: int
) -> list[float]:
    """The composition energies, and the energies that are read out of the elements' vectors."""
    several = len(config.heads) > 1 and config.model_cls == "MACE"
    _require("use_embedding_readout", True, not several, "one head, or ScaleShiftMACE")
    weight = embedding_readout(source, model.embedding.shape[1], len(config.heads), head)
    if isinstance(model.state, StateEmbedding) and model.state.readout is not None:
        model.state.readout.copy_(weight)
    return [energy + more for energy, more in zip(baseline, (model.embedding @ weight).tolist())]


def _fill_layers(model: mace.Model, config: HomeConfig, source: Source, head: int) -> None:
    readouts = _readout_names(config)
    for index, (linear_up, layer) in enumerate(_layers(model)):
        prefix = f"interactions.{index}"
        fill_linear(linear_up, source, f"{prefix}.linear_up.weight")
        if isinstance(layer.interaction, mace.NonLinearInteraction):
            fill_non_linear(layer, source, prefix, config.gate_norms)
        else:
            interaction = cast(mace.Interaction, layer.interaction)
            _interaction(interaction, source, prefix)
            interaction.average_neighbors.fill_(float(config.avg_num_neighbors))
            if layer.residual is not None:
                fill_element_map(layer.residual, source, f"{prefix}.skip_tp.weight")
        _contraction(layer.contraction, source, f"products.{index}.symmetric_contractions")
        fill_linear(layer.linear, source, f"products.{index}.linear.weight")
        _readout(layer.readout, source, readouts[index], len(config.heads), head)


def _require(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise BadInput(f"MACE: '{name}' is {value}; this package reads models with {expected}")


def _symbol(number: int) -> str:
    if not 0 < number < len(chemical_symbols):
        raise BadInput(f"MACE: {number} is not an atomic number")
    return str(chemical_symbols[number])


def _head_index(heads: Sequence[str], head: str | None) -> int:
    if _keeps_all(heads, head):
        return list(heads).index("Default") if "Default" in heads else 0
    if head is None:
        if len(heads) != 1 and "Default" not in heads:
            raise BadInput(
                f"MACE: the model has the heads {', '.join(heads)}; choose one (`mlplugins convert --head`, "
                "`base.head` in `finetune`), or `all`"
            )
        return list(heads).index("Default") if "Default" in heads else 0
    if head not in heads:
        raise BadInput(f"MACE: no head '{head}'; the model has {', '.join(heads)}")
    return list(heads).index(head)


def _layers(model: mace.Model) -> list[tuple[Linear, mace.Layer]]:
    return [(cast(Linear, up), cast(mace.Layer, layer)) for up, layer in zip(model.linear_up, model.layers)]


def _copy(module: nn.Module, name: str, value: Tensor) -> None:
    getattr(module, name).copy_(value)


def _interaction(interaction: mace.Interaction, source: Source, prefix: str) -> None:
    network = interaction.convolution.radial if interaction.radial is None else interaction.radial
    _radial_network(network, source, f"{prefix}.conv_tp_weights")
    network.weights[-1].copy_(columns_of_paths(network.weights[-1], interaction.convolution))
    fill_linear(interaction.linear, source, f"{prefix}.linear.weight")
    if interaction.density is not None:
        _radial_network(interaction.density, source, f"{prefix}.density_fn")
    if interaction.element_mix is not None:
        fill_element_map(interaction.element_mix, source, f"{prefix}.skip_tp.weight")


def _radial_network(network: RadialMLP, source: Source, prefix: str) -> None:
    for index, weight in enumerate(network.weights):
        weight.copy_(source.take(f"{prefix}.layer{index}.weight", weight.numel()).view(weight.shape))


def _contraction(contraction: SymmetricContraction, source: Source, prefix: str) -> None:
    """Weights of our basis that give the polynomials of mace-torch's basis, by least squares (exact)."""
    paths = [cast(PathWeights, path) for path in contraction.paths]
    offset = 0
    for k, (_, ir) in enumerate(contraction.irreps_out):
        components = range(offset, offset + ir.dim)
        own = [path for path in paths if int(path.monomials[0, 0]) in components]
        weights = _home_weights(source, f"{prefix}.contractions.{k}")
        for order, weight in weights.items():
            name = f"{prefix}.contractions.{k}.U_matrix_{order}"
            matching = [path for path in own if int((path.monomials[0, 1:] >= 0).sum()) == order]
            _product_weights(matching, source, name, weight, offset)
        offset += ir.dim


def _home_weights(source: Source, name: str) -> dict[int, Tensor]:
    """Order → weights (species, η, channels): the highest order stands apart, the others descend."""
    lower: list[Tensor] = []
    while f"{name}.weights.{len(lower)}" in source.state:
        lower.append(source.take(f"{name}.weights.{len(lower)}"))
    highest = source.take(f"{name}.weights_max")
    return {len(lower) + 1 - index: weight for index, weight in enumerate([highest, *lower])}


def _product_weights(
    paths: list[PathWeights], source: Source, name: str, weight: Tensor, offset: int
) -> None:
    """Least squares for one output irrep and order; `offset`: its first component in the result."""
    u = source.take(name)
    if u.dim() == int(name[-1]) + 1:  # scalars have no component axis
        u = u.unsqueeze(0)
    if not bool(u.any()):  # an order that cannot reach this irrep
        return
    monomials, basis = monomial_basis(u)
    if len(paths) != 1:
        raise BadInput(f"MACE state: '{name}' reaches an irrep that the product basis here does not")
    target = paths[0].weight
    shape = (source.n_elements, basis.shape[0], target.shape[2])
    if tuple(weight.shape) not in (shape, (1, *shape[1:])):  # 1: the same for all elements
        raise BadInput(f"MACE state: weights of '{name}' are {tuple(weight.shape)}, expected {shape}")
    if weight.shape[0] == source.n_elements:
        weight = weight[source.rows]
    rows = {tuple(row): i for i, row in enumerate(paths[0].monomials.tolist())}
    home = [rows.setdefault((row[0] + offset, *row[1:]), len(rows)) for row in monomials.tolist()]
    wanted = torch.zeros(len(rows), basis.shape[0], dtype=torch.float64)
    wanted[home] = basis.T
    available = torch.zeros(len(rows), target.shape[1], dtype=torch.float64)
    available[: paths[0].basis.shape[1]] = paths[0].basis.T
    solution = torch.linalg.lstsq(available, wanted).solution  # (η, η_home)
    error = float((available @ solution - wanted).abs().max())
    if error > SPAN_TOLERANCE:
        raise BadInput(f"MACE state: '{name}' is not spanned by the product basis here ({error:.1e})")
    target.copy_(torch.einsum("eh,shc->sec", solution, weight))


def _readout_names(config: HomeConfig) -> list[str | None]:
    """For every layer the name of its readout in mace-torch."""
    n = config.num_interactions
    if config.use_last_readout_only:
        return [*[None] * (n - 1), "readouts.0"]
    return [f"readouts.{index}" for index in range(n)]


def _readout(readout: RadialMLP, source: Source, prefix: str | None, n_heads: int, head: int) -> None:
    if prefix is None:
        for weight in readout.weights:
            weight.zero_()
        return
    if len(readout.weights) == 1:
        weight = readout.weights[0]
        home = source.take(f"{prefix}.linear.weight", weight.numel() * n_heads)
        weight.copy_(home.view(-1, n_heads)[:, head : head + 1])
        return
    first, last = readout.weights[0], readout.weights[-1]
    width = last.shape[0]
    own = slice(head * width, (head + 1) * width)
    home = source.take(f"{prefix}.linear_1.weight", first.numel() * n_heads)
    first.copy_(home.view(first.shape[0], -1)[:, own])
    home = source.take(f"{prefix}.linear_2.weight", width * n_heads**2)
    last.copy_(home.view(-1, n_heads)[own, head : head + 1] / math.sqrt(n_heads))
    if isinstance(readout, BiasedMLP):
        home = source.take(f"{prefix}.linear_mid.weight", (width * n_heads) ** 2)
        middle = home.view(width * n_heads, -1)[own, own]
        readout.weights[1].copy_(middle / math.sqrt(n_heads))
        readout.biases[0].copy_(source.take(f"{prefix}.linear_mid.bias", width * n_heads)[own])
        readout.biases[1].copy_(source.take(f"{prefix}.linear_2.bias", n_heads)[head : head + 1])


def _radial_basis(model: mace.Model, source: Source) -> None:
    basis = model.basis
    roots = source.take("radial_embedding.bessel_fn.bessel_weights", basis.roots.numel())
    basis.roots.copy_(roots.view(-1) * model.cutoff)
    prefix = "radial_embedding.distance_transform"
    if model.transform is not None:
        names = [name for name in ("a", "q", "p", "alpha") if name in dict(model.transform.named_buffers())]
        for name in names:
            _copy(model.transform, name, source.take(f"{prefix}.{name}", 1).view(()))
        radius = _per_element(model, source, f"{prefix}.covalent_radii")
        factor = 0.5 if "a" in names else 1.0
        _copy(model.transform, "range", factor * (radius[:, None] + radius[None, :]))


def _energies(model: mace.Model, config: HomeConfig, source: Source, head: int) -> list[float]:
    """Scale, shift and repulsion; returns the atomic energies."""
    scale, shift, energies = _scale_shift(config, source, head)
    model.energy_scale.fill_(scale)
    model.shift.fill_(shift / scale)
    if model.repulsion is not None:
        _repulsion(model, model.repulsion, source, scale)
    return energies


def _scale_shift(config: HomeConfig, source: Source, head: int) -> tuple[float, float, list[float]]:
    """Scale, shift and atomic energies of one head."""
    scale, shift = 1.0, 0.0
    if config.model_cls == "ScaleShiftMACE":
        scale = float(source.take("scale_shift.scale").view(-1).expand(len(config.heads))[head])
        shift = float(source.take("scale_shift.shift").view(-1).expand(len(config.heads))[head])
    n_heads, n_elements = len(config.heads), len(config.atomic_numbers)
    energies = source.take("atomic_energies_fn.atomic_energies", n_heads * n_elements)
    rows = energies.view(n_heads, n_elements)[head, source.rows]
    return scale, shift, [float(value) for value in rows]


def _repulsion(model: mace.Model, repulsion: nn.Module, source: Source, scale: float) -> None:
    prefix = "pair_repulsion_fn"
    terms = torch.tensor([coefficient for coefficient, _ in ROUNDED], dtype=torch.float64)
    if not torch.allclose(source.take(f"{prefix}.c", len(ROUNDED)), terms, rtol=0, atol=1e-6):
        raise BadInput(f"MACE state: '{prefix}.c' are not the screening constants {terms.tolist()}")
    if int(source.take(f"{prefix}.p", 1)) != model.envelope_power:
        raise BadInput(f"MACE state: '{prefix}.p' differs from the envelope's power {model.envelope_power}")
    z = source.state["atomic_numbers"][source.rows].to(torch.float64)
    z_power = z ** source.take(f"{prefix}.a_exp", 1).view(())
    length = source.take(f"{prefix}.a_prefactor", 1).view(()) * SCREENING_A
    radius = _per_element(model, source, f"{prefix}.covalent_radii")
    _copy(repulsion, "charge_product", scale * COULOMB_EV_A * z[:, None] * z[None, :])
    _copy(repulsion, "screening_length", length / (z_power[:, None] + z_power[None, :]))
    _copy(repulsion, "range", radius[:, None] + radius[None, :])


def _per_element(model: mace.Model, source: Source, name: str) -> Tensor:
    """Rows of a table over the periodic system."""
    return source.take(name)[source.state["atomic_numbers"][source.rows].long()]
