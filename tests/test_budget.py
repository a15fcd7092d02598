"""The limit of `budget` and the warm starts of `warm` do what they say."""

import os
import signal
import subprocess
import sys

import pytest

from mlplugins.engines import lammps

from . import budget, warm

pytest_plugins = "pytester"


@pytest.mark.long
def test_a_test_beyond_the_budget_fails_unless_it_is_exhaustive(pytester, monkeypatch):
    pytester.makepyfile(
        """
        import subprocess, sys, time
        import pytest

        LOOP = "import time\\nwhile time.process_time() < 0.4: pass"

        def test_sleeps():
            time.sleep(0.4)

        def test_computes():
            start = time.process_time()
            while time.process_time() - start < 0.4:
                pass

        def test_has_a_child_that_computes():
            subprocess.run([sys.executable, "-c", LOOP])

        @pytest.mark.exhaustive
        def test_may_compute():
            subprocess.run([sys.executable, "-c", LOOP])
        """
    )
    with monkeypatch.context() as changed:
        changed.delenv("MLPLUGINS_TEST_TIMES", raising=False)
        changed.setattr(budget, "BUDGET_S", 0.2)
        changed.setattr(budget, "slowness", lambda: 1.0)
        outcome = pytester.runpytest_inprocess("-n0", "-p", "no:cacheprovider", plugins=[budget])
    outcome.assert_outcomes(passed=2, failed=2)
    outcome.stdout.fnmatch_lines(["took * s of processor time; a test has 0.2 s: make it cheaper*"])


PROGRAM = """
import os, signal, sys, warnings
if "end" in sys.argv:
    os.kill(os.getpid(), signal.SIGTERM)
print(os.getpid(), os.getcwd(), os.environ.get("ANSWER"), sys.argv[1:], "torch" in sys.modules, flush=True)
warnings.warn("seen")
print(input(), file=sys.stderr)
sys.exit(3)
"""


@pytest.mark.usefixtures("warm_start")
def test_a_warm_program_is_a_process_of_its_own(tmp_path):
    """Its arguments, folder, variables, streams and exit status are its own; ours stay."""
    (tmp_path / "program.py").write_text(PROGRAM)
    before = os.getcwd(), dict(os.environ), list(sys.argv), list(sys.path)
    command = [sys.executable, "program.py", "a", "b c"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "ANSWER": "42"},
        input="line\n",
        capture_output=True,
        text=True,
    )
    pid, *rest = done.stdout.split(maxsplit=1)
    assert int(pid) != os.getpid()
    assert rest == [f"{tmp_path} 42 ['a', 'b c'] True\n"]
    assert "UserWarning: seen" in done.stderr  # not an error, as it is in tests
    assert done.stderr.endswith("line\n")
    assert done.returncode == 3
    assert before == (os.getcwd(), dict(os.environ), list(sys.argv), list(sys.path))
    assert subprocess.run([*command, "end"], cwd=tmp_path).returncode == -signal.SIGTERM
    version = subprocess.run(
        [sys.executable, "-c", "import sys; print('torch' in sys.modules)"], capture_output=True
    )
    assert version.stdout == b"False\n"  # anything but a program starts anew


DECKS = {
    "ends": ["units metal", 'print "atoms of argon"'],
    "quits": ['print "two words"', "quit 3"],
    "fails": ["units metal", "pair_style mlplugins nowhere.pt"],
}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("deck", DECKS)
def test_a_warm_lmp_ends_as_a_cold_one(tmp_path, native_build, deck, ranks):
    """With its plug-in, its words, its log and its exit status."""
    (tmp_path / "in.deck").write_text("\n".join(DECKS[deck]))
    words, extra = lammps.command(ranks)

    def run(log: str) -> tuple[int, list[str], list[str]]:
        command = [*words, "-in", "in.deck", "-log", log]
        environment = {**os.environ, **extra}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        said, logged = done.stdout.splitlines(), (tmp_path / log).read_text().splitlines()
        assert any(line.startswith("Loaded 1 plugins") for line in said)
        return done.returncode, *(
            [line for line in each if "wall time" not in line] for each in (said, logged)
        )

    cold = run("cold.log")
    assert cold[0] == {"ends": 0, "quits": 3, "fails": 1}[deck]
    with warm.starts():
        assert run("warm.log") == cold
