"""The user's own builds: keys, states, concurrency, missing tools."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mlplugins.errors import MissingDependency, RunFailed
from mlplugins.ops import build, compiler, installed

TINY_CMAKE = """
cmake_minimum_required(VERSION 3.22)
project(tiny LANGUAGES CXX)
add_library(mlplugins_ops SHARED tiny.cpp)
add_library(mlpluginsplugin MODULE tiny.cpp)
set_target_properties(mlpluginsplugin PROPERTIES PREFIX "")
"""


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MLPLUGINS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tiny(tmp_path, monkeypatch, cache) -> Path:
    """Other sources that compile in a second: the real compiler and CMake, not a minute of torch headers."""
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "CMakeLists.txt").write_text(TINY_CMAKE)
    (sources / "tiny.cpp").write_text('extern "C" int answer() { return 42; }\n')
    monkeypatch.setattr(installed, "plugin_sources", lambda: sources)
    return sources


def test_the_real_build_is_current(native_build):
    state = build.state()
    assert state.status == "current"
    assert state.plugin
    record = json.loads((state.directory / build.RECORD).read_text())
    assert record["torch"] == installed.current_key().packages["torch"]
    assert build.ops_library() == state.directory / build.OPS_LIBRARY
    assert build.lammps_plugin_directory() == str(state.directory)


def test_runpath_names_no_build_directory(native_build):
    """The products work from the cache alone: $ORIGIN and installed packages."""
    library = build.state().directory / build.PLUGIN_LIBRARY
    linked = subprocess.run(["ldd", str(library)], capture_output=True, text=True, check=True).stdout
    missing = [line for line in linked.splitlines() if "not found" in line]
    assert missing == []
    assert str(build.state().directory / build.OPS_LIBRARY) in linked


def test_missing_then_current_then_stale(tiny):
    assert build.state().status == "missing"
    assert build.ops_library() is None
    lines: list[str] = []
    state = compiler.build(progress=lines.append)
    assert state.status == "current"
    assert state.plugin
    assert any("Linking" in line for line in lines)
    assert build.ops_library() is not None

    before = (state.directory / build.OPS_LIBRARY).stat().st_mtime_ns
    assert compiler.build().directory == state.directory  # nothing to do
    assert (state.directory / build.OPS_LIBRARY).stat().st_mtime_ns == before
    compiler.build(force=True)
    assert (state.directory / build.OPS_LIBRARY).stat().st_mtime_ns > before

    (tiny / "tiny.cpp").write_text('extern "C" int answer() { return 43; }\n')
    stale = build.state()
    assert (stale.status, stale.reason) == ("stale", "built for other mlplugins sources")
    assert build.ops_library() is None


@pytest.mark.parametrize("package", ["torch", "lammps", "metatomic-torch"])
def test_another_version_is_stale(tiny, monkeypatch, package):
    compiler.build()
    key = installed.current_key()
    other = key._replace(packages={**key.packages, package: "99.1"})
    monkeypatch.setattr(installed, "current_key", lambda: other)
    state = build.state()
    assert state.status == "stale"
    assert state.reason == f"built for {package} {key.packages[package]} → 99.1"
    directory = build.lammps_plugin_directory()
    assert os.listdir(directory) == []


def test_another_python_environment_is_missing(tiny, monkeypatch):
    compiler.build()
    other = installed.current_key()._replace(prefix="/opt/elsewhere")
    monkeypatch.setattr(installed, "current_key", lambda: other)
    assert build.state().status == "missing"


def test_other_compiler_builds_again(tiny, tmp_path, monkeypatch):
    first = compiler.build()
    wrapper = tmp_path / "my-g++"
    version = '[ "$1" = --version ] && echo "my compiler 1.0" && exit'
    wrapper.write_text(f'#!/bin/sh\n{version}\nexec {compiler.find_compiler()} "$@"\n')
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(wrapper))
    second = compiler.build()
    assert second.directory == first.directory
    assert json.loads((second.directory / build.RECORD).read_text())["compiler"] == "my compiler 1.0"


def test_no_compiler(tiny, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(MissingDependency, match=r"no C\+\+ compiler: found none of .*apt install g\+\+"):
        compiler.build()
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(MissingDependency, match="CXX=no-such-compiler is not a program"):
        compiler.build()


def test_no_cmake(tiny, monkeypatch):
    monkeypatch.setenv("CXX", compiler.find_compiler())
    monkeypatch.setattr(compiler, "_find_program", lambda name: None if name == "cmake" else name)
    with pytest.raises(MissingDependency, match="CMake is missing: `pip install"):
        compiler.build()


def test_torch_that_metatomic_does_not_know(monkeypatch, cache):
    version = installed.version
    monkeypatch.setattr(installed, "version", lambda name: "2.99.0" if name == "torch" else version(name))
    with pytest.raises(MissingDependency, match=r"is not built for torch 2\.99\.0 \(it is for .*torch-2\.13"):
        compiler.build()


def test_compile_error_shows_the_first_error(tiny, cache):
    (tiny / "tiny.cpp").write_text("int broken( { }\n")
    with pytest.raises(RunFailed, match="does not compile") as caught:
        compiler.build()
    assert "tiny.cpp:1" in str(caught.value)
    assert build.state().status == "missing"
    assert not list(cache.glob("building-*"))


def test_sources_that_change_during_the_compilation(tiny):
    """By an update of the package, say: the old code is not kept under the name of the new one."""

    def update(line: str) -> None:
        (tiny / "tiny.cpp").write_text('extern "C" int answer() { return 43; }\n')

    with pytest.raises(RunFailed, match="changed during the compilation: run `mlplugins build` again"):
        compiler.build(progress=update)
    assert build.state().status == "missing"


def test_cache_that_cannot_be_written(tiny, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLPLUGINS_CACHE", str(tmp_path / "file"))
    with pytest.raises(RunFailed, match="cannot create the build cache .* Set MLPLUGINS_CACHE"):
        compiler.build()


def test_without_lammps_only_the_ops_are_built(tiny, monkeypatch):
    (tiny / "CMakeLists.txt").write_text(TINY_CMAKE.split("add_library(mlpluginsplugin")[0])
    find = installed.package_directory
    monkeypatch.setattr(installed, "package_directory", lambda name: None if name == "lammps" else find(name))
    state = compiler.build()
    assert state.status == "current"
    assert not state.plugin
    assert "ops only" in state.reason
    assert os.listdir(build.lammps_plugin_directory()) == []


CONCURRENT = """
import sys, time
from pathlib import Path
from mlplugins.ops import compiler, installed
installed.plugin_sources = lambda: Path(sys.argv[1])
count = []
state = compiler.build(progress=count.append)
print(state.status, len(count) > 0)
"""


def test_concurrent_builds_compile_once(tiny, cache):
    command = [sys.executable, "-c", CONCURRENT, str(tiny)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    results = sorted(process.communicate(timeout=120)[0].strip() for process in processes)
    assert results == ["current False", "current False", "current True"]
    assert not [path for path in cache.iterdir() if path.name.startswith(("building-", "publish-", "old-"))]


def test_entry_point_never_raises(monkeypatch, cache):
    def broken():
        raise ValueError("anything")

    monkeypatch.setattr(build, "state", broken)
    assert isinstance(build.lammps_plugin_directory(), str)


def test_entry_point_is_light(native_build):
    """LAMMPS calls it at every start: no torch, no scipy."""
    code = (
        "import sys; from mlplugins.ops.build import lammps_plugin_directory as f; f();"
        "print(sorted({'torch', 'numpy', 'scipy', 'ase', 'rich'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_ops_can_be_switched_off(native_build, monkeypatch):
    monkeypatch.setenv("MLPLUGINS_OPS", "off")
    assert build.ops_library() is None
