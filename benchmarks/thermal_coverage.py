"""How often 95 % intervals of κ hold the truth: fluxes of known spectral density at zero frequency.

    python benchmarks/thermal_coverage.py [REPETITIONS] [FLUX …]

Beside `mlplugins.analysis.cepstrum` the cepstral analysis of Ercole, Marcolongo and Baroni (2017), with the
criterion of Akaike on the whole spectrum and up to the frequency below which 90 % of the variance is.
"""

from __future__ import annotations

import sys

import numpy as np
from scipy import fft, special

from mlplugins.analysis.cepstrum import POWER, cepstrum, spectra
from mlplugins.testing.fluxes import density_at_zero, ornstein_uhlenbeck

FLUXES = {
    "tau 3": [(3.0, 1.0)],
    "tau 10": [(10.0, 1.0)],
    "tau 50": [(50.0, 1.0)],
    "tau 5 and 80": [(5.0, 1.0), (80.0, 0.3)],
    "tau 2 and 30": [(2.0, 3.0), (30.0, 0.2)],
    "2, 15 and 100": [(2.0, 2.0), (15.0, 0.3), (100.0, 0.03)],
}
SAMPLES = ((4000, 1), (20000, 1), (20000, 4))
Z = 1.959964


def akaike(periodogram: np.ndarray, degrees: float) -> tuple[float, float]:
    """ln S(0) and its error with as many coefficients as Akaike's criterion says."""
    logs = np.log(periodogram) - (special.digamma(degrees) - np.log(degrees))
    half = np.concatenate([logs[:1], logs])
    n = 2 * (len(half) - 1)
    coefficients = fft.dct(half, type=1) / n
    noise = float(special.polygamma(1, degrees))
    tail = np.cumsum((coefficients**2 * n / noise)[::-1])[::-1]
    number = 1 + int(np.argmin(tail[1 : len(half) // 3] + 2.0 * np.arange(1, len(half) // 3)))
    return coefficients[0] + 2 * coefficients[1:number].sum(), np.sqrt(noise * (4 * number - 2) / n)


def main() -> None:
    """Print a row for every flux and length."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print("flux           samples runs |  ours: held  error | Akaike, 90 %: held  error | all: held  error")
    for name in sys.argv[2:] or FLUXES:
        parts = FLUXES[name]
        truth = np.log(density_at_zero(parts))
        for n, runs in SAMPLES:
            generator = np.random.default_rng(5)
            rows = []
            for _ in range(repetitions):
                flux = ornstein_uhlenbeck(generator, (n, 3 * runs), parts)
                power = spectra(flux.T[:, :, None], 1.0)
                count = int(np.searchsorted(np.cumsum(power) / power.sum(), POWER)) + 1
                ours = cepstrum(power, 1.0 / n, 3.0 * runs)
                others = (akaike(part, 3.0 * runs) for part in (power[:count], power))
                ends = [(zero - Z * error, zero + Z * error) for zero, error in others]
                rows.append([(ours.low, ours.high), *ends])
            table = np.array(rows)
            held = ((table[..., 0] < truth) & (truth < table[..., 1])).mean(axis=0)
            errors = np.ptp(table, axis=2).mean(axis=0) / (2 * Z)
            numbers = " | ".join(f"{h:6.3f}  {e:6.3f}" for h, e in zip(held, errors))
            print(f"{name:14s} {n:7d} {runs:4d} | {numbers}", flush=True)


if __name__ == "__main__":
    main()
