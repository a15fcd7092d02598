"""Imports go one way, files and functions stay small. Every import counts, lazy ones too."""

import ast
import graphlib
import re
import sys
from functools import cache
from pathlib import Path

import pytest

import mlplugins

ROOT = Path(mlplugins.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
EVERYWHERE = {"structures"}
ALLOWED = {
    "cli": {
        "cli",
        "labels",
        "workflows",
        "training",
        "engines",
        "model_file",
        "analysis",
        "dynamics",
        "simulation",
        "checks",
        "ops",
    },
    "workflows": {
        "workflows",
        "analysis",
        "labels",
        "dynamics",
        "training",
        "uncertainties",
        "checkpoints",
        "model_file",
        "models",
        "simulation",
        "engines",
    },
    "training": {"training", "model_file", "checkpoints", "models", "heads", "nn", "uncertainties"},
    "uncertainties": {"uncertainties", "models"},
    "checkpoints": {"checkpoints", "model_file", "models", "nn"},
    "export": {"model_file"},  # a name of 0.1.0
    "models": {"models", "heads", "nn"},
    "heads": {"heads", "nn"},
    "nn": {"nn", "ops"},
    "ops": {"ops"},
    "simulation": {"simulation", "engines", "dynamics", "model_file"},
    "checks": {"checks", "engines", "model_file", "ops"},
    "engines": {"engines", "dynamics", "model_file", "ops"},
    "dynamics": {"dynamics"},
    "labels": {"labels", "dynamics", "model_file"},
    "model_file": {"model_file", "models", "ops"},
    "analysis": {"analysis"},
    "structures": {"structures"},
    "testing": {"testing", "models"},
}
FORBIDDEN_PACKAGES = {
    "nn": {"ase", "metatomic", "metatensor", "lightning", "pydantic", "yaml"},
    "heads": {"ase", "metatomic", "metatensor", "lightning", "pydantic", "yaml"},
    "models": {"ase", "metatomic", "metatensor", "lightning", "pydantic", "yaml"},
    "engines": {"lightning", "e3nn"},
    "dynamics": {"torch", "lightning", "metatomic", "metatensor", "e3nn"},
    "labels": {"torch", "lightning", "metatomic", "metatensor", "e3nn"},
    "model_file": {"lightning", "e3nn"},
    "analysis": {"torch", "lightning", "metatomic", "metatensor", "e3nn"},
    "structures": {"lightning", "metatomic", "metatensor", "e3nn"},
}


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(_tree(path)))


@cache
def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in _nodes(path):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import on line {node.lineno}"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def _room(path: Path) -> str | None:
    relative = path.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    room = _room(path)
    if room is None:  # package root: light, imports no room eagerly except the calculator's lazy import
        return
    allowed = ALLOWED[room] | EVERYWHERE
    for name in _imported(path):
        parts = name.split(".")
        if parts[0] == "mlplugins" and len(parts) > 1 and (ROOT / parts[1]).is_dir():
            assert parts[1] in allowed, f"{path.relative_to(ROOT)} may not import {name}"
        assert parts[0] not in FORBIDDEN_PACKAGES.get(room, set()), f"{path.relative_to(ROOT)} imports {name}"


def test_the_table_of_quantities_stands_on_numpy_alone():
    imported = _imported(ROOT / "quantities.py") | _imported(ROOT / "quantity.py")
    own = {name for name in imported if name.startswith("mlplugins")}
    assert own - {name for name in own if name.startswith("mlplugins.quantity.")} == {
        "mlplugins",
        "mlplugins.units",
        "mlplugins.quantity",
    }
    names = {name.partition(".")[0] for name in imported}
    assert names - sys.stdlib_module_names == {"numpy", "mlplugins"}


WRITING = {f"mlplugins.model_file.{name}" for name in ("module", "write", "tables")}


def test_reading_a_model_file_needs_no_family():
    """What engines import of `model_file/` knows of no family; the files that write one do."""
    for path in FILES:
        name = "mlplugins." + ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if _room(path) == "engines" or (_room(path) == "model_file" and name not in WRITING):
            for imported in _imported(path):
                assert not imported.startswith(("mlplugins.models", *WRITING)), f"{path} imports {imported}"


ANNOTATIONS = {"export", "unused", "annotate"}
"""What families and blocks say to TorchScript's compiler; nothing of it runs."""


def test_torchscript_is_met_in_two_files():
    """Who runs a model is `runtime.py`; what it is written with, `write.py`."""
    users = set()
    for path in FILES:
        attributes = [n for n in _nodes(path) if isinstance(n, ast.Attribute)]
        names = [n.attr for n in attributes if n.attr == "_c" or ast.unparse(n.value) == "torch.jit"]
        if set(names) - ANNOTATIONS:
            users.add(str(path.relative_to(ROOT)))
        names = _imported(path)
        assert not any(name.startswith("torch.jit") for name in names), path
        if any(name.endswith((".AtomisticModel", ".load_atomistic_model")) for name in names):
            users.add(str(path.relative_to(ROOT)))
    assert users - {"testing/families.py"} == {"model_file/runtime.py", "model_file/write.py"}


