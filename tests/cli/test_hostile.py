"""Malformed inputs of every command, from a seeded generator: one sentence, exit code 2, nothing accepted in
silence. The values that are put in are wrong whatever the key; where they might be right, 0 is allowed."""

import copy
import os
import random
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from ase.db import connect
from ase.io import read, write

from mlplugins import registry
from mlplugins.checkpoints import native, sevennet
from mlplugins.cli.main import HIDDEN, PACKAGE, main

from ..training.argon import argon

CONFIGS = {
    "train": {
        "data": {
            "train": "absent.extxyz",
            "validation": 0.1,
            "baseline": {"Ar": -1.0},
            "keys": {"energy": "e"},
        },
        "model": {"family": "nequip", "cutoff": 4.0, "num_layers": 1},
        "training": {
            "epochs": 2,
            "lr": 0.01,
            "devices": 1,
            "loss": {"forces": 1.0},
            "schedule": {"final": 0.1},
        },
        "seed": 1,
    },
    "finetune": {
        "base": {"checkpoint": "absent.ckpt", "elements": ["Ar"]},
        "finetune": {"strategy": "lora", "rank": 2, "alpha": 1.0},
        "data": {"train": "absent.extxyz"},
        "training": {"epochs": 2, "ema": 0.9},
    },
    "simulate": {
        "model": "absent.pt",
        "structure": "absent.cif",
        "temperatures": [300.0, 400.0],
        "steps": 100,
        "mobile": {"species": "Li", "charge": 1},
        "thermostat": {"time_constant": 100.0},
    },
    "conductivity": {
        "species": "Li",
        "charge": 1.0,
        "timestep": 2.0,
        "carriers": {"Cl": -1.0},
        "runs": [{"files": ["absent.dump"], "temperature": 300.0}],
    },
}
"""Good configurations of inputs that are not there: whatever is put in, the exit code is 2."""

WRONG = [
    ".nan",
    "-.inf",
    "!!binary aGVsbG8=",
    "9" * 5000,
    "'" + "x" * 5000 + "'",
    "{a: {b: 1}}",
    "[[[]]]",
    "",
    "-1",
]
WRONG += [
    "!!python/object:os.system {}",
    "2020-13-45",
    '"\\0"',
    "true",
    "1e400",
    '"\\e[31m\\n[/]"',
    "*a",
]


def refused(capsys, *words) -> str:
    """The one sentence with which a command line is refused."""
    code = main([str(word) for word in words])
    error = capsys.readouterr().err
    assert code == 2, (code, words, error)
    return one_sentence(error)


def one_sentence(error: str) -> str:
    assert error.startswith("mlplugins: error: "), error
    assert error.count("\n") == 1, error
    assert error[:-1].isprintable(), error
    assert "Traceback" not in error
    return error


def leaves(tree, path=()):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from leaves(value, (*path, key))


def with_text(tree, path, text: str) -> str:
    """YAML of the tree with `text` in one place."""
    tree = copy.deepcopy(tree)
    here = tree
    for key in path[:-1]:
        here = here[key]
    here[path[-1]] = "PLACE"
    return yaml.safe_dump(tree, default_flow_style=True, width=10**6).replace("PLACE", text, 1)


