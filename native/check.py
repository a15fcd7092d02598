"""Check what is released: what the wheels need of the system, where they look for it, what they claim.

    python native/check.py dist/*

`auditwheel` and `twine` must be on PATH.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from mlplugins.ops import installed
from mlplugins.ops.build import OPS_LIBRARY, PLUGIN_LIBRARY, RECORD

GLIBC = (2, 28)
NEEDED = re.compile(
    r"lib(torch|torch_cpu|c10|mlplugins_ops|metatensor|metatensor_torch|metatomic_torch)\.so"
    r"|lib(stdc\+\+\.so\.6|m\.so\.6|gcc_s\.so\.1|c\.so\.6|pthread\.so\.0)|ld-linux-x86-64\.so\.2"
)
"""Libraries that are with torch, metatomic or every Linux; none of MPI, CUDA or Python."""


def main() -> None:
    wheels = [Path(name) for name in sys.argv[1:] if name.endswith(".whl")]
    problems = [f"{wheel.name}: {problem}" for wheel in wheels for problem in _problems(wheel)]
    subprocess.run(["twine", "check", "--strict", *sys.argv[1:]], check=True)
    sys.exit("\n".join(problems) or None)


def _problems(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        archive.extractall(folder)
        libraries = sorted(Path(folder).rglob("*.so"))
        if wheel.name.startswith("mlplugins_native-"):
            records = sorted(Path(folder).rglob(RECORD))
            found = [problem for record in records for problem in _of_build(record)]
            found += [problem for library in libraries for problem in of_library(library)]
            return found + _of_tag(wheel) if records else ["no build in it"]
        named = next(Path(folder).glob("*.dist-info")) / "METADATA"
        native = f"Requires-Dist: mlplugins-native=={wheel.name.split('-')[1]};"
        asked = native in named.read_text(encoding="utf-8")
        return [*map(str, libraries)] + ([] if asked else [f"it lacks '{native} …'"])


def _of_build(record: Path) -> list[str]:
    names = {path.name for path in record.parent.iterdir()}
    problems = [f"{record.parent.name}: {names}"] if names != {OPS_LIBRARY, PLUGIN_LIBRARY, RECORD} else []
    if json.loads(record.read_text(encoding="utf-8"))["sources"] != installed.source_hash():
        problems.append(f"{record.parent.name}: built from other sources than these")
    return problems


def of_library(library: Path) -> list[str]:
    """Search paths, needed libraries and symbol versions of an ELF file."""
    name = f"{library.parent.name}/{library.name}"
    dynamic = _output("readelf", "-dW", str(library))
    paths = ":".join(re.findall(r"R(?:UN)?PATH.*\[(.*)\]", dynamic)).split(":")
    problems = [f"{name}: looks in {path}" for path in paths if not path.startswith("$ORIGIN")]
    needed = re.findall(r"NEEDED.*\[(.*)\]", dynamic)
    problems += [f"{name}: needs {other}" for other in needed if not NEEDED.fullmatch(other)]
    symbols = _output("readelf", "-VW", str(library))
    newest = max(tuple(map(int, found)) for found in re.findall(r"GLIBC_(\d+)\.(\d+)", symbols))
    if newest > GLIBC:
        problems.append(f"{name}: needs glibc {newest[0]}.{newest[1]}")
    if ".debug_info" in _output("readelf", "-SW", str(library)):
        problems.append(f"{name}: not stripped")
    return problems


def _of_tag(wheel: Path) -> list[str]:
    report = _output("auditwheel", "show", str(wheel))
    print(report)
    # torch and metatomic are outside every policy: what counts is the line on versions of symbols
    line = r'constrains the platform tag to "manylinux_(\d+)_(\d+)_x86_64"'
    found = re.search(line, " ".join(report.split()))
    fits = found and tuple(map(int, found.groups())) <= GLIBC
    return [] if fits else ["auditwheel finds another platform than manylinux_2_28"]


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
