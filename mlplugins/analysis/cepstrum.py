"""Spectral density of a flux at zero frequency, from the logarithm of its periodogram, with an interval.

The periodogram of a flux scatters about its spectral density S(f) as χ², whatever the length of the run, and
its logarithm about ln S with known mean and variance. Cepstral analysis (L. Ercole, A. Marcolongo and
S. Baroni, Sci. Rep. 7, 15835 (2017)) expands ln S in cosines of f and keeps as many as Akaike's criterion
says. The choice scatters more than the error allows for, and a narrow peak at zero is cut off. Here the
cosines

    ln S(f) = Σ_n b_n cos nθ,   θ = π asinh(f/f₀)/asinh(f_max/f₀),   b_n ~ N(0, A²/n²ᵖ) for n > 0,

have a prior that prefers smooth spectra, θ resolves low frequencies as finely as high ones, and the result is
the average over f₀, A and p. No such prior is right for every flux: with their evidence as weights, a slow
part that is weak in the spectrum would be smoothed away, and its absence believed. The weights are therefore
the root of the evidence (a learning rate of ½, P. Grünwald and T. van Ommen, Bayesian Anal. 12, 1069 (2017)),
and the interval is that of the mixture: it holds what rougher spectra of lesser weight say. Further fluxes
(of particles) are projected out: 1/(S⁻¹)₀₀ of the matrix of cross-spectra takes the place of S (R. Bertossa
et al., Phys. Rev. Lett. 122, 255901 (2019)). `benchmarks/thermal_coverage.py` counts how often intervals hold
the truth, with the criterion of Akaike beside it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, linalg, optimize, special

from mlplugins.analysis.value import LEVEL

Floats = NDArray[np.float64]
FEWEST = 64
"""Frequencies that are analysed at least."""
POWER = 0.9
"""Part of the variance of the flux below the highest frequency that is analysed."""
BIN = 0.06
"""Width of the bins in which the periodogram is averaged first, of their frequency."""
TERMS, POWERS_OF_N = 30, (1.5, 2.0)
"""Cosines, and values of p: how fast they fall, A/nᵖ."""
LEARNING_RATE = 0.5
"""Power of the evidence that is the weight of a model."""
WIDTHS, LOWEST = 8, 1e-3
"""Values of f₀, from this share of the highest frequency (and three of the lowest) up to it."""
FLOOR = 0.05
"""Of the error of ln S in a bin: it need not be constant there."""
SIZES = (0.3, 1.0, 3.0, 10.0)
"""Values of A."""
CONSTANT = 1e4
"""Prior variance of b₀: none, in effect."""


@dataclass(frozen=True)
class Cepstrum:
    """ln S(0) and how it was found.

    Attributes:
        log_zero: ln S(0), of the unit of S.
        low, high: ends of its 95 % interval.
        frequency: (B,) of the bins, in one over the unit of time.
        spectrum: (B,), the periodogram averaged in them, free of the bias of the logarithm.
        smooth: (B,), the density.
        width: f₀, averaged.
    """

    log_zero: float
    low: float
    high: float
    frequency: Floats
    spectrum: Floats
    smooth: Floats
    width: float

    @property
    def error(self) -> float:
        """Of ln S(0): the standard error of a normal distribution with as long an interval."""
        return float((self.high - self.low) / (2 * special.ndtri(0.5 + LEVEL / 2)))


def spectra(segments: Floats, interval: float) -> Floats:
    """Periodogram (F,) of the first flux, the others projected out, for f = k/(N interval), k = 1 … N/2 − 1.

    Args:
        segments: (realisations, N, M): of each run and Cartesian component, M fluxes.
        interval: between samples.

    Of one flux it is the mean of |Σ_t J e^(−2πift)|² interval/N; of several it is 1/(S⁻¹)₀₀ of that matrix
    times ℓ/(ℓ − M + 1), which has the same mean.
    """
    return power(transformed(segments, interval))


def transformed(segments: Floats, interval: float) -> NDArray[np.complex128]:
    """Fourier components (realisations, F, M), of which `power` makes what `spectra` returns."""
    realisations, n, fluxes = segments.shape
    found = np.empty((realisations, (n + 1) // 2 - 1, fluxes), dtype=np.complex128)
    for k, m in np.ndindex(realisations, fluxes):  # one at a time fits into the cache
        series = segments[k, :, m]
        found[k, :, m] = fft.rfft(series - series.mean())[1 : (n + 1) // 2]
        found[k, :, m] *= np.sqrt(interval / n)
    return found


def power(waves: NDArray[np.complex128]) -> Floats:
    """`spectra` of Fourier components, of all runs and axes or some of them."""
    n_runs, _, n_fluxes = waves.shape
    if n_fluxes == 1:
        squares: Floats = (waves.real**2 + waves.imag**2).mean(axis=0)[:, 0]
        return squares
    scale = np.sqrt((np.abs(waves) ** 2).mean(axis=(0, 1)))  # units that differ by powers of ten
    waves = waves / scale
    matrix = np.einsum("rfa,rfb->fab", waves, waves.conj()) / n_runs
    reduced: Floats = 1.0 / np.linalg.inv(matrix)[:, 0, 0].real
    return reduced * scale[0] ** 2 * n_runs / (n_runs - n_fluxes + 1)


def cepstrum(
    periodogram: Floats, interval_of_f: float, degrees: float, highest: float | None = None
) -> Cepstrum:
    """S(0) of a periodogram.

    Args:
        periodogram: (F,) from `spectra`.
        interval_of_f: between its frequencies, the first of which it is.
        degrees: ν, half of the degrees of freedom of each frequency.
        highest: frequency up to which it is analysed; None: that below which 90 % of the variance is.

    >>> noise = np.random.default_rng(1).normal(size=(3, 20000, 1))  # white: S = 1
    >>> found = cepstrum(spectra(noise, 1.0), 1 / 20000, 3.0)
    >>> found.low < 0 < found.high < found.low + 0.6
    True
    """
    if highest is None:
        share = np.cumsum(periodogram) / periodogram.sum()
        count = int(np.searchsorted(share, POWER)) + 1
    else:
        count = int(highest / interval_of_f)
    f, s, number = _binned(periodogram[: max(count, FEWEST)], interval_of_f)
    logs = np.log(s) - (special.digamma(degrees * number) - np.log(degrees * number))
    variance = special.polygamma(1, degrees * number) + FLOOR**2
    level = float(np.average(logs, weights=1.0 / variance))  # the prior of b₀ must not know the unit
    n = np.arange(TERMS)
    models = []
    for width in np.geomspace(max(LOWEST * f[-1], 3 * f[0]), f[-1], WIDTHS):
        theta = np.pi * np.arcsinh(f / width) / np.arcsinh(f[-1] / width)
        cosines = np.cos(np.outer(theta, n))
        weighted = cosines / variance[:, None]
        normal, right = cosines.T @ weighted, weighted.T @ (logs - level)
        for fall, size in itertools.product(POWERS_OF_N, SIZES):
            prior = np.concatenate([[CONSTANT], size**2 / n[1:] ** (2 * fall)])
            models.append((width, *_solved(cosines, normal, right, prior)))
    widths, evidence, zeros, variances, curves = (np.array(part) for part in zip(*models, strict=True))
    weight = np.exp(LEARNING_RATE * (evidence - evidence.max()))
    weight /= weight.sum()
    zero = float(weight @ zeros)
    ends = [_quantile(weight, zeros, np.sqrt(variances), 0.5 + sign * LEVEL / 2) for sign in (-1, 1)]
    width = float(np.exp(weight @ np.log(widths)))
    low, high = min(ends[0], zero), max(ends[1], zero)
    curve = np.exp(level + weight @ curves)
    return Cepstrum(level + zero, level + low, level + high, f, np.exp(logs), curve, width)


def _quantile(weight: Floats, means: Floats, errors: Floats, share: float) -> float:
    """Of a mixture of normal distributions.

    >>> round(_quantile(np.ones(2) / 2, np.zeros(2), np.ones(2), 0.975), 4)
    1.96
    """
    reach = 8.0 * errors
    found = optimize.brentq(
        lambda x: float(weight @ special.ndtr((x - means) / errors)) - share,
        float((means - reach).min()),
        float((means + reach).max()),
    )
    return float(found)


def _binned(periodogram: Floats, interval: float) -> tuple[Floats, Floats, Floats]:
    """Mean frequency and periodogram of each bin, and how many frequencies are in it."""
    edges = [0]
    while edges[-1] < len(periodogram):
        edges.append(min(edges[-1] + max(1, int((edges[-1] + 1) * BIN)), len(periodogram)))
    first, number = np.array(edges[:-1]), np.diff(np.array(edges)).astype(np.float64)
    mean = np.add.reduceat(periodogram, first) / number
    return interval * (first + 0.5 * (number + 1)), mean, number


def _solved(
    cosines: Floats, normal: Floats, right: Floats, prior: Floats
) -> tuple[float, float, float, Floats]:
    """Logarithm of the evidence, ln S(0), its variance, and ln S of a linear model with Gaussian prior."""
    factor = np.linalg.cholesky(normal + np.diag(1.0 / prior))
    both = linalg.solve_triangular(factor, np.column_stack([right, np.ones(len(prior))]), lower=True)
    data, ones = both.T  # all cosines are one at f = 0
    evidence = 0.5 * (data @ data) - np.log(np.diag(factor)).sum() - 0.5 * np.log(prior).sum()
    coefficients = linalg.solve_triangular(factor.T, data)
    return float(evidence), float(ones @ data), float(ones @ ones), cosines @ coefficients