@pytest.mark.parametrize("command", CONFIGS)
def test_wrong_values_in_every_key(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("c.yaml")
    places = list(leaves(CONFIGS[command]))
    chance = random.Random(13)
    for place in places:
        for text in {".nan", "-.inf", *chance.sample(WRONG, 2)}:
            path.write_text(with_text(CONFIGS[command], place, text), encoding="utf-8")
            message = refused(capsys, command, path, "-o", "out")
            if text in (".nan", "-.inf"):
                assert f"'{'.'.join(map(str, place))}': expected a finite number" in message
    assert [p.name for p in Path().iterdir()] == ["c.yaml"]


@pytest.mark.parametrize("command", CONFIGS)
@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("seed: 1\nseed: 2", "key 'seed' twice"),
        ("? [a]\n: 1", "key (a list or a mapping) is no string"),
        ("1: 2", "key '1' is no string to YAML; put it in quotes"),
        ("No: 2", "key 'No' is no string to YAML"),
        ("zzz: 2", "unknown key 'zzz'"),
        ("a: &a [*a]", "YAML"),
        (
            "a: &a [1,1]\nb: &b [*a,*a,*a]"
            + "".join(f"\n{c}: &{c} [{','.join([f'*{p}'] * 10)}]" for p, c in zip("bcdefg", "cdefgh")),
            "more than 200000 values",
        ),
        ("a: [", "not valid YAML"),
        ("a: " + "[" * 1000, "nested too deeply"),
        ("\x00", "not valid YAML"),
        ("- 1", "YAML"),
    ],
)
def test_wrong_yaml(command, line, text, tmp_path, capsys):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(CONFIGS[command]).replace("seed: 1\n", "") + line + "\n")
    message = refused(capsys, command, path, "-o", tmp_path / "out")
    assert text in message or ("no configuration" in message and "&a [*a]" in line)
    path.write_bytes(b"\xff\xfe\x00d" + os.urandom(100))
    assert "not a text file in UTF-8" in refused(capsys, command, path, "-o", tmp_path / "out")
    with path.open("wb") as stream:
        stream.truncate(20_000_000)
    assert "20 MB; expected a configuration" in refused(capsys, command, path, "-o", tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"training": {"accelerator": "quantum"}}, "'training.accelerator': input should be"),
        ({"training": {"accelerator": "cuda", "epochs": 1}}, "training.accelerator 'cuda'"),
        ({"training": {"devices": [7], "accelerator": "cpu"}}, "training.devices [7]"),
        ({"training": {"devices": 0}}, "'training.devices'"),
        ({"seed": 2**40}, "'seed': input should be less than 2147483648"),
        ({"model": {"num_features": 10**9}}, "ask for a model of more than"),
        ({"data": {"train": "x" * 300}}, "no such data file"),
        ({"data": {"train": "train.extxyz@::0"}}, "expected a slice"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="what is refused here is what this machine lacks")
def test_what_libraries_would_refuse_later(project, changes, text, tmp_path, capsys):
    config = project(epochs=1)
    content = yaml.safe_load(config.read_text())
    for section, value in changes.items():
        content[section] = {**content[section], **value} if isinstance(value, dict) else value
    config.write_text(yaml.safe_dump(content))
    assert text in refused(capsys, "train", config, "-o", tmp_path / "out")


@pytest.mark.long
def test_absolute_globs_and_folders_with_brackets(tmp_path, capsys, project):
    folder = tmp_path / "a [1] :smiley: [red]"
    folder.mkdir()
    config = project(epochs=1)
    text = config.read_text()
    for pattern in (f"{tmp_path}/tr*.extxyz", "tr*.extxyz"):
        (folder / "c.yaml").write_text(text.replace("train.extxyz", pattern))
        shutil.copy(tmp_path / "train.extxyz", folder)
        shutil.copy(tmp_path / "test.extxyz", folder)
        out = folder / f"out{len(pattern)}"
        assert main(["train", str(folder / "c.yaml"), "-o", str(out)]) == 0
        assert f"{out}/model.pt is ready" in capsys.readouterr().out
    write(folder / "[b]x.extxyz", argon(1, 5))
    assert main(["evaluate", str(out / "model.pt"), str(folder / "[b]x.extxyz")]) == 0


def entries(content):
    """Paths of all entries of a checkpoint that are not weights."""
    for key, value in content.items():
        yield (key,)
        if isinstance(value, dict) and key != "configuration":
            for name, inner in value.items():
                yield key, name
                if isinstance(inner, dict) and key == "state":
                    yield from ((key, name, k) for k in list(inner)[:2])


def mutated(content, path, value):
    content = copy.deepcopy(content)
    here = content
    for key in path[:-1]:
        here = here[key]
    if value is KeyError:
        del here[path[-1]]
    else:
        here[path[-1]] = value
    return content


NEEDED = (
    "format",
    "family",
    "elements",
    "baseline",
    "hyperparameters",
    "configuration",
    "sha256",
    "versions",
)


@pytest.fixture(scope="module")
def checkpoint(finished):
    return torch.load(finished[0] / "run" / "checkpoint.ckpt", weights_only=True)


@pytest.mark.long
@pytest.mark.parametrize(
    "value",
    [
        *(KeyError, None, 5, {}, float("nan")),
        *(pytest.param(v, marks=pytest.mark.exhaustive) for v in ("x", [], [[1]], {"a": torch.ones(2)})),
    ],
    ids=str,
)
def test_entries_of_own_checkpoints(checkpoint, value, tmp_path, capsys):
    """Missing, null, of another kind: `export` refuses what it needs, and never fails otherwise."""
    path = tmp_path / "c.ckpt"
    places = list(entries(checkpoint))
    chance = random.Random(13)
    for place in [*((name,) for name in NEEDED), *chance.sample(places, 6)]:
        torch.save(mutated(checkpoint, place, value), path)
        code = main(["export", str(path), "-o", str(tmp_path / "m.pt")])
        error = capsys.readouterr().err
        assert code in (0, 2), (place, value, error)
        kinds = [type(checkpoint.get(place[0])), *([float] if place[0] == "format" else [])]
        if place[0] in NEEDED and len(place) == 1 and type(value) not in kinds or place == ("state",):
            assert code == 2, (place, value)
        if code:
            one_sentence(error)


