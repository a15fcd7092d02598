"""D3 terms whose reference data come with metatomic (in single precision): tests run without tad-dftd3."""

import torch
from metatomic.torch.dftd3 import _load_dftd3_parameters

from mlplugins.elements import atomic_number
from mlplugins.models import d3

PBE = {
    "bj": {"damping": "bj", "s8": 0.7875, "a1": 0.4289, "a2": 4.4407},
    "zero": {"damping": "zero", "s8": 0.722, "rs6": 1.217, "rs8": 1.0, "alp": 14.0},
}


def filled(elements: list[str], damping: str = "bj", **more: float) -> d3.Model:
    """D3 of PBE. The radii of zero damping, which metatomic lacks, are twice the covalent ones."""
    model = d3.Model(elements, d3.Hyperparameters(**PBE[damping], **more))
    z = torch.tensor([atomic_number(symbol) for symbol in elements])
    tables = _load_dftd3_parameters(torch.float64)
    model.covalent_radius.copy_(tables["rcov"][z])
    model.reference_cn.copy_(tables["cn_ref"][z])
    model.reference_c6.copy_(tables["c6"][z][:, z])
    model.charge_radius.copy_(tables["r4r2"][z])
    model.pair_radius.copy_(1.5 * (model.covalent_radius[:, None] + model.covalent_radius[None, :]))
    return model
