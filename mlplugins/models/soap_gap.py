"""Sparse Gaussian process on SOAP power spectra (Bartók et al., Phys. Rev. Lett. 104, 136403 (2010))."""

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from mlplugins.errors import BadInput
from mlplugins.models.base import Potential
from mlplugins.models.capabilities import PredictsVariance, SolvedInClosedForm
from mlplugins.nn.soap import Expansion, PowerSpectrum, RadialIntegrals, smooth_step
from mlplugins.nn.zbl import ZBL
from mlplugins.structures.graph import Graph

TARGETS = "energies+forces"
REFERENCES = ["https://doi.org/10.1103/PhysRevLett.104.136403", "https://doi.org/10.1103/PhysRevB.87.184115"]

CHUNK = 64
"""Atoms per chunk in inference."""

FITTED = ("sparse", "sparse_counts", "weights", "pair_weights", "whitening", "posterior", "pair_posterior")
"""Tensors whose sizes come with the fit."""


@dataclass(frozen=True)
class Hyperparameters:
    """Parameters, named as in GAP.

    Attributes:
        cutoff: r_c, Å.
        cutoff_transition_width: neighbours fade out over the last so many Å.
        n_max: radial functions.
        l_max: highest degree of the harmonics.
        atom_sigma: width of the atomic Gaussians, Å.
        zeta: exponent of the kernel (p·p')^ζ.
        delta: prior standard deviation of the many-body energy of one atom, eV.
        radial_scale, radial_exponent: neighbours weigh 1/(1 + (r/scale)^exponent); exponent 0: all the same.
        two_body: number of reference distances of the pair term; 0: no pair term.
        two_body_width: length scale of the pair term, Å.
        two_body_delta: prior standard deviation of the energy of one pair, eV.
        zbl: add the universal screened nuclear repulsion (ZBL) at short range; advised for hot MD.
    """

    cutoff: float = 5.0
    cutoff_transition_width: float = 1.0
    n_max: int = 8
    l_max: int = 6
    atom_sigma: float = 0.5
    zeta: int = 4
    delta: float = 1.0
    radial_scale: float = 2.0
    radial_exponent: int = 0
    two_body: int = 12
    two_body_width: float = 0.5
    two_body_delta: float = 1.0
    zbl: bool = False


class PairBasis(nn.Module):
    """φ_b(r) = f(r) exp(−(r − r_b)²/2θ²) at evenly spaced r_b: (E,) → (E, B)."""

    distances: Tensor

    def __init__(self, cutoff: float, n: int, width: float, transition: float) -> None:
        super().__init__()
        self.cutoff, self.width, self.transition = float(cutoff), float(width), float(transition)
        distances = cutoff * (torch.arange(n, dtype=torch.float64) + 0.5) / max(n, 1)
        self.register_buffer("distances", distances, persistent=False)

    def forward(self, r: Tensor) -> Tensor:
        x = (r.unsqueeze(1) - self.distances) / self.width
        envelope = smooth_step((self.cutoff - r) / self.transition)
        return torch.exp(-0.5 * x * x) * envelope.unsqueeze(1)