@pytest.mark.slow
def test_a_run_is_not_continued_from_half_a_checkpoint(checkpoint, finished, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished[0] / "run", folder)
    config = finished[0] / "longer.yaml"  # its data are beside it
    longer = yaml.safe_load((finished[0] / "config.yaml").read_text())
    longer["training"]["epochs"] += 1
    config.write_text(yaml.safe_dump(longer))
    needed = [
        ("state", key) for key in ("weights", "average", "optimizer", "schedule", "counters", "history")
    ]
    for place in [*needed, ("state", "rng"), ("state", "sums"), ("state", "counters", "epoch")]:
        for value in (KeyError, None, "x"):
            if place[-1] == "epoch" and value is KeyError:
                continue  # its default is right
            torch.save(mutated(checkpoint, place, value), folder / "checkpoint.ckpt")
            assert "--restart" in refused(capsys, "train", config, "-o", folder)


def test_weights_that_are_not_finite(checkpoint, tmp_path, capsys):
    content = copy.deepcopy(checkpoint)
    name = next(iter(content["state"]["best"]))
    content["state"]["best"][name].view(-1)[0] = float("nan")
    torch.save(content, tmp_path / "c.ckpt")
    assert f"'{name}' is not finite" in refused(
        capsys, "export", tmp_path / "c.ckpt", "-o", tmp_path / "m.pt"
    )


@pytest.mark.parametrize("kind", ["own", "sevennet"])
def test_damaged_bytes_of_checkpoints(kind, finished, tmp_path, capsys):
    """Cut or with flipped bits: refused, or the same weights (bits between the entries)."""
    small = Path(__file__).parents[1] / "regression" / "sevennet_0104_even.pth"
    source, command = (
        (finished[0] / "run" / "checkpoint.ckpt", "export") if kind == "own" else (small, "convert")
    )
    good, path = source.read_bytes(), tmp_path / "c.ckpt"
    chance = np.random.default_rng(13)
    for trial in range(40):
        bad = bytearray(good)
        if trial % 4 == 0:
            bad = bad[: int(chance.integers(len(bad)))]
        else:
            for place in chance.integers(len(bad), size=trial % 3 + 1):
                bad[place] ^= 1 << int(chance.integers(8))
        path.write_bytes(bad)
        code = main([command, str(path), "-o", str(tmp_path / "m.pt")])
        error = capsys.readouterr().err
        assert code in (0, 2), error
        if code:
            one_sentence(error)
        else:
            read = native.read if kind == "own" else sevennet.read
            same = [read(file).potential.state_dict() for file in (path, source)]
            assert str(same[0]) == str(same[1])


