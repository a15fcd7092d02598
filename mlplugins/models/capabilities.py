"""Capabilities beyond energies: one small interface each, inherited by the family, queried by type.

    class Model(PredictsVariance, Potential): ...

What a model offers is what its parts offer (`Potential.parts`: those of a sum are its terms).
"""

from typing import Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn

from mlplugins.errors import BadInput
from mlplugins.models.base import Potential
from mlplugins.nn.convolution import FUSED_DEGREE, Convolution
from mlplugins.nn.last_layer import LastLayer
from mlplugins.nn.radial import BesselBasis, RadialMLP
from mlplugins.structures.graph import Graph

FEWEST_KNOTS = 16
"""Of a radial table."""


class PredictsVariance:
    """A predictive variance of the energy."""

    @torch.jit.unused
    def has_variance(self) -> bool:
        """Whether the fit of this model determined a variance."""
        raise NotImplementedError("a family that predicts its variance implements has_variance()")

    @torch.jit.export
    def posterior_features(self, graph: Graph, found: Dict[str, Tensor]) -> Tuple[Tensor, Tensor]:
        """Residual (n_centers,), eV², and features ψ (n_centers, T), eV: var E_i = residual_i + ‖ψ_i‖² of one
        atom, Σ residual + ‖Σ ψ‖² of a sum of atoms. `found` is what `forward` returned for this graph."""
        raise NotImplementedError("a family that predicts its variance implements posterior_features()")

    @torch.jit.export
    def force_probes(self, graph: Graph, found: Dict[str, Tensor], count: int) -> Tensor:
        """(n_centers, K) energies, eV, whose sums over atoms have gradients g_q with respect to positions:
        var F_iα = Σ_q g_qiα² + floor², exactly with `count` = 0, else for about `count` random probes in the
        mean. With gradients; of families without an uncertainty of forces none."""
        return torch.zeros(graph.n_centers, 0, dtype=graph.vectors.dtype, device=graph.vectors.device)

    @torch.jit.export
    def force_floor(self) -> float:
        """Floor of the standard deviation of a force component, eV/Å; negative: there is no uncertainty of
        forces."""
        return -1.0


class HasLastLayer(PredictsVariance):
    """`forward` also returns `feature` (n_centers, T), eV: the inputs f_i of all layers of the readout times
    the scale of the energy. E_i = f_i · w + what does not depend on w, with the weights of the last layer;
    the inputs of hidden layers are further features of a wider linear readout, whose weights are zero.

    Attributes:
        last_layer: posterior of w, if `mlplugins uncertainty` determined one.
    """

    last_layer: LastLayer

    @torch.jit.unused
    def has_variance(self) -> bool:
        return self.last_layer.is_known()

    @torch.jit.export
    def posterior_features(self, graph: Graph, found: Dict[str, Tensor]) -> Tuple[Tensor, Tensor]:
        return self.last_layer(found["feature"])

    @torch.jit.export
    def force_probes(self, graph: Graph, found: Dict[str, Tensor], count: int) -> Tensor:
        return self.last_layer.probes(found["feature"], count)

    @torch.jit.export
    def force_floor(self) -> float:
        return float(self.last_layer.force_floor)


class SolvedInClosedForm:
    """Weights that solve linear equations: nothing trains them further.

    Attributes:
        solver: file of `mlplugins.training.solvers` that solves them.
    """

    solver: str


class WholeMolecule:
    """The energy is one of a whole molecule: it needs every pair of atoms, in the order of the training
    frames, on one rank and without periodic images.

    Attributes:
        takes_molecules: `require_molecules` and `molecules` work.
    """

    takes_molecules: bool

    @torch.jit.export
    def require_molecules(self, species: Tensor, n_atoms: Tensor) -> None:
        """Raise RuntimeError unless `species` (N,) of S systems of `n_atoms` (S,) are this model's molecule
        S times, its atoms in order."""
        raise NotImplementedError("a family of whole molecules implements require_molecules()")

    @torch.jit.export
    def molecules(self, positions: Tensor) -> Tuple[Tensor, Tensor]:
        """Energies (S,), eV, and ∂E/∂r (S, n, 3), eV/Å, at positions (S, n, 3), Å, in vacuum, without
        neighbour lists; after `require_molecules`, which a simulation needs once."""
        raise NotImplementedError("a family of whole molecules implements molecules()")


