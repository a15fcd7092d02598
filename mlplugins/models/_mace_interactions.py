"""How a layer of MACE gathers messages: one class per kind of interaction block."""

from typing import List, Optional, Protocol

import torch
from torch import Tensor, nn

from mlplugins.nn.convolution import Convolution
from mlplugins.nn.edge_rows import per_edge
from mlplugins.nn.gate import Gate
from mlplugins.nn.irreps import o3
from mlplugins.nn.linear import Linear
from mlplugins.nn.modes import HasNativeOps
from mlplugins.nn.radial import NormedMLP, RadialMLP
from mlplugins.nn.radial_table import RadialTable
from mlplugins.nn.sums import LinearSum

NON_LINEAR = "RealAgnosticResidualNonLinear"


class Sizes(Protocol):
    """Those of MACE's hyper-parameters that an interaction has."""

    @property
    def num_channels(self) -> int: ...
    @property
    def l_max(self) -> int: ...
    @property
    def num_basis(self) -> int: ...
    @property
    def radial_mlp(self) -> List[int]: ...
    @property
    def envelope_on_weights(self) -> bool: ...


def split_table(convolution: Convolution, knots: Tensor) -> Optional[RadialTable]:
    """Give a convolution its columns of a table; what remains is returned."""
    n = convolution.n_weights
    convolution.use_radial_table(knots[..., :n].contiguous())
    return RadialTable(knots[..., n:].contiguous()) if knots.shape[-1] > n else None


class Interaction(HasNativeOps, nn.Module):
    """A_i = linear(Σ_j R(r_ij) ⊙ (u_j ⊗ Y(r̂_ij))) / neighbours, for mixed node features u.

    The divisor is the average number of neighbours or, in the density variants, 1 + Σ_j tanh(d(r_ij)²) with a
    learnt linear function d of the radial basis.
    """

    average_neighbors: Tensor

    def __init__(
        self,
        irreps_in: o3.Irreps,
        irreps_a: o3.Irreps,
        kind: str,
        n_species: int,
        hyperparameters: Sizes,
    ) -> None:
        super().__init__()
        widths = [hyperparameters.num_basis, *hyperparameters.radial_mlp]
        given = hyperparameters.envelope_on_weights
        self.convolution = Convolution(irreps_in, hyperparameters.l_max, irreps_a, [] if given else widths)
        self.radial = RadialMLP([*widths, self.convolution.n_weights]) if given else None
        self.linear = Linear(self.convolution.irreps_out, irreps_a)
        self.density = RadialMLP([hyperparameters.num_basis, 1]) if "Density" in kind else None
        self.density_table: Optional[nn.Module] = None
        self.element_mix = None if "Residual" in kind else Linear(irreps_a, irreps_a, n_species)
        self.register_buffer("average_neighbors", torch.ones((), dtype=torch.float64))
        self.mean: Optional[nn.Module] = None

    @torch.jit.unused
    def use_native_ops(self) -> None:
        """Folded, the division by the average number of neighbours is part of the linear map."""
        if self.linear.folded and self.density is None:
            self.mean = LinearSum([self.linear], [1.0 / float(self.average_neighbors)])
            self.linear.clear()

    @torch.jit.unused
    def rows(self, radial: List[Tensor], species: Tensor, edges: List[Tensor]) -> Tensor:
        """(U, Σ_paths) radial weights and, in the density variants, one column more: the density."""
        if self.radial is None:
            weights = self.convolution.radial(radial[1])
        else:
            weights = self.radial(radial[1]) * radial[2]
        if self.density is not None:
            weights = torch.cat([weights, self._densities(self.density(radial[1]), radial)], dim=1)
        return weights

    @torch.jit.unused
    def use_radial_table(self, knots: Tensor) -> None:
        """Interpolate what `rows` gives."""
        self.radial = None
        self.density_table = split_table(self.convolution, knots)

    def forward(
        self,
        up: Tensor,
        species: Tensor,
        n_centers: int,
        edges: List[Tensor],
        harmonics: Tensor,
        radial: List[Tensor],
    ) -> Tensor:
        weights = radial
        if self.radial is not None:
            weights = [radial[0], self.radial(radial[1]) * radial[2]]
        a = self.convolution(up, harmonics, weights, edges, n_centers)  # (n_centers, Σ_paths)
        species = species[:n_centers]
        if self.mean is not None:
            a = self.mean([a], species)  # (n_centers, num_channels (l_max + 1)²)
        else:
            a = self._normalised(self.linear(a, species), edges, radial)
        if self.element_mix is not None:
            a = self.element_mix(a, species)
        return a

    def _normalised(self, a: Tensor, edges: List[Tensor], radial: List[Tensor]) -> Tensor:
        if self.density is not None:
            if self.density_table is not None:
                edge_density = self.density_table(radial[0], edges)  # (E, 1)
            else:
                edge_density = per_edge(self._densities(self.density(radial[1]), radial), edges)
            density = torch.zeros(a.shape[0], 1, dtype=a.dtype, device=a.device)
            a = a / (1.0 + density.index_add(0, edges[0], edge_density))
        else:
            a = a / self.average_neighbors
        return a

    def _densities(self, d: Tensor, radial: List[Tensor]) -> Tensor:
        """tanh(d²) (U, 1), with the envelope where the weights take it."""
        density = torch.tanh(d**2)
        if self.radial is not None:
            density = density * radial[2]
        return density


