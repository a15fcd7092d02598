"""MACE models (`.model` of the package mace-torch) → the family `mace`.

The file is a pickle of the whole network. Its modules come out of the restricted unpickler as records of what
they held; the code inside (TorchScript programs of e3nn, graphs of torch.fx) is left alone. From the records
follow the architecture, also where old files do not state it, and the weights, which `_mace_weights` maps.

Paper: Batatia et al., NeurIPS 2022, arXiv 2206.07697.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlplugins.checkpoints import _record, unpickle
from mlplugins.checkpoints._mace_weights import HomeConfig, from_state
from mlplugins.checkpoints._modules import child, children, fields, modules, tensors
from mlplugins.checkpoints.native import Checkpoint
from mlplugins.checkpoints.unpickle import Stub
from mlplugins.errors import BadInput
from mlplugins.models._bounded import like_its_file
from mlplugins.nn.irreps import o3

__all__ = ["HomeConfig", "from_state", "read", "recognises"]

RECORDS = ("mace.modules.", "mace.tools.", "e3nn.", "torch.nn.", "torch.fx.", "numpy.")
"""Modules of the classes that may appear, as records."""
ACCELERATORS = ("cuequivariance", "openequivariance")
RADIAL = {"BesselBasis": "bessel", "GaussianBasis": "gaussian", "ChebychevBasis": "chebyshev"}
TRANSFORM = {"AgnesiTransform": "Agnesi", "SoftTransform": "Soft"}


def recognises(path: Path | str) -> bool:
    """Whether the file holds objects of mace-torch, or weights named as its weights are."""
    try:
        names = unpickle.names(path)
    except BadInput:
        return False
    return any(name.startswith("mace.") for name in names.imports) or any(
        name.endswith("interactions.0.linear_up.weight") for name in names.strings
    )


def read(
    path: Path | str,
    elements: list[str] | None = None,
    head: str | None = None,
    conditions: Mapping[str, float] = MappingProxyType({}),
) -> Checkpoint:
    """Read a model; no code in the file is run, mace-torch is not needed.

    Args:
        path: the `.model` file.
        elements: keep only these (symbols); default: all that the model knows.
        head: which head of several; default: the only one, or the one called "Default"; `all`.
        conditions: `total_charge`, e, and `total_spin` (multiplicity) that a model with embeddings of them
            is fixed to; others stay inputs.

    Returns:
        The model as family `mace` in the precision of its weights, with the energies of the isolated atoms
        as composition energies.

    Raises:
        BadInput: not such a file, truncated, weights alone, an unsupported option (named), an unknown element
            or head, or a head that must be chosen.
    """
    path = Path(path)
    contents = unpickle.names(path)
    accelerators = [name for name in contents.imports if name.startswith(ACCELERATORS)]
    if accelerators:
        raise BadInput(
            f"{path}: saved for an accelerator ('{sorted(accelerators)[0]}'); convert it first with "
            "`mace_cueq_to_e3nn` or `mace_oeq_to_e3nn` of mace-torch"
        )
    if any(name.endswith("builtin__.getattr") or name == "builtins.getattr" for name in contents.imports):
        raise BadInput(
            f"{path}: an activation function of torch itself (`--gate tanh` or `abs` of mace_run_train); "
            "this package reads models with silu"
        )
    content = unpickle.load(path, lambda name: name.startswith(RECORDS))
    if not isinstance(content, Stub):
        raise BadInput(
            f"{path}: weights of MACE without the architecture (a state_dict, or a checkpoint of "
            "mace_run_train); convert the `.model` file that mace_run_train writes"
        )
    with _record.intact(path, "model of MACE"):
        state = dict(tensors(content))
        config = _config(content, state)
        with like_its_file(path):
            checkpoint = from_state(config, state, head, elements, conditions)
    several = len(config.heads) > 1
    home = checkpoint.details["home"]
    used = {name: home[name] for name in conditions}
    head = home["head"] if several else None
    # the files do not say which version
    source = _record.source("MACE", path, version=None, head=head, **used)
    return replace(checkpoint, details={**checkpoint.details, "source": source})


def _config(model: Stub, state: Mapping[str, Tensor]) -> HomeConfig:
    """The architecture, from classes, attributes and shapes."""
    top, radial = fields(model), child(model, "radial_embedding")
    interactions, products, readouts = (
        children(child(model, name)) for name in ("interactions", "products", "readouts")
    )
    heads = [str(name) for name in top.get("heads", ["Default"])]
    hidden = [_irreps(fields(child(product, "linear"))["irreps_out"]) for product in products]
    agnostic = {bool(fields(product).get("use_agnostic_product", False)) for product in products}
    return HomeConfig(
        model_cls=_class(model),
        r_max=float(state["r_max"]),
        num_bessel=state.get("radial_embedding.bessel_fn.bessel_weights", torch.ones(1)).numel(),
        num_polynomial_cutoff=int(state["radial_embedding.cutoff_fn.p"]),
        max_ell=int(fields(child(model, "spherical_harmonics"))["_lmax"]),
        interaction_cls_first=_class(interactions[0]),
        interaction_cls=_one(
            "interaction_cls", [_class(block) for block in interactions[1:] or interactions]
        ),
        num_interactions=len(interactions),
        hidden_irreps=str(hidden[0]),
        keep_last_layer_irreps=len(hidden) > 1 and hidden[-1].lmax > 0,
        MLP_irreps=_readout_irreps(readouts[-1], len(heads)),
        readout_cls=_class(readouts[-1]) if len(interactions) > 1 else "NonLinearReadoutBlock",
        use_last_readout_only=len(interactions) > 1 and len(readouts) == 1,
        atomic_numbers=[int(number) for number in state["atomic_numbers"]],
        avg_num_neighbors=_one(
            "avg_num_neighbors", [_number(fields(block)["avg_num_neighbors"]) for block in interactions]
        ),
        correlation=_one("correlation", list(_correlations(products))),
        radial_MLP=_radial_widths(state),
        radial_type=_renamed(_class(child(radial, "bessel_fn")), RADIAL),
        distance_transform=(
            _renamed(_class(child(radial, "distance_transform")), TRANSFORM)
            if "distance_transform" in fields(radial)["_modules"]
            else "None"
        ),
        pair_repulsion="pair_repulsion_fn" in top["_modules"],
        gate=_one("gate", _readout_gates(readouts[-1])),
        radial_gate=_one("radial_gate", [gate for block in interactions for gate in _radial_gates(block)]),
        gate_norms=_gate_norms(interactions),
        heads=heads,
        apply_cutoff=bool(fields(radial).get("apply_cutoff", True)),
        edge_irreps=_edge_irreps(interactions[1:]),
        edge_irreps_first=_edge_irreps(interactions[:1]),
        embedding_specs=dict(top["embedding_specs"]) if "joint_embedding" in top["_modules"] else None,
        use_embedding_readout="embedding_readout" in top["_modules"],
        use_so3=bool(top.get("use_so3", False)),
        use_agnostic_product=_one("use_agnostic_product", sorted(agnostic)),
    )


def _class(module: Stub) -> str:
    """Name of a class without its module."""
    fields(module)
    return module.name.rpartition(".")[2]


def _renamed(name: str, names: Mapping[str, str]) -> str:
    return names.get(name, name)


def _one(name: str, values: list[Any]) -> Any:
    """The value that all blocks must share."""
    if any(value != values[0] for value in values):
        shown = ", ".join(str(value) for value in values)
        raise BadInput(f"MACE: '{name}' differs between the layers ({shown}); expected one value for all")
    return values[0]


def _irreps(value: Any) -> o3.Irreps:
    """Irreps, written as a string or as e3nn's nested tuples."""
    if isinstance(value, str):
        return o3.Irreps(value)
    irreps = []
    for mul_ir in _plain(value):
        mul, ir = _plain(mul_ir)
        degree, parity = _plain(ir)
        irreps.append((int(mul), (int(degree), int(parity))))
    return o3.Irreps(irreps)


