"""Any metatomic model: gradients to positions and strain, and what else it declares."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import (
    ModelEvaluationOptions,
    ModelOutput,
    System,
    register_autograd_neighbors,
    unit_conversion_factor,
)
from torch import Tensor

from mlplugins.errors import BadInput, RunFailed
from mlplugins.model_file.evaluate import DIRECT_FORCES, DIRECT_STRESS, Asked, results_of
from mlplugins.model_file.pairs import NeighborCache
from mlplugins.model_file.structure import Array, Prepared
from mlplugins.quantities import QUANTITIES, Results
from mlplugins.structures.state import UNITS


class GeneralModel:
    """Any metatomic model: gradients to positions and strain; any number of full or half lists.

    Beside the energy it is asked for the quantities `more`, which it must have `declared`.
    """

    def __init__(self, model: Any, output: str, asked: Asked, dtype: torch.dtype, device: torch.device):
        self._model = model
        self._output = output
        self._direct = asked.direct
        self._more = {name: key for name in asked.more if (key := QUANTITIES[name].output)}
        self._kinds = {key: value.sample_kind for key, value in model.capabilities().outputs.items()}
        self._dtype = dtype
        self._device = device
        self._lists = list(model.requested_neighbor_lists())
        self._inputs = list(model.requested_inputs(use_new_names=True))
        self._components, self._properties = _pair_labels(device)

    def evaluate(
        self,
        structures: Sequence[Prepared],
        lists: NeighborCache,
        virials: bool = False,
        uncertainty: bool = False,
        wanted: Collection[str] | None = None,
        probes: int | None = None,
    ) -> list[Results]:
        if uncertainty or probes is not None:
            raise BadInput(
                "uncertainty: mlplugins did not write this model, and reads that output of its own only"
            )
        if virials:
            raise BadInput(
                "per-atom virials: mlplugins did not write this model, so its energy cannot be split over "
                "the neighbour vectors; ask for the stress of the whole cell"
            )
        inputs, systems = [], []
        for place, structure in enumerate(structures):
            positions, strain, system = self._system(place, structure, lists)
            inputs.append((positions, strain))
            systems.append(system)
        if self._direct and wanted is not None:
            wanted = {*wanted, DIRECT_FORCES, DIRECT_STRESS}
        asked = {name: key for name, key in self._more.items() if wanted is None or name in wanted}
        found = self._model(systems, self._options(asked), check_consistency=False)
        energy = found[self._output].block().values
        leaves = [tensor for pair in inputs for tensor in pair]
        gradients: Sequence[Tensor | None] = [None] * len(leaves)
        if energy.requires_grad and not self._direct:
            gradients = torch.autograd.grad(energy.sum(), leaves, allow_unused=True)
        sizes = [len(s.numbers) for s in structures]
        totals, atoms = _of_structures(found[self._output], self._output, (), sizes)
        results = []
        for k, structure in enumerate(structures):
            forces, virial = (
                np.zeros(leaf.shape) if g is None else -g.cpu().double().numpy()
                for leaf, g in zip(inputs[k], gradients[2 * k : 2 * k + 2])
            )
            virial = 0.5 * (virial + virial.T)
            each = None if atoms is None else atoms[k]
            results.append(results_of(structure, float(totals[k]), forces, virial, each, None))
        more: list[dict[str, Array]] = [{} for _ in structures]
        for name, key in asked.items():
            quantity = QUANTITIES[name]
            totals, atoms = _of_structures(found[key], key, quantity.shape, sizes)
            for values, value in zip(more, totals if quantity.per == "system" else atoms or ()):
                values[name] = value
        results = [replace(result, more=values or None) for result, values in zip(results, more)]
        return [_directly(*pair) for pair in zip(structures, results)] if self._direct else results

    def _options(self, more: Mapping[str, str]) -> ModelEvaluationOptions:
        """What a call asks for: the energy, and quantities by name with their outputs."""
        units = {self._output: "eV"} | {key: QUANTITIES[name].output_unit for name, key in more.items()}
        outputs = {key: ModelOutput(unit=unit, sample_kind=self._kinds[key]) for key, unit in units.items()}
        return ModelEvaluationOptions(length_unit="angstrom", outputs=outputs)

    def _system(self, place: int, structure: Prepared, lists: NeighborCache) -> tuple[Tensor, Tensor, System]:
        kind: dict[str, Any] = {"dtype": self._dtype, "device": self._device}
        positions = torch.from_numpy(structure.positions).to(**kind).clone().requires_grad_()
        strain = torch.eye(3, **kind).requires_grad_()
        system = System(
            torch.from_numpy(structure.numbers).to(self._device),
            positions @ strain,
            torch.from_numpy(structure.cell).to(**kind) @ strain,
            torch.from_numpy(structure.pbc).to(self._device),
        )
        for name in self._inputs:
            system.add_data(name, _of_system(name, getattr(structure.state, name), kind))
        for options in self._lists:
            cutoff = options.engine_cutoff("angstrom")
            pairs = lists.pairs(place, structure, cutoff, options.full_list)
            values = pairs.vectors.to(**kind).unsqueeze(2)
            samples = pairs.labels(self._device)
            block = TensorBlock(values, samples, [self._components], self._properties)
            register_autograd_neighbors(system, block, check_consistency=False)
            system.add_neighbor_list(options, block)
        return positions, strain, system


def _of_structures(
    found: Any, name: str, shape: tuple[int, ...], sizes: Sequence[int]
) -> tuple[list[Array], list[Array] | None]:
    """Values of the structures, each of `shape`, of a model's output; and of their atoms, if it has them."""
    n_values = [block.values[:1].numel() for block in found.blocks()]
    if n_values != [math.prod(shape)]:
        raise RunFailed(
            f"the model's output '{name}' has {len(n_values)} block(s) with {n_values} components per "
            f"sample; expected one with {math.prod(shape)}"
        )
    block = found.block()
    values = block.values.detach().cpu().double().reshape(-1, *shape)
    samples, per_atom = block.samples.values.cpu().long(), "atom" in block.samples.names
    rows = samples[:, 0]
    if per_atom:
        rows = torch.tensor([0, *sizes]).cumsum(0)[rows] + samples[:, 1]
    whole = values.new_zeros(sum(sizes) if per_atom else len(sizes), *shape).index_add_(0, rows, values)
    if not per_atom:
        return list(whole.numpy()), None
    atoms = [part.numpy() for part in whole.split(list(sizes))]
    return [part.sum(axis=0) for part in atoms], atoms


