"""The wheel of a release brings the compiled code with the extra `lammps`; a checkout compiles its own."""

from __future__ import annotations

import os
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeCode(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if os.environ.get("MLPLUGINS_WITH_NATIVE") == "1":  # set by native/make.py, which makes both wheels
            linux = "sys_platform == 'linux' and platform_machine == 'x86_64'"
            for extra in ("lammps", "all"):  # hatchling writes the dependencies of `all` out
                build_data["dependencies"].append(
                    f"mlplugins-native=={self.metadata.version}; extra == '{extra}' and {linux}"
                )
