"""Version and tag of the wheel mlplugins-native, from the records of the builds in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

TAG = "py3-none-manylinux_2_28_x86_64"
"""No library links libpython; torch's own wheels ask for the same glibc."""


def records(root: str) -> list[dict[str, Any]]:
    """Records of all builds, which must agree in all but torch."""
    paths = sorted(Path(root, "mlplugins_native").glob("torch-*/build.json"))
    if not paths:
        raise RuntimeError("mlplugins_native holds no build: this wheel is made by `make wheels`")
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    alike = [{key: value for key, value in record.items() if key != "torch"} for record in found]
    if any(record != alike[0] for record in alike):
        raise RuntimeError(f"the builds in mlplugins_native differ in more than torch: {found}")
    return found


class Metadata(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        metadata["version"] = records(self.root)[0]["mlplugins"]


class Tag(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        records(self.root)
        build_data["pure_python"] = False
        build_data["tag"] = TAG
