"""For the same conversation the log and the state equal those of ADK's in-memory service.

Seen to fail with an ``_apply`` that keeps temp keys in the event, with an ``encode_event`` that drops ``extra``, and with a
log read in reverse order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from google.adk.sessions import InMemorySessionService

from sessiondb import DatabaseSessionService
from sessiondb.options import CacheMode, NoneInDelta
from tests.runner.scripts import SCRIPTS, Trace
from tests.runner.traces import traces

# What ADK offers until its Workflow can hold agents everywhere, and what its own AgentTool still uses.
pytestmark = pytest.mark.filterwarnings(
    "ignore:(Sequential|Parallel)Agent is deprecated:DeprecationWarning",
    "ignore:The `plugins` argument is deprecated:DeprecationWarning",
)


@pytest.mark.each_store
@pytest.mark.parametrize(
    ("log_cache", "none_in_delta"), [("copy", "delete"), ("share", "delete"), ("off", "delete"), ("copy", "store")]
)
@pytest.mark.parametrize("name", SCRIPTS)
def test_runner_log_and_state_equal_in_memory_service(
    name: str, log_cache: CacheMode, none_in_delta: NoneInDelta, location: Path | str
) -> None:
    async def compare() -> None:
        in_memory = InMemorySessionService()
        expected = await traces(in_memory, await SCRIPTS[name](in_memory))
        async with DatabaseSessionService(location, log_cache=log_cache, none_in_delta=none_in_delta) as service:
            stored = await traces(service, await SCRIPTS[name](service))
        assert expected["logs"][0]
        if none_in_delta == "delete":
            # The one difference: a key that a delta sets to None is gone. (A rewind sets keys to None.)
            expected["states"] = [_without_nones(state) for state in expected["states"]]
            expected["user state"] = _without_nones(expected["user state"])
        assert stored == expected
        async with DatabaseSessionService(location) as reopened:
            again = await traces(reopened, Trace())
        assert again["logs"] == expected["logs"]
        assert again["states"] == expected["states"]

    anyio.run(compare)


def _without_nones(state: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if value is not None}
