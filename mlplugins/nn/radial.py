"""Radial basis, cutoff envelope and the network that turns distances into convolution weights."""

import math
from typing import List, Optional, Tuple

import torch
from torch import Tensor, nn

from mlplugins.nn.irreps import normalize2mom
from mlplugins.nn.modes import Foldable
from mlplugins.ops.reference import perceptron

SILU_NORM: float = float(normalize2mom(torch.nn.functional.silu).cst)
"""Factor that gives silu(x), x ~ N(0, 1), unit second moment."""

TANH_NORM: float = float(normalize2mom(torch.tanh).cst)
"""The same for tanh(x)."""


def polynomial_cutoff(x: Tensor, p: int) -> Tensor:
    """Envelope u(x) = 1 − (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) − p(p+1)/2 x^(p+2), 0 beyond x = 1.

    Value, first and second derivative vanish at the cutoff (Gasteiger et al. 2020, DimeNet, eq. 8).

    >>> polynomial_cutoff(torch.tensor([0.0, 1.0, 1.5]), 6)
    tensor([1., 0., 0.])
    """
    a = (p + 1.0) * (p + 2.0) / 2.0
    b = p * (p + 2.0)
    c = p * (p + 1.0) / 2.0
    x = x.clamp_max(1.0)
    return 1.0 - x**p * (a - x * (b - c * x))


def polynomial_cutoff_slope(x: Tensor, p: int) -> Tensor:
    """u'(x) = −p (p+1)(p+2)/2 x^(p−1) (1 − x)² of `polynomial_cutoff`.

    >>> polynomial_cutoff_slope(torch.tensor([0.5, 1.0, 1.5]), 2)
    tensor([-1.5000, -0.0000, -0.0000])
    """
    x = x.clamp_max(1.0)
    return (-0.5 * p * (p + 1.0) * (p + 2.0)) * x ** (p - 1) * (1.0 - x) ** 2


def xplor_cutoff(x: Tensor, onset: float) -> Tensor:
    """Envelope u(x) = (1 − x²)² (1 + 2x² − 3a²) / (1 − a²)³ for a < x < 1, 1 below a, 0 beyond 1.

    Value and first derivative are continuous (X-PLOR's switching function; SevenNet's option `XPLOR`).

    >>> xplor_cutoff(torch.tensor([0.5, 1.0, 1.5]), 0.9)
    tensor([1., 0., 0.])
    """
    x2, a2 = x * x, onset * onset
    switch = (1.0 - x2) ** 2 * (1.0 + 2.0 * x2 - 3.0 * a2) / (1.0 - a2) ** 3
    switch = torch.where(x < 1.0, switch, torch.zeros_like(x))
    return torch.where(x < onset, torch.ones_like(x), switch)


def xplor_cutoff_slope(x: Tensor, onset: float) -> Tensor:
    """u'(x) = 12 x (1 − x²) (a² − x²) / (1 − a²)³ of `xplor_cutoff` for a < x < 1, else 0.

    >>> xplor_cutoff_slope(torch.tensor([0.5, 0.8, 1.5]), 0.6)
    tensor([ 0.0000, -3.6914, -0.0000])
    """
    a2 = onset * onset
    x2 = (x * x).clamp(a2, 1.0)
    return 12.0 / (1.0 - a2) ** 3 * x * (1.0 - x2) * (a2 - x2)


def quintic_switch(x: Tensor, onset: float) -> Tensor:
    """1 below `onset`, 0 beyond x = 1; value, first and second derivative are continuous.

    >>> quintic_switch(torch.tensor([0.5, 0.9, 1.0, 1.5], dtype=torch.float64), 0.8)
    tensor([1.0000, 0.5000, 0.0000, 0.0000], dtype=torch.float64)
    """
    t = ((x - onset) / (1.0 - onset)).clamp(0.0, 1.0)
    return 1.0 - t**3 * (10.0 - t * (15.0 - 6.0 * t))


class BesselBasis(nn.Module):
    """Radial basis B_n(r) = √(2/r_c) sin(b_n π r / r_c) / r, times an envelope.

    (NequIP, eq. 6; the roots b_n start at n and are trained.) In float64 whatever r is: in float32 the phases
    b_n π r / r_c would lose 1e-6 of the forces.

    Args:
        cutoff: r_c, Å.
        n_basis: number of functions.
        envelope_power: p of the polynomial envelope.
        xplor_onset: where the XPLOR envelope starts, Å; it then replaces the polynomial one.
    """

    def __init__(
        self,
        cutoff: float,
        n_basis: int = 8,
        envelope_power: int = 6,
        xplor_onset: Optional[float] = None,
    ) -> None:
        super().__init__()
        self.cutoff = float(cutoff)
        self.envelope_power = int(envelope_power)
        self.xplor = xplor_onset is not None
        self.onset = 0.0 if xplor_onset is None else float(xplor_onset) / self.cutoff
        self.prefactor = math.sqrt(2.0 / cutoff)
        self.roots = nn.Parameter(torch.arange(1, n_basis + 1, dtype=torch.float64) * math.pi)

    def forward(self, r: Tensor) -> Tensor:
        exact = r.to(torch.float64)  # (E,)
        x = exact / self.cutoff
        if self.xplor:
            envelope = xplor_cutoff(x, self.onset)
        else:
            envelope = polynomial_cutoff(x, self.envelope_power)
        return (self.waves(exact) * envelope.unsqueeze(1)).to(r.dtype)

    @torch.jit.export
    def slopes(self, r: Tensor) -> Tensor:
        """d basis / d r, (E, n_basis), without a graph."""
        exact, roots = r.detach().to(torch.float64).unsqueeze(1), self.roots.detach()  # (E, 1), (n_basis,)
        x = exact / self.cutoff
        if self.xplor:
            u, du = xplor_cutoff(x, self.onset), xplor_cutoff_slope(x, self.onset) / self.cutoff
        else:
            u = polynomial_cutoff(x, self.envelope_power)
            du = polynomial_cutoff_slope(x, self.envelope_power) / self.cutoff
        phase = x * roots
        along = torch.cos(phase) * (roots * (u / self.cutoff)) + torch.sin(phase) * (du - u / exact)
        return (along * (self.prefactor / exact)).to(r.dtype)

    def waves(self, r: Tensor) -> Tensor:
        """The Bessel functions without the envelope, (E, n_basis)."""
        return self.prefactor * torch.sin((r / self.cutoff).unsqueeze(1) * self.roots) / r.unsqueeze(1)