class HasRadialNetworks:
    """Radial networks: functions of the distance and, at most, of the elements of a pair."""

    @torch.jit.unused
    def tables_of_pairs(self) -> Optional[Tensor]:
        """(S, S) int64, a number for every pair of elements (centre, neighbour) with functions of its own,
        from 0 without gaps; None: all pairs have the same."""
        return None

    @torch.jit.unused
    def use_radial_tables(self, n_knots: int) -> None:
        """Replace every radial network by a cubic table of `n_knots` knots, or by one for every of
        `tables_of_pairs`: faster, never exact."""
        raise NotImplementedError("a family with radial networks implements use_radial_tables()")


class HasHead:
    """E_i = scale · (Σ readouts + shift of the element): what fine-tuning may train alone.

    Attributes:
        energy_scale: () or (elements,), eV; a buffer, constant in ordinary training.
        shift: (elements,), in units of the scale.
    """

    energy_scale: Tensor
    shift: nn.Parameter

    @torch.jit.unused
    def readouts(self) -> List[RadialMLP]:
        """The networks that map features to the energy."""
        raise NotImplementedError("a family with a head implements readouts()")


def predicts_variance(potential: Potential) -> bool:
    """Whether `posterior_features` of this model is more than zero."""
    return any(
        isinstance(part, PredictsVariance) and part.has_variance() for part in [potential, *potential.parts()]
    )


def forget_uncertainty(potential: Potential) -> None:
    """Drop the posteriors of last layers: training moves the weights that they belong to."""
    for part in potential.parts():
        if isinstance(part, HasLastLayer):
            part.last_layer.forget()


def is_trainable(potential: Potential) -> bool:
    """Whether gradients can train the model, or a part of it, further."""
    return not all(isinstance(part, SolvedInClosedForm) for part in potential.parts())


def of_whole_molecule(potential: Potential) -> bool:
    """Whether the model, or a part of it, is one of a whole molecule."""
    return any(isinstance(part, WholeMolecule) for part in potential.parts())


def heads(potential: Potential) -> List[HasHead]:
    """The parts with a head."""
    return [part for part in potential.parts() if isinstance(part, HasHead)]


def use_radial_tables(potential: Potential, n_knots: int) -> None:
    """Replace every radial network of the model by a cubic table of `n_knots` knots.

    Raises:
        BadInput: a part without radial networks, or too few knots.
    """
    require_knots(potential, n_knots)
    for part in learned_parts(potential):
        if isinstance(part, HasRadialNetworks):
            part.use_radial_tables(n_knots)


def require_knots(potential: Potential, n_knots: int) -> None:
    """Refuse radial tables that cannot be.

    Raises:
        BadInput: a part without radial networks, or too few knots.
    """
    if n_knots < FEWEST_KNOTS:
        raise BadInput(f"radial tables: expected {FEWEST_KNOTS} knots or more, got {n_knots}")
    if (obstacle := untabulated(potential)) is not None:
        raise BadInput(f"radial tables: {obstacle}; use the exact model")


def untabulated(potential: Potential) -> Optional[str]:
    """Why the radial networks of the model cannot become tables; None if they can."""
    for part in learned_parts(potential):
        if not isinstance(part, HasRadialNetworks):
            family = type(part).__module__.rpartition(".")[2]
            return f"{family} has no radial network to tabulate"
    return None


def of_pairs(potential: Potential) -> List[Tensor]:
    """`tables_of_pairs` of the parts whose radial networks depend on the pair."""
    found = [part.tables_of_pairs() for part in potential.parts() if isinstance(part, HasRadialNetworks)]
    return [which for which in found if which is not None]


def kinks(potential: Potential) -> List[float]:
    """Where the cutoff functions of radial networks have kinks within the cutoff, in units of it."""
    bases = [module for module in potential.modules() if isinstance(module, BesselBasis)]
    return sorted({basis.onset for basis in bases if basis.xplor})


def radial_weights(potential: Potential) -> int:
    """Number of radial weights per distance, over all convolutions."""
    return sum(module.n_weights for module in potential.modules() if isinstance(module, Convolution))


def learned_parts(potential: Potential) -> List[Potential]:
    """The parts with parameters (a repulsion has none), or all if there are none."""
    parts = potential.parts()
    return [part for part in parts if any(True for _ in part.parameters())] or parts


def unfused_degree(potential: Potential) -> Optional[int]:
    """Highest degree of a model whose convolutions it keeps from the fused kernels; None if there is none."""
    degrees = [module.degree for module in potential.modules() if isinstance(module, Convolution)]
    highest = max(degrees, default=0)
    return highest if highest > FUSED_DEGREE else None
