"""What the i-PI tests share: starting i-PI and drivers."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

from mlplugins.cli.main import main

BIN = Path(sys.executable).parent
LIMIT = 90  # seconds for one process, on a busy machine


class Processes:
    """Starts i-PI and drivers in a folder, ends them all in the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prefix = str(folder / "s_")
        self._running: list[subprocess.Popen[str]] = []

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            list(map(str, words)),
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._running.append(process)
        return process

    def ipi(self) -> subprocess.Popen[str]:
        return self.start(BIN / "i-pi", "-S", self.prefix, "input.xml")

    def driver(self, model: str | Path, *where: str, template: str = "init.xyz") -> subprocess.Popen[str]:
        return self.start(
            BIN / "mlplugins", "ipi-driver", model, template, "--sockets-prefix", self.prefix, *where
        )

    def drive(self, model: str | Path, *where: str, template: str = "init.xyz", expected: int = 0) -> str:
        """What `mlplugins ipi-driver` prints until it ends; in this process, which has torch already."""
        words = ["ipi-driver", str(model), template, "--sockets-prefix", self.prefix, *where]
        output = io.StringIO()
        limit = threading.Timer(LIMIT, self.stop)  # without i-PI it ends
        limit.start()
        try:
            with chdir(self.folder), redirect_stdout(output), redirect_stderr(output):
                code = main(words)
        finally:
            limit.cancel()
        assert code == expected, output.getvalue()
        return output.getvalue()

    def stop(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
            process.communicate()


def finish(process: subprocess.Popen[str], expected: int = 0) -> str:
    output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == expected, output
    return output