class RadialMLP(Foldable, nn.Module):
    """Perceptron without biases, basis → weights; silu normalised so that unit variance passes through.

    Without biases a zero basis (r = cutoff) gives zero weights: the potential is smooth at the cutoff.
    """

    __constants__ = ["folded"]

    def __init__(self, widths: List[int]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(
            [nn.Parameter(torch.randn(a, b, dtype=torch.float64)) for a, b in zip(widths[:-1], widths[1:])]
        )
        self.silu_norm = SILU_NORM
        self.folded = False

    @torch.jit.unused
    def fold(self) -> None:
        """Multiply the gains into the weights, once and for all: for inference."""
        with torch.no_grad():
            for weight, matrix in zip(self.weights, self.matrices()):
                weight.copy_(matrix)
        self.folded = True

    def matrices(self) -> List[Tensor]:
        """The matrices of the layers, gains included."""
        scaled: List[Tensor] = []
        for index, weight in enumerate(self.weights):
            if self.folded:
                scaled.append(weight)
            else:
                scaled.append(weight * gain(index, weight.shape[0], self.silu_norm))
        return scaled

    def forward(self, x: Tensor) -> Tensor:
        return perceptron(x, self.matrices())

    def readout(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """The result, and the inputs of all layers side by side, whose weights it depends on."""
        inputs = [x]
        matrices = self.matrices()
        for matrix in matrices[:-1]:
            x = torch.nn.functional.silu(x @ matrix)
            inputs.append(x)
        return x @ matrices[-1], torch.cat(inputs, dim=1)


class BiasedMLP(RadialMLP):
    """The same with constants behind every matrix but the first: a readout, not a radial network."""

    def __init__(self, widths: List[int]) -> None:
        super().__init__(widths)
        self.biases = nn.ParameterList(
            [nn.Parameter(torch.zeros(width, dtype=torch.float64)) for width in widths[2:]]
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(x)[0]

    def readout(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """The result, and the inputs of all layers side by side."""
        matrices, inputs = self.matrices(), [x]
        x = x @ matrices[0]
        for index, bias in enumerate(self.biases):
            inputs.append(torch.nn.functional.silu(x))
            x = inputs[-1] @ matrices[index + 1] + bias
        return x, torch.cat(inputs, dim=1)


class NormedMLP(nn.Module):
    """Perceptron with biases and a layer norm before every silu (eSEN; Fu et al., arXiv 2502.12147).

    Not zero for a zero basis: its result takes the envelope.
    """

    def __init__(self, widths: List[int]) -> None:
        super().__init__()
        layers: List[nn.Module] = []
        for a, b in zip(widths[:-1], widths[1:]):
            if layers:
                layers += [nn.LayerNorm(a), nn.SiLU()]
            layers.append(nn.Linear(a, b))
        self.layers = nn.Sequential(*layers).to(torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


def gain(layer: int, fan_in: int, silu_norm: float) -> float:
    """Factor of a layer's weights that preserves unit variance."""
    return (silu_norm if layer > 0 else 1.0) / math.sqrt(fan_in)


def radial_slopes(basis: Tensor, r: Tensor) -> Tensor:
    """d basis / d r (U, B) of functions (U, B) of the distances r (U,); zero where r needs no gradient.

    The derivative of Σ_b v_b d basis_b / d r with respect to v: two passes, however many functions.

    >>> r = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> radial_slopes(torch.stack([r, r**2], dim=1), r)
    tensor([[1., 2.],
            [1., 4.]])
    """
    if not (r.requires_grad and basis.requires_grad):
        return torch.zeros_like(basis)
    v = torch.ones_like(basis).requires_grad_()
    along: List[Optional[Tensor]] = [v]
    product = torch.autograd.grad([basis], [r], along, create_graph=True)[0]  # (U,)
    slope: Optional[Tensor] = None
    if product is not None:
        slope = torch.autograd.grad([product.sum()], [v], retain_graph=True)[0]
    return torch.zeros_like(basis) if slope is None else slope


class NoBasis(nn.Module):
    """No functions, (U, 0): stands for the basis where radial tables, functions of the distance, are used."""

    def forward(self, r: Tensor) -> Tensor:
        return torch.zeros(r.shape[0], 0, dtype=r.dtype, device=r.device)

    @torch.jit.export
    def slopes(self, r: Tensor) -> Tensor:
        return self.forward(r)

    @torch.jit.export
    def waves(self, r: Tensor) -> Tensor:
        return self.forward(r)
