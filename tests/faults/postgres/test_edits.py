"""Truncations and redactions whose answer is lost: they are sent again, and executed once."""

from __future__ import annotations

import asyncio
import threading

import pytest

from sessiondb import DatabaseSessionService
from tests.contract.places import APP, SESSION, USER, event
from tests.contract.test_truncation import before_write
from tests.databases import query
from tests.postgres.proxy import Cut, Proxy, proxy
from tests.postgres.server import Server


def test_edit_that_is_sent_again_is_executed_once(postgres_server: Server) -> None:
    url = postgres_server.fresh_database()
    numbers = "SELECT revision, last_seq, log_epoch FROM adk_sessions"

    async def main(between: Proxy) -> None:
        async with DatabaseSessionService(between.url) as service:
            for where in Cut:
                session = await service.create_session(APP, USER, SESSION)
                for n in range(1, 6):
                    await service.append_event(session, event(event_id=f"e{n}", own=n))

                for what, after in (("redact", (5, 5, 1)), ("truncate", (6, 3, 3))):
                    cuts: list[threading.Event] = []

                    async def cut_next(where: Cut = where, cuts: list[threading.Event] = cuts) -> None:
                        cuts.append(between.cut(where))

                    with pytest.MonkeyPatch.context() as patched:
                        written = before_write(service, patched, cut_next)
                        if what == "redact":
                            assert await service.redact_events(APP, USER, SESSION, ["e1", "e5"]) == 2
                        else:
                            cut = await service.truncate_session(APP, USER, SESSION, after_event_id="e3")
                            assert cut.state == {"own": 3}
                    # By itself a second execution would have found another log, and be told so.
                    assert len(written) == 1
                    assert [cut_off.is_set() for cut_off in cuts] == [True]
                    assert query(url, numbers) == [after]
                await service.delete_session(APP, USER, SESSION)

    with proxy(url) as between:
        asyncio.run(main(between))