@pytest.mark.parametrize("word", ["nan", "inf", "word", "1e400", "", '"', "1e9", "-", "1e30 1e30"])
def test_damaged_structures(word, finished, tmp_path, capsys):
    """A word in the place of any number of an extended XYZ file."""
    path, model = tmp_path / "a.extxyz", finished[0] / "run" / "model.pt"
    write(path, argon(2, 7))
    lines = path.read_text().splitlines()
    chance = random.Random(13)
    for _ in range(12):
        changed = list(lines)
        k = chance.choice([0, 2, 3, len(lines) // 2, len(lines) - 1])
        words = changed[k].split()
        words[chance.randrange(len(words))] = word
        changed[k] = " ".join(words)
        path.write_text("\n".join(changed) + "\n")
        code = main(["evaluate", str(model), str(path)])
        error = capsys.readouterr().err
        assert code in (0, 2), error
        if code:
            one_sentence(error)
        if word in ("nan", "inf", "word"):
            assert code == 2, "\n".join(changed)


def test_data_bases_that_are_none(finished, tmp_path, capsys):
    model = finished[0] / "run" / "model.pt"
    with connect(tmp_path / "good.db") as base:
        for atoms in argon(2, 7):
            base.write(atoms)
    good = (tmp_path / "good.db").read_bytes()
    assert main(["evaluate", str(model), str(tmp_path / "good.db")]) == 0
    capsys.readouterr()
    bad = tmp_path / "bad.db"
    for content in (b"", good[:5000], b"SQLite format 3\0" + bytes(5000), good[:100] + b"\xff" * len(good)):
        bad.write_bytes(content)
        refused(capsys, "evaluate", model, bad)
    shutil.copy(tmp_path / "good.db", bad)
    with sqlite3.connect(bad) as connection:
        connection.execute("update systems set positions = x'0011'")
    refused(capsys, "evaluate", model, bad)
    for name in ("a.lmdb", "a.traj", "a.json", "a.xyz.gz", "a.cif", "POSCAR", "a.npz"):
        (tmp_path / name).write_bytes(b"\x00\x01garbage\xff" * 50)
        refused(capsys, "evaluate", model, tmp_path / name)


@pytest.mark.parametrize("command", registry.available(PACKAGE, (*HIDDEN, "completion")))
def test_outputs_are_tried_before_the_work(command, tmp_path, capsys, monkeypatch):
    """All commands; the inputs are absent, so whatever is said of the output was said first."""
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    inputs = {
        "check": ["m.pt", "a.cif"],
        "committee": ["m.pt", "n.pt"],
        "evaluate": ["m.pt", "a.xyz"],
        "label": ["a.xyz", "--config", "in.yaml", "-o", "b.xyz"],
        "select": ["a.xyz", "-n", "1", "-o", "b.xyz"],
        "ipi-driver": ["m.pt", "a.xyz"],
        "spectra": ["vdos", "a.xyz"],
        "uncertainty": ["m.pt", "a.xyz", "--held-out", "b.xyz", "-o", "n.pt"],
    }
    words = inputs.get(command, [] if command in ("build", "doctor") else ["in.yaml"])
    for target, text in (
        (".", "--json .: a folder; expected the name of a file"),
        ("file/a.json", "--json file/a.json: cannot be written (Not a directory)"),
        ("/proc/a/b.json", "--json /proc/a/b.json: cannot be written"),
        ("n" * 300, "cannot be written (File name too long)"),
        (f"new/{'n' * 300}/a.json", "cannot be written (File name too long)"),
    ):
        assert text in refused(capsys, command, *words, "--json", target)
    assert [p.name for p in Path().iterdir()] == ["file"]


def test_other_outputs_and_inputs_that_they_would_replace(tmp_path, capsys, monkeypatch, finished):
    monkeypatch.chdir(tmp_path)
    write("a.extxyz", argon(2, 1))
    before = Path("a.extxyz").read_bytes()
    model = finished[0] / "run" / "model.pt"
    for words, text in (
        (["evaluate", model, "a.extxyz", "--plot", "."], "--plot .: a folder"),
        (["evaluate", model, "a.extxyz", "--plot", "a.extxyz"], "--plot a.extxyz: an input"),
        (["evaluate", model, "a.extxyz@:1", "--json", "a.extxyz"], "--json a.extxyz: an input"),
        (["evaluate", model, "a.extxyz", "--json", "x", "--plot", "x"], "name the same file"),
        (["select", "a.extxyz", "-n", "1", "-o", "a.extxyz"], "-o a.extxyz: an input"),
        (["conductivity", "r.yaml", "-o", "a.extxyz"], "-o a.extxyz: a file; expected the name of a folder"),
        (["simulate", "r.yaml", "-o", "a.extxyz"], "-o a.extxyz: a file"),
        (["convert", "c.pth", "-o", "a.extxyz/m.pt"], "cannot be written (Not a directory)"),
    ):
        assert text in refused(capsys, *words)
    assert Path("a.extxyz").read_bytes() == before


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_results_have_the_modes_that_the_user_wants(mask, mode, tmp_path, finished, project):
    run = finished[0] / "run"
    write(tmp_path / "a.extxyz", argon(3, 1))
    old = os.umask(mask)
    try:
        words = ["--json", str(tmp_path / "i.json")]
        assert main(["info", str(run / "model.pt"), *words]) == 0
        assert main(["export", str(run / "checkpoint.ckpt"), "-o", str(tmp_path / "m.pt")]) == 0
        select = ["select", str(tmp_path / "a.extxyz"), "-n", "1", "-o", str(tmp_path / "s.extxyz")]
        assert main(select) == 0
        assert main(["train", str(project(epochs=1)), "-o", str(tmp_path / "t")]) == 0
    finally:
        os.umask(old)
    made = [tmp_path / "i.json", tmp_path / "m.pt", tmp_path / "s.extxyz", *(tmp_path / "t").iterdir()]
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in made} == {p.name: oct(mode) for p in made}
    assert len(read(tmp_path / "s.extxyz", ":")) == 1
