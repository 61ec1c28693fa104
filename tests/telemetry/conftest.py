"""Both event loops, and providers to look at what was exported."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sessiondb.telemetry.operations import PROVIDERS
from tests.telemetry.exporting import Exported, providers


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Under each event loop."""
    return str(request.param)


@pytest.fixture
def exported() -> Iterator[Exported]:
    """Providers that sessiondb has noticed."""
    with providers() as given:
        PROVIDERS.look()
        yield given
