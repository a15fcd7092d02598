"""The scripts that make the reference outputs run in environments of their own, not in the tests."""

collect_ignore_glob = ["make_*.py"]
