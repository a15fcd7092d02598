"""Conformance suites that tests subscribe to in one line, and the structures they run on."""
