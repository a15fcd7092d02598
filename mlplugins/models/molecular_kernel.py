"""Kernel potential of one molecule (KREG, pKREG, KRR-CM, sGDML): a global descriptor, all pairs of atoms.

f(x) = m + Σ_i [a_i (k(x, x_i) − K) + b_i · ∂k(x, x_i)/∂x_i],   k = Σ_P k₀(x, P x_i),

x the descriptor, P the K permutations of equivalent atoms (K Σ a_i is part of m: kernels are close to one,
weights are large and of both signs, so that summing k itself would cost digits). Energies and forces of the
training frames both end in (a, b): a force label of frame i acts through b_i = (∂x_i/∂r_i)ᵀ α_i. Unsorted
descriptors are x_p = c_p / r_p over the pairs p of atoms, with c_p = r_p of the reference geometry (RE), 1
(inverse distances) or Z Z' (Coulomb matrix). Kernels with s = |x − x'|²:  Gaussian exp(−s/2σ²); Matérn-5/2
(1 + √5d/σ + 5s/3σ²) e^(−√5d/σ), d = √s;  Laplacian exp(−Σ|x − x'|/σ).

Dral, Owens, Yurchenko, Thiel, J. Chem. Phys. 146, 244108 (2017) (KREG, pKREG); Rupp et al., Phys. Rev. Lett.
108, 058301 (2012) (KRR-CM); Chmiela et al., Nat. Commun. 9, 3887 (2018) (sGDML).
"""

import math
from dataclasses import dataclass
from typing import Any, Dict, List, Tuple

import torch
from torch import Tensor

from mlplugins.errors import BadInput, nearest
from mlplugins.models.base import Potential, resize_buffers
from mlplugins.models.capabilities import SolvedInClosedForm, WholeMolecule
from mlplugins.nn.kernel_sum import KernelSum
from mlplugins.structures.graph import Graph

TARGETS = "energies+forces"
REFERENCES = [
    "P. O. Dral, A. Owens, S. N. Yurchenko, W. Thiel, J. Chem. Phys. 146, 244108 (2017)",
    "S. Chmiela, H. E. Sauceda, K.-R. Müller, A. Tkatchenko, Nat. Commun. 9, 3887 (2018)",
]

DESCRIPTORS = ("relative-inverse", "inverse", "coulomb-matrix", "sorted-coulomb-matrix")
KERNELS = ("gaussian", "matern52", "laplacian")


@dataclass(frozen=True)
class Hyperparameters:
    """Parameters.

    Attributes:
        descriptor: `relative-inverse` (r_eq/r), `inverse` (1/r), `coulomb-matrix` or
            `sorted-coulomb-matrix` (rows by norm; energies only; the one descriptor that takes mixed
            compositions).
        kernel: `gaussian`, `matern52` or `laplacian` (energies only).
        sigma: length scale in units of the descriptor; None = searched.
        permutations: `none`, `detect` (from the training frames), or a list of permutations of the atoms
            that generate the group, 0-based, e.g. [[0, 1, 2, 4, 3]].
        cutoff: range in which all atoms of a molecule lie, Å; None = from the training frames, generously.
    """

    descriptor: str = "relative-inverse"
    kernel: str = "gaussian"
    sigma: float | None = None
    permutations: str | List[List[int]] = "none"
    cutoff: float | None = None


