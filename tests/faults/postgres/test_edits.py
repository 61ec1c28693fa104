"""Truncations and redactions whose answer is lost: they are sent again, and executed once."""

from __future__ import annotations

import asyncio

import pytest

from sessiondb import DatabaseSessionService
from tests.contract.places import APP, SESSION, USER, event
from tests.contract.test_truncation import before_write
from tests.databases import query
from tests.faults.postgres.cutter import WAYS, Cutter, through
from tests.postgres.server import Server


def test_edit_that_is_sent_again_is_executed_once(postgres_server: Server) -> None:
    url = postgres_server.fresh_database()
    numbers = "SELECT revision, last_seq, log_epoch FROM adk_sessions"

    async def main(cutter: Cutter) -> None:
        async with DatabaseSessionService(through(cutter, url.rpartition("/")[2])) as service:
            for way in WAYS:
                session = await service.create_session(APP, USER, SESSION)
                for n in range(1, 6):
                    await service.append_event(session, event(event_id=f"e{n}", own=n))

                async def cut_next(way: str = way) -> None:
                    cutter.order(way)  # type: ignore[arg-type]  # one of them

                for what, after in (("redact", (5, 5, 1)), ("truncate", (6, 3, 3))):
                    with pytest.MonkeyPatch.context() as patched:
                        written = before_write(service, patched, cut_next)
                        if what == "redact":
                            assert await service.redact_events(APP, USER, SESSION, ["e1", "e5"]) == 2
                        else:
                            cut = await service.truncate_session(APP, USER, SESSION, after_event_id="e3")
                            assert cut.state == {"own": 3}
                    # By itself a second execution would have found another log, and be told so.
                    assert len(written) == 1
                    assert query(url, numbers) == [after]
                await service.delete_session(APP, USER, SESSION)
        assert cutter.cuts == 2 * len(WAYS)

    with Cutter(postgres_server.port) as cutter:
        asyncio.run(main(cutter))
