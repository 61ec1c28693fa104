"""Benchmarks and long runs: timed where they are started by name, never by the test command."""
