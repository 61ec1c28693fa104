"""The loop of the tests about tables."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The loop does not matter to tables; a test for several loops parametrizes this name."""
    return "asyncio"
