"""`mlplugins` itself: first words, help, completion, and what it says to words that are nearly right."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlplugins import registry
from mlplugins.cli import _common
from mlplugins.cli.main import HIDDEN, OTHER_WORDS, PACKAGE, main
from mlplugins.errors import BadInput

VERBS = registry.available(PACKAGE, HIDDEN)
HEAVY = {"torch", "numpy", "ase", "matplotlib", "lightning", "pydantic", "metatomic", "scipy"}


def run_python(code: str, **variables: str) -> str:
    """Output of a new interpreter, in which nothing is imported yet."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        check=True,
    )
    return done.stdout


def test_alone_it_says_what_to_do_next(capsys):
    assert main([]) == 2
    alone = capsys.readouterr().out
    assert main(["help"]) == 0
    assert capsys.readouterr().out == alone
    assert max(map(len, alone.splitlines())) < 80
    assert "mlplugins train config.yaml" in alone
    for verb in VERBS:
        assert f"\n  {verb} " in alone


def test_version(capsys):
    texts = []
    for word in ("-V", "--version"):
        assert main([word]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert texts[0].startswith("mlplugins 0.")


def test_help_of_a_verb(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    texts = []
    for words in (["help", "info"], ["info", "--help"]):
        with pytest.raises(SystemExit):
            main(words)
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert "usage: mlplugins info" in texts[0]
    assert main(["help", "inof"]) == 2
    assert "did you mean 'info'" in capsys.readouterr().err


def test_paragraphs_of_a_help_are_filled_and_examples_kept():
    text = f"A {'long ' * 30}line.\n\nExample:\n  mlplugins {'x' * 90}\n\nShort\nlines."
    shown = _common.HelpFormatter("p", width=60)._fill_text(text, 60, "")
    assert f"Example:\n  mlplugins {'x' * 90}\n\nShort\nlines." in shown
    assert max(len(line) for line in shown.splitlines() if "xx" not in line) <= 60


def test_help_imports_nothing_heavy():
    """Each verb's help costs what Python and argparse cost."""
    code = f"""
import contextlib, io, sys
from mlplugins.cli.main import main
for words in [[], ["-V"], ["no-such-verb"], *([verb, "--help"] for verb in {VERBS})]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        with contextlib.suppress(SystemExit):
            main(words)
print(" ".join(sys.modules))
"""
    assert not HEAVY & set(run_python(code).split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "did you mean 'train'"),
        (["fit"], "it is called 'train' here"),
        (["info", "--jsno", "x", "m.pt"], "unknown option '--jsno': did you mean '--json'"),
        (["info", "a.pt", "b.pt"], "'b.pt': one argument too many"),
        (["select", "a", "-n", "1", "-o", "b.xyz", "--method", "fpss"], "did you mean 'fps'"),
        (["check", "m.pt", "a.xyz", "--ranks", "1,two"], "--ranks: expected whole numbers, got '1,two'"),
        (["check", "m.pt", "a.xyz", "--ranks", ","], "--ranks: expected at least one value"),
    ],
)
def test_nearly_right_words(words, said, capsys):
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_other_words_lead_to_verbs():
    assert set(OTHER_WORDS.values()) <= set(VERBS)
    assert not set(OTHER_WORDS) & set(VERBS)


@pytest.mark.parametrize("words", [["1", "2", "4"], ["1,2,4"], ["1,", "2", ",4"], ["1, 2", "4"]])
def test_lists_with_commas_and_with_spaces(words):
    parser = _common.Parser(prog="p")
    parser.add_argument("--ranks", nargs="+", action=_common.Items, item=int)
    assert parser.parse_args(["--ranks", *words]).ranks == [1, 2, 4]


def test_a_file_with_a_comma_in_its_name_is_one(tmp_path):
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", nargs="+", action=_common.Items)
    name = tmp_path / "a,b.pt"
    name.touch()
    assert parser.parse_args(["--model", str(name), "c,d"]).model == [str(name), "c", "d"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_code_for_a_shell(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "mlplugins" in capsys.readouterr().out


def test_completion_of_verbs_and_options(tmp_path):
    answer = tmp_path / "answer"
    code = "from mlplugins.cli.main import main; main([])"
    for line, expected in {"mlplugins in": "info", "mlplugins select --meth": "--method"}.items():
        asked = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE": "1"}
        run_python(code, **asked, _ARGCOMPLETE_STDOUT_FILENAME=str(answer))
        assert answer.read_text().strip() == expected


def test_a_folder_where_its_file_is_meant(tmp_path):
    (tmp_path / "model.pt").touch()
    assert _common.existing_file(str(tmp_path), "model.pt") == tmp_path / "model.pt"
    with pytest.raises(BadInput, match=r"is a folder without checkpoint\.ckpt; expected a file"):
        _common.existing_file(str(tmp_path), "checkpoint.ckpt")
    with pytest.raises(BadInput, match="is a folder; expected a file"):
        _common.existing_file(str(Path(tmp_path)))