def _plain(value: Any) -> tuple[Any, ...]:
    """The tuple that a record of a tuple's subclass was made of."""
    if isinstance(value, Stub):
        (value,) = value.arguments
    return tuple(value)


def _number(value: Any) -> float:
    """A number, also as a tensor or as a record of a numpy scalar."""
    if isinstance(value, Stub):
        kind, data = value.arguments
        code = str(kind.arguments[0])
        if not value.name.endswith(".scalar") or code not in ("f4", "f8", "i4", "i8"):
            raise TypeError(f"{value!r} is not a number")
        return float(np.frombuffer(data, dtype="<" + code)[0])
    return float(value)


def _gates(root: Stub) -> dict[str, float]:
    """Activation functions within a block, and the factors of unit second moment behind them."""
    found = {}
    for _, module in modules(root):
        own = fields(module)
        if module.name == "e3nn.math._normalize_activation.normalize2mom":
            found[_function(own["f"])] = float(own["cst"])
        elif module.name == "mace.modules.gate.GatedEquivariantBlock":
            found[_function(own["_act_scalar"])] = float(own["_scalar_cst"])
            found[_function(own["_act_gate"])] = float(own["_gate_cst"])
    return found


def _function(record: Any) -> str:
    return str(record.name).removeprefix("torch.nn.functional.")


