"""Tests marked ``anyio`` in this folder run on asyncio and on trio; those about loops on uvloop too."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The loop."""
    backend: str = request.param
    return backend
