"""Files of packages whose models are not converted: what they are, and the road that exists."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mlplugins.checkpoints import unpickle
from mlplugins.errors import BadInput

LABELS = (
    "`mlplugins label` (kind: calculator) labels frames with its ASE calculator, and a model that is trained "
    "on them runs here"
)
HEAD = 4096
"""Bytes of a file that is no archive which are looked at."""


class Evidence(NamedTuple):
    """What a file shows without being read: names in the archive, imports and strings of its pickle, a head.

    Attributes:
        entries: below the archive's own folder.
    """

    entries: frozenset[str]
    imports: frozenset[str]
    strings: frozenset[str]
    head: bytes

    def program_of(self, *packages: str) -> bool:
        """Whether it is a TorchScript program with modules of one of the packages."""
        return any(
            name.startswith(f"code/__torch__/{package}/") for name in self.entries for package in packages
        )

    def imports_of(self, *packages: str) -> bool:
        """Whether its pickle names objects of one of the packages."""
        return any(name.partition(".")[0] in packages for name in self.imports)

    def has_weight(self, *parts: str) -> bool:
        """Whether there is a name with each of the parts."""
        return all(any(part in name for name in self.strings) for part in parts)


class Foreign(NamedTuple):
    """A kind of files: what they are, what to do with them, and how they are recognised."""

    name: str
    road: str
    shown_by: Callable[[Evidence], bool]


def what_it_is(path: Path) -> str | None:
    """The kind of the file and what to do with it, in words; None if it is of no known kind."""
    evidence = _evidence(path)
    for kind in KINDS:
        if kind.shown_by(evidence):
            return f"{kind.name}: {kind.road}"
    return None


def require_arrived(path: Path) -> None:
    """Refuse what a download leaves in the place of a file.

    Raises:
        BadInput: an empty file, a pointer of Git LFS, a web page.
    """
    with path.open("rb") as file:
        head = file.read(64).lstrip().lower()
    if not head and path.is_file():
        raise BadInput(f"{path}: the file is empty; copy or download it again")
    if head.startswith(b"version https://git-lfs"):
        raise BadInput(f"{path}: a pointer of Git LFS, not the file itself; `git lfs pull` fetches it")
    if head.startswith((b"<!doctype html", b"<html")):
        raise BadInput(f"{path}: a web page, not the file itself; download it again")


def what_folder_it_is(path: Path) -> str | None:
    """The same of a folder."""
    inside = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    if "saved_model.pb" in inside:
        return (
            f"a TensorFlow SavedModel, such as those of GRACE (tensorpotential), is not converted: {LABELS}"
        )
    if {"model.json", "state.pt"} <= inside:
        return f"a model of MatGL (M3GNet, TensorNet, CHGNet, …) is not converted: {LABELS}"
    return None


def _evidence(path: Path) -> Evidence:
    entries = unpickle.entries(path)
    try:
        imports, strings = unpickle.names(path)
    except BadInput:
        imports = strings = frozenset()
    with path.open("rb") as file:
        head = file.read(HEAD)
    return Evidence(frozenset(name.partition("/")[2] for name in entries), imports, strings, head)


def _is_metatomic(seen: Evidence) -> bool:
    return "extra/metatomic-version" in seen.entries or seen.program_of("metatomic")


def _is_torch_nequix(seen: Evidence) -> bool:
    line = seen.head.partition(b"\n")[0]
    try:
        return {"hidden_irreps", "lmax", "radial_mlp_size"} <= set(json.loads(line))
    except (ValueError, TypeError):
        return False


KINDS = (
    Foreign(
        "a metatomic model",
        "it runs here as it is, without conversion (`mlplugins info`, `check`, all engines); `finetune` "
        "begins from models of mlplugins only",
        _is_metatomic,
    ),
    Foreign(
        "a checkpoint of metatrain (PET, PET-MAD, UPET, …)",
        "`mtt export FILE -o model.pt`, in an environment with metatrain, writes the metatomic model, which "
        "runs here as it is",
        lambda seen: (
            {"architecture_name", "model_ckpt_version"} <= seen.strings or seen.imports_of("metatrain")
        ),
    ),
    Foreign(
        "a model that nequip has compiled",
        "it holds no weights by name; convert the checkpoint (.ckpt) or package (.nequip.zip) it is made of",
        lambda seen: seen.program_of("nequip", "allegro"),
    ),
    Foreign(
        "a model compiled by torch (AOTInductor)",
        "it holds machine code and no weights by name; convert the checkpoint or package it was made from",
        lambda seen: any("aotinductor" in name for name in seen.entries),
    ),
    Foreign(
        "the weights of a Nequix model for its PyTorch backend",
        "convert the .nqx file, from which nequix made it",
        _is_torch_nequix,
    ),
    Foreign(
        "a model of DeePMD-kit (DPA and others), which is not converted",
        f"its own `pair_style deepmd` (deepmd-kit[lmp]) runs it in LAMMPS; {LABELS}",
        lambda seen: (
            seen.program_of("deepmd")
            or seen.imports_of("deepmd")
            or seen.has_weight("atomic_model.descriptor", "atomic_model.fitting_net")
        ),
    ),
    Foreign(
        "a checkpoint of fairchem (UMA, eSEN), which is not converted",
        LABELS,
        lambda seen: seen.imports_of("fairchem", "ocpmodels"),
    ),
    Foreign(
        "a checkpoint of MatterSim, which is not converted",
        LABELS,
        lambda seen: {"model_name", "model_args", "validation_metrics", "description"} <= seen.strings,
    ),
    Foreign(
        "a checkpoint of CHGNet",
        "examples/09_chgnet.py, in an environment with chgnet, writes it as a metatomic model that runs here",
        lambda seen: seen.has_weight("composition_model.fc.weight", "bond_basis_expansion."),
    ),
    Foreign(
        "a model of AIMNet, which is not converted",
        LABELS,
        lambda seen: {"format_version", "model_yaml"} <= seen.strings or seen.program_of("aimnet"),
    ),
    Foreign(
        "a model of TorchANI, which is not converted",
        LABELS,
        lambda seen: seen.program_of("torchani") or seen.imports_of("torchani"),
    ),
    Foreign(
        "the weights of an ORB model, which is not converted",
        LABELS,
        lambda seen: seen.has_weight("model.gnn_stacks.", "model._encoder._node_fn."),
    ),
    Foreign(
        "the weights of a MatGL model, which is not converted",
        LABELS,
        lambda seen: (
            seen.has_weight("basis_expansion", "final_layer.") and seen.has_weight("data_mean", "data_std")
        ),
    ),
    Foreign(
        "a graph of TensorFlow (DeePMD-kit, GRACE), which is not converted",
        LABELS,
        lambda seen: b"saver_filename" in seen.head or b"Placeholder" in seen.head,
    ),
    Foreign(
        "a file in HDF5 (DeePMD-kit and others), which is not converted",
        LABELS,
        lambda seen: seen.head.startswith(b"\x89HDF\r\n\x1a\n"),
    ),
    Foreign(
        "a table of weights without the architecture (safetensors)",
        "convert the checkpoint that the package of the model writes",
        lambda seen: seen.head[8:10] == b'{"',
    ),
)
"""In the order in which they are tried."""