def _readout_gates(readout: Stub) -> list[str]:
    if "non_linearity" not in fields(readout)["_modules"]:
        return ["silu"]  # none that matters: a linear readout
    return list(_gates(readout)) or ["None"]


def _radial_gates(block: Stub) -> list[str]:
    network = child(block, "conv_tp_weights")
    plain = ("Linear", "LayerNorm", "Sequential", "RadialMLP", "FullyConnectedNet", "_Layer")
    others = {_class(module) for _, module in modules(network)} - {*plain, "SiLU", "normalize2mom"}
    return sorted({"silu", *_gates(network), *others}) if others else list(_gates(network)) or ["silu"]


def _gate_norms(blocks: list[Stub]) -> list[float] | None:
    """Factors behind silu and sigmoid in the gates of non-linear blocks."""
    gates = [child(b, "equivariant_nonlin") for b in blocks if "equivariant_nonlin" in fields(b)["_modules"]]
    if not gates:
        return None
    found = _one("equivariant_nonlin", [_gates(gate) for gate in gates])
    if set(found) != {"silu", "sigmoid"}:
        raise BadInput(f"MACE: 'equivariant_nonlin' has {', '.join(found)}; expected silu and sigmoid")
    return [found["silu"], found["sigmoid"]]


def _radial_widths(state: Mapping[str, Tensor]) -> list[int]:
    """Hidden widths of the radial network: e3nn's matrices are (in, out), those of torch (out, in)."""
    prefix = "interactions.0.conv_tp_weights."
    names = [name for name, value in state.items() if name.startswith(prefix) and value.dim() == 2]
    return [int(state[name].shape[0 if ".net." in name else 1]) for name in names[:-1]]


def _correlations(products: list[Stub]) -> Iterator[int]:
    for product in products:
        contractions = child(child(product, "symmetric_contractions"), "contractions")
        for contraction in children(contractions):
            yield 1 + len(fields(child(contraction, "weights"))["_parameters"])


def _readout_irreps(readout: Stub, n_heads: int) -> str:
    """Hidden irreps of the last readout for one head; scalars of any number if it has none."""
    if "hidden_irreps" not in fields(readout):
        return "1x0e"
    irreps = _irreps(fields(readout)["hidden_irreps"])
    return str(o3.Irreps([(mul // n_heads, ir) for mul, ir in irreps]))


def _edge_irreps(interactions: list[Stub]) -> str | None:
    """Irreps of the features that are sent, if they are not those of the nodes."""
    own = [fields(block) for block in interactions]
    edges = [(block.get("edge_irreps"), block["node_feats_irreps"]) for block in own]
    sent = [str(_irreps(nodes if edge is None else edge)) for edge, nodes in edges]
    if sent == [str(_irreps(nodes)) for _, nodes in edges]:
        return None
    return str(_one("edge_irreps", sent))