class Model(SolvedInClosedForm, PredictsVariance, Potential):
    """E_i = Σ_m c_m δ² (p̂_i · p̂_m)^ζ over the sparse points m of the element of i, plus the pair term.

    Computed as Σ_m c_m δ² (k_m − 1) + Σ_m c_m δ²: weights are large and of both signs, and kernels close to
    one, so that summing k itself would cost digits.

    Without a fit (`set_fit`) there are no sparse points and the energy is zero.

    >>> model = Model(["Cu"], Hyperparameters(n_max=4, l_max=2))
    >>> model.spectrum.n_features
    30
    """

    solver = "soap_gap"
    sparse: Tensor
    sparse_counts: Tensor
    middle: Tensor
    centred: Tensor
    halves: Tensor
    whitening: Tensor
    posterior: Tensor
    pair_posterior: Tensor
    prior_variance: Tensor
    least_variance: Tensor
    pair_index: Tensor

    def __init__(self, elements: List[str], hyperparameters: Hyperparameters) -> None:
        _validate(hyperparameters)
        h = hyperparameters
        super().__init__(h.cutoff)
        n_species = len(elements)
        self.n_species, self.zeta, self.delta = n_species, int(h.zeta), float(h.delta)
        radial = RadialIntegrals(
            h.cutoff,
            h.n_max,
            h.l_max,
            h.atom_sigma,
            h.cutoff_transition_width,
            h.radial_scale,
            h.radial_exponent,
        )
        self.expansion = Expansion(n_species, radial, h.n_max, h.l_max)
        self.spectrum = PowerSpectrum(n_species * h.n_max, h.l_max)
        self.n_two_body = int(h.two_body)
        self.two_body_delta = float(h.two_body_delta)
        self.pair_basis = PairBasis(h.cutoff, h.two_body, h.two_body_width, h.cutoff_transition_width)
        self.repulsion = ZBL(elements) if h.zbl else None
        index = torch.zeros(n_species, n_species, dtype=torch.long)
        upper = torch.triu_indices(n_species, n_species)
        index[upper[0], upper[1]] = torch.arange(upper.shape[1])
        self.register_buffer("pair_index", torch.maximum(index, index.T), persistent=False)
        n_pairs = upper.shape[1]
        self.weights = nn.Parameter(torch.zeros(0, dtype=torch.float64))  # (M,) c_m δ²
        self.pair_weights = nn.Parameter(torch.zeros(n_pairs, h.two_body, dtype=torch.float64))
        n_features = self.spectrum.n_features
        self.register_buffer("sparse", torch.zeros(0, n_features, dtype=torch.float64))  # (M, D)
        self.register_buffer("sparse_counts", torch.zeros(n_species, dtype=torch.long))
        self.register_buffer("middle", torch.zeros(n_species, n_features).double(), persistent=False)
        self.register_buffer("centred", torch.zeros(0, n_features).double(), persistent=False)  # (M, D)
        self.register_buffer("halves", torch.zeros(0).double(), persistent=False)  # (M,)
        self.register_buffer("whitening", torch.zeros(0, 0, dtype=torch.float64))  # (M, R)
        self.register_buffer("posterior", torch.zeros(0, 0, dtype=torch.float64))  # (M, T)
        self.register_buffer("prior_variance", torch.zeros((), dtype=torch.float64))  # eV²
        self.register_buffer("least_variance", torch.zeros((), dtype=torch.float64))  # eV²
        self.register_buffer("pair_posterior", torch.zeros(n_pairs * h.two_body, 0, dtype=torch.float64))
        self.optimised, self.chunk = False, CHUNK

    @torch.jit.unused
    def set_sparse(self, points: Sequence[Tensor]) -> None:
        """Sparse points of every element, each (M_s, D), of unit length; the weights become zero."""
        if len(points) != self.n_species:
            raise BadInput(
                f"soap-gap: sparse points of {self.n_species} elements expected, got {len(points)}"
            )
        self.sparse = torch.cat(list(points))
        self.sparse_counts = torch.tensor([len(p) for p in points])
        self.weights = nn.Parameter(torch.zeros(len(self.sparse), dtype=self.sparse.dtype))
        self._centre()

    @torch.jit.unused
    def _centre(self) -> None:
        """Mean sparse point of each element, the points from there, and half their squares."""
        parts = self.sparse.split(self.sparse_counts.tolist())
        self.middle = torch.stack([p.sum(0) / max(len(p), 1) for p in parts])
        self.centred = torch.cat([p - mean for p, mean in zip(parts, self.middle)])
        self.halves = 0.5 * self.centred.square().sum(dim=1)

    def _load_from_state_dict(self, state_dict: Dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in FITTED:
            value = state_dict.get(prefix + name)
            if value is not None:
                current = getattr(self, name)
                current.data = current.data.new_zeros(value.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._centre()

    def features(self, graph: Graph) -> Tensor:
        """Normalised power spectra, (n_centers, D)."""
        p = self.spectrum(self.expansion(graph))
        return p / torch.linalg.vector_norm(p, dim=1, keepdim=True)

    def forward(self, graph: Graph) -> Dict[str, Tensor]:
        if self.optimised and graph.vectors.requires_grad:
            return {"energy": self._by_chunks(graph)}
        return {"energy": self._energy(graph)}

    @torch.jit.unused
    def optimise_for_inference(self) -> None:
        """For inference: atoms go through in chunks that fit the cache, each with its gradient at once.

        Memory then grows with the number of edges only. First derivatives stay exact, higher ones are lost.
        """
        super().optimise_for_inference()
        self.optimised = True
        self.sparse = self.sparse[:0].clone()  # the centred points say the same

    def _by_chunks(self, graph: Graph) -> Tensor:
        energies: List[Tensor] = []
        gradients: List[Tensor] = []
        first = 0
        while first < graph.n_centers:
            last = min(first + self.chunk, graph.n_centers)
            part = self._chunk(graph, first, last)
            v = part.vectors.detach().requires_grad_()
            i, j = part.centers, part.neighbors
            e = self._energy(Graph(part.species, i, j, v, part.system, part.n_centers))
            energies.append(e.detach())
            gradient: Optional[Tensor] = None
            if e.requires_grad:
                gradient = torch.autograd.grad([e.sum()], [v], allow_unused=True)[0]
            if gradient is None:
                gradient = torch.zeros_like(v)
            gradients.append(gradient)
            first = last
        if len(energies) == 0:
            return graph.vectors.sum(dim=1)
        # zero, with the gradient of the energy
        change = (torch.cat(gradients) * (graph.vectors - graph.vectors.detach())).sum(dim=1)
        return torch.cat(energies).index_add(0, graph.centers, change)

    def _chunk(self, graph: Graph, first: int, last: int) -> Graph:
        """Centres first … last − 1 alone with their edges; the neighbours stand behind them."""
        bounds = torch.tensor([first, last], device=graph.centers.device)
        ends: List[int] = torch.searchsorted(graph.centers, bounds).tolist()
        i, j = graph.centers[ends[0] : ends[1]] - first, graph.neighbors[ends[0] : ends[1]]
        species = torch.cat([graph.species[first:last], graph.species.index_select(0, j)])
        system = torch.cat([graph.system[first:last], graph.system.index_select(0, j)])
        place = torch.arange(last - first, last - first + j.shape[0], device=j.device)
        return Graph(species, i, place, graph.vectors[ends[0] : ends[1]], system, last - first)

    def _energy(self, graph: Graph) -> Tensor:
        species, vectors, n_centers = graph.species, graph.vectors, graph.n_centers
        p = self.features(graph)
        energy = torch.zeros(n_centers, dtype=vectors.dtype, device=vectors.device)
        counts: List[int] = self.sparse_counts.tolist()
        first = 0
        for index, count in enumerate(counts):
            last = first + count
            if self.n_species == 1:
                energy = energy + self.sum_of_kernels(p, index, first, last)
            else:
                rows = torch.nonzero(species[:n_centers] == index).squeeze(1)
                e = self.sum_of_kernels(p.index_select(0, rows), index, first, last)
                energy = energy.index_add(0, rows, e)
            first = last
        r = torch.linalg.vector_norm(vectors, dim=1)
        if self.n_two_body > 0:
            pair = self.pair_index[species[graph.centers], species[graph.neighbors]]
            e = (self.pair_basis(r) * self.pair_weights.index_select(0, pair)).sum(dim=1)
            energy = energy.index_add(0, graph.centers, 0.5 * e)
        if self.repulsion is not None:
            energy = energy + self.repulsion(graph, r)
        return energy

    def sum_of_kernels(self, p: Tensor, element: int, first: int, last: int) -> Tensor:
        """Σ_m c_m δ² k_m over the sparse points first … last − 1 of one element, (N,)."""
        weights = self.weights[first:last]
        return self.less_one(p, element, first, last) @ weights + weights.sum()

    def less_one(self, p: Tensor, element: int, first: int, last: int) -> Tensor:
        """(p̂ · p̂_m)^ζ − 1, (N, M), of the sparse points first … last − 1 of one element."""
        u = p - self.middle[element]
        t = torch.addmm(self.halves[first:last], u, self.centred[first:last].t(), alpha=-1.0)
        t = t + 0.5 * u.square().sum(dim=1, keepdim=True)  # 1 − p̂ · p̂_m = |p̂ − p̂_m|²/2
        k, power = -t, 1
        while 2 * power <= self.zeta:
            k, power = k * (k + 2.0), 2 * power
        for _ in range(self.zeta - power):
            k = k - t - k * t
        return k

    def kernel(self, p: Tensor, points: Tensor) -> Tensor:
        """(p̂ · p̂_m)^ζ, (N, M)."""
        s = p @ points.t()
        k = s
        for _ in range(self.zeta - 1):
            k = k * s
        return k

    @torch.jit.unused
    def has_variance(self) -> bool:
        return self.posterior.numel() > 0

    @torch.jit.export
    def posterior_features(self, graph: Graph, found: Dict[str, Tensor]) -> Tuple[Tensor, Tensor]:
        """Predictive variance of atomic energies: residual (n_centers,) eV² and features (n_centers, T) eV.

        var E_i = residual_i + |ψ_i|²; of a sum of atoms: Σ residual + |Σ ψ|². The residual is the part of the
        prior that no combination of sparse points describes, and the least variance found by calibration,
        taken as independent between atoms; ψψᵀ is the posterior covariance of what sparse points do describe.
        """
        v = graph.vectors
        residuals: List[Tensor] = [v[:0, 0]]
        features: List[Tensor] = [torch.zeros(0, self.posterior.shape[1], dtype=v.dtype, device=v.device)]
        first = 0
        while first < graph.n_centers:
            last = min(first + self.chunk, graph.n_centers)
            residual, psi = self._posterior(self._chunk(graph, first, last))
            residuals.append(residual)
            features.append(psi)
            first = last
        return torch.cat(residuals), torch.cat(features)

    def _posterior(self, graph: Graph) -> Tuple[Tensor, Tensor]:
        species, vectors, n_centers = graph.species, graph.vectors, graph.n_centers
        p = self.features(graph)
        residual = torch.ones(n_centers, dtype=vectors.dtype, device=vectors.device) * self.prior_variance
        psi = torch.zeros(n_centers, self.posterior.shape[1], dtype=vectors.dtype, device=vectors.device)
        counts: List[int] = self.sparse_counts.tolist()
        first = 0
        for index, count in enumerate(counts):
            part = slice(first, first + count)
            rows = torch.nonzero(species[:n_centers] == index).squeeze(1)
            k = self.less_one(p.index_select(0, rows), index, first, first + count) + 1.0
            residual = residual.index_add(0, rows, -(k @ self.whitening[part]).square().sum(dim=1))
            psi = psi.index_add(0, rows, k @ self.posterior[part])
            first += count
        if self.n_two_body > 0:
            r = torch.linalg.vector_norm(vectors, dim=1)
            pair = self.pair_index[species[graph.centers], species[graph.neighbors]]
            slot = graph.centers * self.pair_weights.shape[0] + pair
            basis = torch.zeros(
                n_centers * self.pair_weights.shape[0], self.n_two_body, dtype=r.dtype, device=r.device
            )
            basis = basis.index_add(0, slot, 0.5 * self.pair_basis(r)).reshape(n_centers, -1)
            psi = psi + basis @ self.pair_posterior
        return residual.clamp_min(0.0) + self.least_variance, psi


def _validate(h: Hyperparameters) -> None:
    positive = {
        name: getattr(h, name)
        for name in (
            "cutoff",
            "cutoff_transition_width",
            "n_max",
            "atom_sigma",
            "zeta",
            "delta",
            "radial_scale",
        )
    }
    positive.update({name: getattr(h, name) for name in ("two_body_width", "two_body_delta")})
    for name, value in positive.items():
        if not value > 0:
            raise BadInput(f"soap-gap: '{name}' must be positive, got {value}")
    if not 0 <= h.l_max <= 10:
        raise BadInput(f"soap-gap: 'l_max' must be 0 to 10, got {h.l_max}")
    if h.n_max > 14:
        raise BadInput(
            f"soap-gap: 'n_max' must be 1 to 14 (more radial functions are linearly dependent), got {h.n_max}"
        )
    if h.cutoff_transition_width > h.cutoff:
        raise BadInput(
            f"soap-gap: 'cutoff_transition_width' must not exceed the cutoff ({h.cutoff} Å), "
            f"got {h.cutoff_transition_width}"
        )
    for name in ("radial_exponent", "two_body"):
        if getattr(h, name) < 0:
            raise BadInput(f"soap-gap: '{name}' must be zero or more, got {getattr(h, name)}")
