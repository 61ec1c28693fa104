"""Event loops that tests run on beside asyncio's own and trio, by what anyio's plugin for pytest takes as a backend."""

from __future__ import annotations

import importlib.util

import pytest

HAS_UVLOOP = importlib.util.find_spec("uvloop") is not None

UVLOOP = pytest.param(
    ("asyncio", {"use_uvloop": True}),
    id="uvloop",
    marks=pytest.mark.skipif(not HAS_UVLOOP, reason="NOT SHOWN HERE: uvloop is not installed"),
)
"""asyncio on uvloop, as uvicorn runs it where it is installed."""
