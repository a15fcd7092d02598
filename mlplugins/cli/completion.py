"""Print what makes the TAB key complete verbs, options and file names in your shell.

Example:
  mlplugins completion bash >> ~/.bashrc
  mlplugins completion zsh >> ~/.zshrc
  mlplugins completion fish > ~/.config/fish/completions/mlplugins.fish

It counts in shells that are opened afterwards.
"""

from __future__ import annotations

import argparse

from mlplugins import errors

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mlplugins completion`."""
    parser.add_argument("shell", choices=SHELLS)


def run(args: argparse.Namespace) -> int:
    """Print the code for the shell."""
    with errors.needed("completion", "completion"):
        import argcomplete
    print(argcomplete.shellcode(["mlplugins"], shell=args.shell))
    return 0