class Model(SolvedInClosedForm, WholeMolecule, Potential):
    """A molecular kernel model; `elements` in the order of the species index. Without a fit its energy is 0.

    Attributes (buffers; n atoms, P pairs or matrix entries, K permutations, M training points):
        species: (n,) of the molecule; sorted descriptors: (largest number of atoms,), unused values.
        charges: (elements,) atomic numbers; for Coulomb matrices.
        scale: (P,) c_p, the same for equivalent pairs.
        shift: (P,) subtracted from descriptors against round-off, the same for equivalent pairs.
        pairs: (K, P) permutations of the pairs.
        points: (M, P) descriptors of the training points, shifted.
        values: (M,) a, or (0,) if no energies were learned.
        slopes: (M, P) b, or (0, P) if only energies were learned.
        offset: (1,) m, eV.

    Raises:
        BadInput: an unknown descriptor or kernel, a length that is not positive.
    """

    solver = "molecular_kernel"
    species: Tensor
    charges: Tensor
    scale: Tensor
    shift: Tensor
    pairs: Tensor
    points: Tensor
    values: Tensor
    slopes: Tensor
    offset: Tensor
    squares: Tensor
    products: Tensor

    def __init__(self, elements: List[str], hyperparameters: Hyperparameters) -> None:
        _require(hyperparameters)
        super().__init__(hyperparameters.cutoff or 1.0)
        self.takes_molecules = False
        self.kernel = hyperparameters.kernel
        self.sorted = hyperparameters.descriptor == "sorted-coulomb-matrix"
        self.sigma = float(hyperparameters.sigma or 1.0)
        real = torch.float64
        self.register_buffer("species", torch.zeros(0, dtype=torch.long))
        self.register_buffer("charges", torch.zeros(len(elements), dtype=real))
        self.register_buffer("scale", torch.zeros(0, dtype=real))
        self.register_buffer("shift", torch.zeros(0, dtype=real))
        self.register_buffer("pairs", torch.zeros(1, 0, dtype=torch.long))
        self.register_buffer("points", torch.zeros(0, 0, dtype=real))
        self.register_buffer("values", torch.zeros(0, dtype=real))
        self.register_buffer("slopes", torch.zeros(0, 0, dtype=real))
        self.register_buffer("offset", torch.zeros(1, dtype=real))
        self.register_buffer("squares", torch.zeros(0, dtype=real), persistent=False)  # |x_i|²
        self.register_buffer("products", torch.zeros(0, dtype=real), persistent=False)  # b_i · x_i
        self.optimised = False
        self.sum = KernelSum(self.kernel, self.sigma)

    @torch.jit.unused
    def _load_from_state_dict(self, state_dict: Dict[str, Tensor], prefix: str, *args: Any) -> None:
        resize_buffers(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.prepare()

    @torch.jit.unused
    def prepare(self) -> None:
        """Compute derived buffers; call it after the fitted ones were set."""
        self.squares = self.points.square().sum(1)
        self.products = (self.points * self.slopes).sum(1) if len(self.slopes) else self.squares[:0]

    @torch.jit.unused
    def optimise_for_inference(self) -> None:
        """Compute gradients with the energy, without a graph: several times faster, no second derivatives."""
        if self.kernel == "laplacian" or len(self.points) == 0:
            return
        self.sum.fill(self.points, self.values, self.slopes)
        self.optimised = True
        self.takes_molecules = not self.sorted

    @torch.jit.export
    def require_molecules(self, species: Tensor, n_atoms: Tensor) -> None:
        other = bool((n_atoms != self.species.shape[0]).any())
        if other or not torch.equal(species, self.species.repeat(n_atoms.shape[0])):
            raise RuntimeError(
                "the atoms are not those of the molecule that this model was trained on, in the order of the "
                "training frames"
            )

    @torch.jit.export
    def molecules(self, positions: Tensor) -> Tuple[Tensor, Tensor]:
        energy, gradient, farthest = self.sum.molecules(positions, self.scale, self.shift, self.pairs)
        if float(farthest) >= self.cutoff:
            raise RuntimeError(self.too_far())
        return energy + self.offset, gradient

    def forward(self, graph: Graph) -> Dict[str, Tensor]:
        if graph.n_centers != graph.species.shape[0]:
            raise RuntimeError("a molecular kernel needs the whole molecule on one rank, without ghost atoms")
        if graph.n_centers == 0 or self.points.shape[0] == 0:
            v = graph.vectors
            return {"energy": torch.zeros(graph.n_centers, dtype=v.dtype, device=v.device)}
        x, n_atoms = self.descriptors(graph)
        energy = (self.predict(x) + self.offset) / n_atoms.to(x.dtype)
        return {"energy": energy.index_select(0, graph.system)}

    def descriptors(self, graph: Graph) -> Tuple[Tensor, Tensor]:
        """Shifted descriptors (S, P) of S molecules and their numbers of atoms (S,).

        Raises:
            RuntimeError: another composition or order of atoms, a pair out of range, periodic images.
        """
        species, centers, neighbors, system = graph.species, graph.centers, graph.neighbors, graph.system
        n_systems = int(system.max()) + 1
        n_atoms = torch.bincount(system, minlength=n_systems)  # (S,)
        if not self.sorted:
            self.require_molecules(species, n_atoms)
        elif int(n_atoms.max()) > self.species.shape[0]:
            raise RuntimeError(
                f"a molecule of {int(n_atoms.max())} atoms; the model was trained on up to "
                f"{self.species.shape[0]}"
            )
        kept = torch.nonzero(centers < neighbors).squeeze(1)
        wanted = int((n_atoms * (n_atoms - 1)).sum()) // 2
        if bool((centers == neighbors).any()) or kept.shape[0] > wanted:
            raise RuntimeError(
                "periodic images are within the range of this molecular model: make the cell larger"
            )
        if kept.shape[0] < wanted:
            raise RuntimeError(self.too_far())
        first = (n_atoms.cumsum(0) - n_atoms).index_select(0, system)  # (N,)
        i, j = centers.index_select(0, kept), neighbors.index_select(0, kept)
        r = torch.linalg.vector_norm(graph.vectors.index_select(0, kept), dim=1)
        a, b, molecule = i - first.index_select(0, i), j - first.index_select(0, i), system.index_select(0, i)
        if self.sorted:
            charges = self.charges.index_select(0, species)
            return self.sorted_matrix(charges, (system, i, j), r, n_systems), n_atoms
        p = self.points.shape[1]
        place = molecule * p + pair_index(a, b, self.species.shape[0])
        inverse = torch.zeros(n_systems * p, dtype=r.dtype, device=r.device)
        inverse = inverse.index_add(0, place, 1.0 / r).reshape(-1, p)
        return self.scale * inverse - self.shift, n_atoms

    def too_far(self) -> str:
        return (
            f"atoms of the molecule are farther apart than {self.cutoff} A, the range of this model (a "
            "dissociated or a second molecule?)"
        )

    def sorted_matrix(
        self, charges: Tensor, atoms: Tuple[Tensor, Tensor, Tensor], r: Tensor, n_systems: int
    ) -> Tensor:
        """Lower triangles (S, P) of Coulomb matrices 0.5 Z^2.4, Z Z'/r (Å), rows by falling norm, padded by
        zeros."""
        system, i, j = atoms
        size = self.species.shape[0]
        count = torch.bincount(system, minlength=n_systems)
        local = torch.arange(system.shape[0], device=r.device) - (count.cumsum(0) - count).index_select(
            0, system
        )
        row = system * size + local  # (N,) row of each atom in the stack of padded matrices
        entry = charges.index_select(0, i) * charges.index_select(0, j) / r
        flat = torch.zeros(n_systems * size * size, dtype=r.dtype, device=r.device)
        flat = flat.index_add(0, row.index_select(0, i) * size + local.index_select(0, j), entry)
        flat = flat.index_add(0, row.index_select(0, j) * size + local.index_select(0, i), entry)
        flat = flat.index_add(0, row * size + local, 0.5 * charges.pow(2.4))
        matrix = flat.reshape(n_systems, size, size)
        order = torch.argsort(matrix.detach().square().sum(2), dim=1, descending=True, stable=True)
        matrix = torch.take_along_dim(matrix, order.unsqueeze(2), 1)
        matrix = torch.take_along_dim(matrix, order.unsqueeze(1), 2)
        lower = torch.tril_indices(size, size, device=r.device)
        return matrix[:, lower[0], lower[1]] - self.shift

    def predict(self, x: Tensor) -> Tensor:
        """f(x) − m (S,) of shifted descriptors (S, P)."""
        if self.optimised:
            energy, gradient = self.energy_and_gradient(x.detach())
            # linear in x, with the right value and slope
            return energy + ((x - x.detach()) * gradient).sum(1)
        copies = self.pairs.shape[0]
        q = (
            x if copies == 1 else x.index_select(1, self.pairs.reshape(-1)).reshape(-1, x.shape[1])
        )  # (S K, P)
        if self.kernel == "laplacian":
            k = torch.expm1(-torch.cdist(q, self.points, p=1.0) / self.sigma)
            return torch.mv(k, self.values).reshape(-1, copies).sum(1)
        s = q.square().sum(1, keepdim=True) + self.squares - 2.0 * torch.mm(q, self.points.t())  # (S K, M)
        k, slope = kernel_and_slope(self.kernel, self.sigma, s.clamp_min(0.0))
        total = torch.zeros(q.shape[0], dtype=x.dtype, device=x.device)
        if self.values.shape[0] > 0:
            total = torch.mv(k, self.values)
        if self.slopes.shape[0] > 0:
            total = total + (2.0 * slope * (self.products - torch.mm(q, self.slopes.t()))).sum(1)
        return total.reshape(-1, copies).sum(1)

    def energy_and_gradient(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """f − m (S,) and its gradient (S, P); after `optimise_for_inference`."""
        copies = self.pairs.shape[0]
        if copies == 1:
            energy, gradient = self.sum(x)
            return energy, gradient
        order = self.pairs.reshape(-1)
        energy, gradient = self.sum(x.index_select(1, order).reshape(-1, x.shape[1]))
        back = torch.zeros_like(x).index_add_(1, order, gradient.reshape(x.shape[0], -1))
        return energy.reshape(-1, copies).sum(1), back


def pair_index(a: Tensor, b: Tensor, n: int) -> Tensor:
    """Place of the pair a < b of n atoms in the row-major upper triangle.

    >>> pair_index(torch.tensor([0, 0, 1]), torch.tensor([1, 2, 2]), 3)
    tensor([0, 1, 2])
    """
    return a * n - torch.div(a * (a + 1), 2, rounding_mode="floor") + b - a - 1


def kernel_and_slope(kernel: str, sigma: float, s: Tensor) -> Tuple[Tensor, Tensor]:
    """k(s) − 1 and dk/ds of the Gaussian or Matérn-5/2 kernel, s the squared distance."""
    if kernel == "gaussian":
        k = torch.expm1(s * (-0.5 / sigma**2))
        return k, (k + 1.0) * (-0.5 / sigma**2)
    # the floor keeps the derivative of the root finite; it changes k by less than round-off
    u = torch.sqrt(s * (5.0 / sigma**2) + 1e-18)
    loss = torch.expm1(-u)
    rise = u + u * u / 3.0
    return rise + (1.0 + rise) * loss, (1.0 + u) * (1.0 + loss) * (-5.0 / (6.0 * sigma**2))


def kernel_curvature(kernel: str, sigma: float, s: Tensor) -> Tensor:
    """d²k/ds²."""
    if kernel == "gaussian":
        return torch.exp(s * (-0.5 / sigma**2)) * (0.25 / sigma**4)
    return torch.exp(-torch.sqrt(s * (5.0 / sigma**2))) * (25.0 / (12.0 * sigma**4))


def _require(hyperparameters: Hyperparameters) -> None:
    for name, valid in (("descriptor", DESCRIPTORS), ("kernel", KERNELS)):
        value = getattr(hyperparameters, name)
        if value not in valid:
            raise BadInput(f"{name}: {nearest(value, valid)}")
    for name in ("sigma", "cutoff"):
        value = getattr(hyperparameters, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise BadInput(f"{name}: expected a positive number, got {value}")
    words = hyperparameters.permutations
    if isinstance(words, str) and words not in ("none", "detect"):
        raise BadInput(f"permutations: expected none, detect or a list of permutations, got '{words}'")
    if hyperparameters.descriptor == "sorted-coulomb-matrix" and words != "none":
        raise BadInput(
            "permutations: a sorted Coulomb matrix does not depend on the order of the atoms; leave it 'none'"
        )