def test_no_file_imports_itself_through_others():
    """Not inside functions and not for annotations either; the package's root only hands out names."""
    files = {"mlplugins." + ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
    files = {name.removesuffix(".__init__"): path for name, path in files.items()}
    graph = {}
    for name, path in files.items():
        imported = {each for each in _imported(path) if each in files} - {name, "mlplugins"}
        # `from package import file` is an import of the file
        graph[name] = {one for one in imported if not any(each.startswith(f"{one}.") for each in imported)}
    graphlib.TopologicalSorter(graph).prepare()  # a CycleError names the files


def test_the_table_allows_no_more_than_is_used():
    for room, allowed in ALLOWED.items():
        names = {name for path in FILES if _room(path) == room for name in _imported(path)}
        used = {name.split(".")[1] for name in names if name.startswith("mlplugins.")}
        assert allowed - used <= {room}, room


def test_only_training_imports_lightning():
    users = {_room(path) for path in FILES if any(n.split(".")[0] == "lightning" for n in _imported(path))}
    assert users <= {"training"}


def test_conversion_factors_live_in_units():
    for path in FILES:
        for name in _imported(path):
            assert not name.startswith(("scipy.constants", "ase.units")), f"{path.relative_to(ROOT)}: {name}"


def _assert_small(path: Path, nodes: list[ast.AST]) -> None:
    """As many lines, and arguments, as one can keep in mind."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500, f"{path} has more than 500 lines"
    for node in nodes:
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 60, f"{path}:{node.lineno} {node.name} has {length} lines"
            names = [argument.arg for argument in node.args.args + node.args.kwonlyargs]
            count = len([name for name in names if name not in ("self", "cls")])
            assert count <= 7, f"{path}:{node.lineno} {node.name} takes {count} arguments"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sizes(path):
    _assert_small(path, _nodes(path))


@pytest.mark.long
@pytest.mark.parametrize("folder", ["tests", "examples", "benchmarks", "native", "ipi_drivers"])
def test_sizes_outside_the_package(folder):
    paths = [
        path
        for path in sorted((Path(__file__).parents[1] / folder).rglob("*.py"))
        if ".envs" not in path.parts
    ]
    assert paths
    for path in paths:
        top = ast.parse(path.read_text(encoding="utf-8")).body
        methods = [node for each in top if isinstance(each, ast.ClassDef) for node in each.body]
        _assert_small(path, [*top, *methods])


def test_one_reader_of_yaml_and_one_writer_of_whole_files():
    """`config` reads YAML, `files` replaces and hashes files (`ops/compiler.py` replaces whole folders)."""
    owners = {
        r"yaml\.(safe_)?load\(": {"config.py"},
        r"os\.replace\(": {"files.py", "ops/compiler.py"},
        r"sha256\(\S*read_bytes\(\)\)\.hexdigest": {"files.py"},
    }
    for pattern, expected in owners.items():
        users = {str(p.relative_to(ROOT)) for p in FILES if re.search(pattern, p.read_text(encoding="utf-8"))}
        assert users == expected, pattern


OF_A_CONTRACT = {"Hyperparameters", "Model", "Head", "Settings", "Interaction"}
"""Names that every family, head, solver or kind of label has, or that its paper uses."""


def test_a_class_name_means_one_thing():
    """Nor has another type the name of a class (type variables are no types)."""
    places: dict[str, list[str]] = {}
    others: dict[str, str] = {}
    for path in FILES:
        name = str(path.relative_to(ROOT))
        for node in _tree(path).body:
            if isinstance(node, ast.ClassDef) and node.name not in OF_A_CONTRACT:
                places.setdefault(node.name, []).append(name)
            elif isinstance(node, ast.Assign) and "TypeVar" not in ast.unparse(node.value):
                others.update({ast.unparse(target): name for target in node.targets})
    assert not {name: found for name, found in places.items() if len(found) > 1}
    assert not {name: found for name, found in others.items() if name in places}


def test_no_assert_validates_input():
    for path in FILES:
        if _room(path) == "testing":
            continue
        for node in _nodes(path):
            assert not isinstance(node, ast.Assert), f"{path.relative_to(ROOT)}:{node.lineno} uses assert"


@pytest.mark.long
def test_every_public_module_says_what_it_holds():
    for path in FILES:
        docstring = ast.get_docstring(_tree(path))
        assert docstring, f"{path.relative_to(ROOT)} has no docstring"
        assert "TODO" not in docstring
