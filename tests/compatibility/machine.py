"""The machine that numbers were made on."""

from pathlib import Path

import torch


def machine() -> str:
    """Processor and torch: on another of either, the last bits of sums may differ."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = sorted({line.partition(":")[2].strip() for line in lines if line.startswith("model name")})
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{' '.join(names)}, {capability}, torch {torch.__version__}"