class NonLinearInteraction(nn.Module):
    """A_i = linear(gate(linear(Σ_j R_ij ⊙ (u_j ⊗ Y(r̂_ij))) / (α + β ρ_i) + linear(u_i))).

    The radial weights R_ij and the terms of the density ρ_i = Σ_j tanh(d_ij²) are networks with layer norms
    of the radial basis, an embedding of the neighbour's element and another one of the centre's.
    """

    def __init__(
        self, irreps_in: o3.Irreps, irreps_a: o3.Irreps, n_species: int, hyperparameters: Sizes
    ) -> None:
        super().__init__()
        n = hyperparameters.num_channels
        n_inputs = hyperparameters.num_basis + 2 * n
        self.of_neighbor = nn.Parameter(1e-3 * torch.randn(n_species, n, dtype=torch.float64))
        self.of_center = nn.Parameter(1e-3 * torch.randn(n_species, n, dtype=torch.float64))
        self.convolution = Convolution(irreps_in, hyperparameters.l_max, irreps_a, [])
        self.radial = NormedMLP([n_inputs, *hyperparameters.radial_mlp, self.convolution.n_weights])
        self.density = NormedMLP([n_inputs, 64, 1])
        self.gate = Gate(irreps_a, sigmoid=True)
        self.linear = Linear(self.convolution.irreps_out, self.gate.irreps_in)
        self.linear_self = Linear(irreps_in, self.gate.irreps_in)
        self.linear_out = Linear(irreps_a, irreps_a)
        self.alpha = nn.Parameter(torch.tensor(20.0, dtype=torch.float64))
        self.beta = nn.Parameter(torch.tensor(0.0, dtype=torch.float64))
        self.envelope_on_weights = hyperparameters.envelope_on_weights
        self.density_table: Optional[nn.Module] = None

    @torch.jit.unused
    def use_radial_table(self, knots: Tensor) -> None:
        """Interpolate what `rows` gives."""
        self.density_table = split_table(self.convolution, knots)

    def rows(self, radial: List[Tensor], species: Tensor, edges: List[Tensor]) -> Tensor:
        """(E, Σ_paths + 1) radial weights and density."""
        i, j = species.index_select(0, edges[0]), species.index_select(0, edges[1])
        pair = torch.cat(
            [radial[1], self.of_neighbor.index_select(0, j), self.of_center.index_select(0, i)], dim=1
        )  # (E, num_basis + 2 num_channels)
        rows = torch.cat([self.radial(pair), torch.tanh(self.density(pair) ** 2)], dim=1)
        return rows * radial[2] if self.envelope_on_weights else rows

    def forward(
        self,
        up: Tensor,
        species: Tensor,
        n_centers: int,
        edges: List[Tensor],
        harmonics: Tensor,
        radial: List[Tensor],
    ) -> Tensor:
        weights = radial
        if self.density_table is not None:
            edge_density = self.density_table(radial[0], edges)  # (E, 1)
        else:
            n_weights = self.convolution.n_weights
            made, edge_density = self.rows(radial, species, edges).split([n_weights, 1], dim=1)
            weights = [radial[0], made]
        species = species[:n_centers]
        a = self.convolution(up, harmonics, weights, edges, n_centers)
        density = torch.zeros(n_centers, 1, dtype=a.dtype, device=a.device)
        density = density.index_add(0, edges[0], edge_density)
        a = self.linear(a, species) / (self.alpha + self.beta * density)
        a = self.gate(a + self.linear_self(up[:n_centers], species))
        return self.linear_out(a, species)  # (n_centers, num_channels (l_max + 1)²)
