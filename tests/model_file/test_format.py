"""The names in a model.pt stand in one file, for Python and for C++."""

import re
from pathlib import Path

import mlplugins
from mlplugins.model_file import format
from mlplugins.ops import installed

ROOT = Path(mlplugins.__file__).parent
NAMES = {key: value for key, value in vars(format).items() if key.isupper()}


def test_no_second_literal():
    """`BY_TAG` and `ALL_ATOMS` are plain words, and may be such elsewhere."""
    assert Path(format.__file__) == installed.format_file()
    words = ("BY_TAG", "ALL_ATOMS")
    texts = {value for key, value in NAMES.items() if isinstance(value, str) and key not in words}
    assert len(texts) == 21
    literal = re.compile(f'"(?:{"|".join(map(re.escape, texts))})(?!\\w)')
    paths = [*ROOT.rglob("*.py"), *ROOT.rglob("*.cpp"), *installed.plugin_sources().glob("*.[ch]*")]
    assert any(path.name == "model_file.cpp" for path in paths)
    for path in set(paths) - {installed.format_file()}:
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not literal.search(line), f"{path}: {line}"


def test_every_constant_reaches_c_plus_plus():
    """CMake takes the lines `NAME = value`: each is one number or one plain string on one line."""
    text = installed.format_file().read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if re.match(r"\S+ = ", line)]
    assert len(lines) == len(NAMES)
    for line in lines:
        name, _, value = line.partition(" = ")
        assert value in (f'"{NAMES[name]}"', str(NAMES[name])), line
