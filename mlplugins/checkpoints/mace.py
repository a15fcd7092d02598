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
from typing import Any

import numpy as np
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


def read(path: Path | str, elements: list[str] | None = None, head: str | None = None) -> Checkpoint:
    """Read a model; no code in the file is run, mace-torch is not needed.

    Args:
        path: the `.model` file.
        elements: keep only these (symbols); default: all that the model knows.
        head: which head of several; default: the only one, or the one called "Default".

    Returns:
        The model as family `mace` in the precision of its weights, with the energies of the isolated atoms
        as composition energies.

    Raises:
        BadInput: not such a file, truncated, weights alone, an unsupported option (named), an unknown element
            or head, or a head that must be chosen.
    """
    path = Path(path)
    accelerators = [name for name in unpickle.names(path).imports if name.startswith(ACCELERATORS)]
    if accelerators:
        raise BadInput(
            f"{path}: saved for an accelerator ('{sorted(accelerators)[0]}'); convert it first with "
            "`mace_cueq_to_e3nn` or `mace_oeq_to_e3nn` of mace-torch"
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
            checkpoint = from_state(config, state, head, elements)
    several = len(config.heads) > 1
    head = checkpoint.details["home"]["head"] if several else None
    source = _record.source("MACE", path, version=None, head=head)  # the files do not say which version
    return replace(checkpoint, details={**checkpoint.details, "source": source})


def _config(model: Stub, state: Mapping[str, Tensor]) -> HomeConfig:
    """The architecture, from classes, attributes and shapes."""
    top, radial = fields(model), child(model, "radial_embedding")
    interactions, products, readouts = (
        children(child(model, name)) for name in ("interactions", "products", "readouts")
    )
    heads = [str(name) for name in top.get("heads", ["Default"])]
    hidden = [_irreps(fields(child(product, "linear"))["irreps_out"]) for product in products]
    prefix = "interactions.0.conv_tp_weights.layer"
    layers = [name for name in state if name.startswith(prefix)]
    agnostic = {bool(fields(product).get("use_agnostic_product", False)) for product in products}
    return HomeConfig(
        model_cls=_class(model),
        r_max=float(state["r_max"]),
        num_bessel=state[layers[0]].shape[0],
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
        radial_MLP=[state[name].shape[1] for name in layers[:-1]],
        radial_type=_renamed(_class(child(radial, "bessel_fn")), RADIAL),
        distance_transform=(
            _renamed(_class(child(radial, "distance_transform")), TRANSFORM)
            if "distance_transform" in fields(radial)["_modules"]
            else "None"
        ),
        pair_repulsion="pair_repulsion_fn" in top["_modules"],
        gate=_one("gate", list(_gates(readouts[-1])) or ["silu"]),
        radial_gate=_one("radial_gate", [gate for block in interactions for gate in _gates(block)]),
        heads=heads,
        apply_cutoff=bool(fields(radial).get("apply_cutoff", True)),
        edge_irreps=_edge_irreps(interactions),
        embedding_specs=(
            list(top.get("embedding_specs", {})) if "joint_embedding" in top["_modules"] else None
        ),
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


def _gates(root: Stub) -> Iterator[str]:
    """Names of the activation functions within a block."""
    for _, module in modules(root):
        if module.name == "e3nn.math._normalize_activation.normalize2mom":
            yield str(fields(module)["f"].name).removeprefix("torch.nn.functional.")


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
    for block in interactions:
        own = fields(block)
        edge = own.get("edge_irreps")
        if edge is not None and _irreps(edge) != _irreps(own["node_feats_irreps"]):
            return str(_irreps(edge))
    return None
