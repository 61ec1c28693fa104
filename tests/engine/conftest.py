"""Tests marked ``anyio`` in this folder run on asyncio and on trio; those about loops on uvloop too."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.cancelling import MEANS, Running


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The loop."""
    backend: str = request.param
    return backend


@pytest.fixture(params=MEANS)
def means(request: pytest.FixtureRequest) -> tuple[Any, type[Running]]:
    """A loop, and a way of cancelling there; who asks for it has ``anyio_backend`` be the loop."""
    means: tuple[Any, type[Running]] = request.param
    return means


@pytest.fixture
def running(means: tuple[Any, type[Running]]) -> type[Running]:
    """The way of cancelling."""
    return means[1]
