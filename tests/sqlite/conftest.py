"""Tests marked ``anyio`` beside this file run on asyncio and on trio; those in the folders below on one loop."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The loop."""
    backend: str = request.param
    return backend
