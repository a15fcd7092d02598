"""What to doubt about a spectrum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlplugins.analysis.readers._text import Floats
from mlplugins.analysis.spectra.result import Spectrum
from mlplugins.analysis.spectra.settings import WIDTH_CM, Settings

EDGE, AT_EDGE = 0.1, 0.02
"""The highest tenth of the frequencies, and the share of the intensity there that is suspicious."""
HIGHEST_CM = 4200.0
"""Modes of molecules and solids (O–H stretches and their width) are below this."""
WITHOUT_H_CM = 2500.0
"""The same of systems without hydrogen."""
FEW_BLOCKS = 5
"""Blocks below which errors are rough."""
WIDE = 3.0
"""Default widths from which on lines are called wide."""
FLAT = 0.7
"""Median over the maximum of a measured spectrum, whose lines are narrow, that is suspicious."""
APART = 2.0
"""Ratio of the intensities of two runs that is suspicious."""
NOISY = 1e-3
"""Relative scatter of blocks below which their correlation says nothing."""


def doubts(found: Spectrum, settings: Settings, blocks: Floats, symbols: Sequence[str]) -> list[str]:
    """Warnings; `blocks` are the integrals of blocks, `symbols` the elements, if known."""
    texts = []
    light = not symbols or {"H", "D", "T"} & set(symbols)
    highest = HIGHEST_CM if light else WITHOUT_H_CM
    nyquist = float(found.per_cm[-1])
    share = found.main[found.per_cm > (1 - EDGE) * nyquist].sum() / found.main.sum()
    if share > AT_EDGE:
        texts.append(
            f"{100 * share:.2g} % of the intensity lies in the highest tenth of the frequencies, up to "
            f"{nyquist:.0f} cm⁻¹ (Nyquist): faster modes are folded into the spectrum, or the numbers "
            "have too few digits; write samples more "
            "often"
        )
    elif settings.highest_cm is None and nyquist < highest and found.kind.name != "power":
        texts.append(
            f"samples every {found.state.interval_fs:g} fs show nothing above {nyquist:.0f} cm⁻¹: faster "
            "modes (bonds to H up to 4000 cm⁻¹) would be folded into the spectrum; --highest CM says "
            "that there are none"
        )
    if found.blocks < FEW_BLOCKS:
        texts.append(
            f"errors of {found.blocks} {found.blocks_of} only are rough: run longer, or widen the lines"
        )
    if settings.width_cm is None and settings.window_fs is None and found.width_cm > WIDE * WIDTH_CM:
        texts.append(
            f"lines are {found.width_cm:.3g} cm⁻¹ wide, which is what runs of {min(found.length_ps):.3g} "
            "ps allow"
        )
    measured = None if found.experiment is None else found.experiment.values
    if measured is not None and np.median(measured) > FLAT * measured.max():
        texts.append(
            f"experiment: half of its points are above {FLAT:g} of its maximum, as those of a transmittance, "
            "or of an absorbance with its background: expected what is large where light is absorbed"
        )
    texts += _uneven(found, blocks)
    inside = found.per_cm < 5 * found.width_cm
    start = float(found.main[0])
    dense = found.kind.name == "ir" and found.state.volume_a3 is not None  # else the rotation
    if dense and start > 0.5 * found.main[inside].max() and start > 0.02 * found.main.max():
        texts.append(
            "the absorption does not vanish at zero frequency: free charges (their conductivity), or the "
            "dipole of a charged system that "
            "moves"
        )
    return texts


def _uneven(found: Spectrum, blocks: Floats) -> list[str]:
    """Runs of different intensity, and blocks that know of each other."""
    texts = []
    if len(found.runs) > 1:
        spread = max(found.runs) / max(min(found.runs), 1e-300)
        if spread > APART:
            listed = ", ".join(f"{value:.3g}" for value in found.runs)
            texts.append(
                f"the integrated intensities of the runs differ ({listed} {found.integral_unit}): another "
                "system, temperature or unit? Or a mode that keeps its energy for longer than a "
                "run"
            )
    if found.blocks_of != "runs" and len(blocks) >= 8:
        parts = blocks - blocks.mean()
        correlation = float((parts[1:] * parts[:-1]).sum() / max((parts**2).sum(), 1e-300))
        if correlation > 0.5 and blocks.std() > NOISY * blocks.mean():
            texts.append(
                f"neighbouring blocks are alike (correlation {correlation:.2f}): modes exchange energy "
                "more slowly than a block lasts, so the errors are too small; more runs from other "
                "velocities tell"
            )
    return texts
