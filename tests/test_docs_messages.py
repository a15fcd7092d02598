"""Every message that docs/errors.md quotes is one that the code prints."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ANY = "…"
QUOTES = re.findall(r"^> (.+)$", (ROOT / "docs/errors.md").read_text("utf-8"), re.M)
FOREIGN = {"Unrecognized pair style 'mlplugins'"}
"""Printed by LAMMPS: tests/engines show it."""


def _python(node: ast.AST) -> str | None:
    """A text, with … for what is put in."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(part.value if isinstance(part, ast.Constant) else ANY for part in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            texts = _python(left), _python(right)
            return None if texts == (None, None) else (texts[0] or ANY) + (texts[1] or ANY)
    return None


@pytest.fixture(scope="module")
def messages() -> str:
    """All texts of the code, one a line."""
    found = []
    for path in (ROOT / "mlplugins").rglob("*.py"):
        found += [_python(node) for node in ast.walk(ast.parse(path.read_text("utf-8")))]
    for path in (ROOT / "lammps_pair").glob("*.cpp"):
        for text in re.findall(r'"(?:[^"\\\n]|\\.)*"(?:\s*"(?:[^"\\\n]|\\.)*")*', path.read_text("utf-8")):
            joined = re.sub(r'"\s*"', "", text).strip('"').replace("\\n", "")
            found.append(re.sub(r"\{[^}]*\}|%s", ANY, joined))
    return "\n".join(text.replace("\n", " ") for text in found if text)


def test_the_page_quotes_messages():
    assert len(QUOTES) > 30


@pytest.mark.long
@pytest.mark.parametrize("quote", QUOTES)
def test_a_quoted_message_exists(quote, messages):
    if quote in FOREIGN:
        return
    pattern = ".*?".join(re.escape(part.strip(ANY)) for part in re.split(f"{ANY}+", quote))
    assert re.search(pattern, messages), f"docs/errors.md quotes what no code says: {quote}"


def test_an_invented_message_would_be_found(messages):
    assert not re.search(re.escape("no C++ compiler was there"), messages)
