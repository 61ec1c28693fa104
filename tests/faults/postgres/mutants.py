"""Deliberately broken builds of the store on a server: each breaks one promise, and a test shows that its harness notices."""

from __future__ import annotations

MUTANTS = {
    "": lambda: None,
}
"""What :mod:`tests.faults.postgres.clients` can be asked to run, by name; "" is the product as it is."""