def declared(outputs: Mapping[str, ModelOutput]) -> tuple[str, ...]:
    """Quantities of the table, beside the energy, that a model with these outputs predicts: in a unit that
    can be converted to ours, and of every atom where the quantity is one of atoms."""
    names = []
    for name, quantity in QUANTITIES.items():
        output = None if quantity.output is None else outputs.get(quantity.output)
        if name == "energy" or output is None or (quantity.per == "atom" and output.sample_kind != "atom"):
            continue
        unit = quantity.output_unit
        if bool(unit) == bool(output.unit) and _convertible(output.unit, unit):
            names.append(name)
    return tuple(names)


def _convertible(unit: str, other: str) -> bool:
    try:
        return unit_conversion_factor(unit, other) > 0
    except ValueError:
        return False


def _directly(structure: Prepared, result: Results) -> Results:
    """The result with its direct forces and stress in place of derivatives. Those of models of others may add
    up to something, which would push the whole: their mean is taken off, as other engines do."""
    forces, stress = result.get(DIRECT_FORCES), result.get(DIRECT_STRESS)
    virial = None
    if structure.volume is None or stress is None:
        stress = None
    else:
        stress = 0.5 * (stress + stress.T)
        virial = -structure.volume * stress
    return replace(result, forces=forces - forces.mean(axis=0), stress=stress, virial=virial)


def _of_system(name: str, value: float, kind: Mapping[str, Any]) -> TensorMap:
    """A number of the structure as metatomic passes it."""
    zero = torch.zeros(1, 1, dtype=torch.int32, device=kind["device"])
    values = torch.full((1, 1), value, **kind)
    block = TensorBlock(values, Labels(["system"], zero), [], Labels([name], zero))
    found = TensorMap(Labels(["_"], zero), [block])
    found.set_info("unit", UNITS[name])
    return found


def _pair_labels(device: torch.device) -> tuple[Labels, Labels]:
    xyz = Labels("xyz", torch.arange(3, dtype=torch.int32, device=device).reshape(3, 1))
    return xyz, Labels("distance", torch.zeros(1, 1, dtype=torch.int32, device=device))
