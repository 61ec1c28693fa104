"""Logs that SQLite hands over as one text for each column: nobody can tell from what is read, whatever the rows hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.adk.events import Event
from google.adk.sessions.base_session_service import GetSessionConfig

from sessiondb import DatabaseSessionService
from sessiondb.errors import CorruptRowError
from tests.engine.tools import APP, USER, create, event, get, other_program

pytestmark = pytest.mark.anyio

_WAYS = [
    None,
    GetSessionConfig(num_recent_events=3),
    GetSessionConfig(num_recent_events=1_000),
    GetSessionConfig(after_timestamp=1e9),
]
_BETWEEN = "\x1f"
"""What stands between two values of a column."""


@pytest.mark.parametrize(
    "odd",
    [
        [Event(author="agent", timestamp=1.0)],
        [Event(author=f"ag{_BETWEEN}ent", timestamp=2e9)],
        [event(f"a{_BETWEEN}b")],
        [event(timestamp=0.1), event(timestamp=-1.5), event(timestamp=1_795_777_803.0316334)],
        [event(timestamp=2.0**32 + 2**-20), event(timestamp=2e11)],
        [event(timestamp=1_073_741_823.9999999), event(timestamp=1_073_741_824.0000002)],
        [event("é\u2028\U0001f600" * 3)],
        [event("x" * 17 * 2**20)],
    ],
    ids=["nothing", "separator", "escaped separator", "times", "far times", "finest times", "unicode", "large"],
)
async def test_rows_read_at_once_hold_what_was_appended(database_path: Path, odd: list[Event]) -> None:
    """Seen failing without a look at how many values there are, without one at the times, and without a limit's end."""
    async with DatabaseSessionService(database_path) as service:
        session = await create(service)
        for one in (*odd, event("between", error_code="code"), *(each.model_copy(update={"id": ""}) for each in odd)):
            await service.append_event(session, Event.model_validate(one.model_dump()))
        stored = session.events
    for way in _WAYS:
        async with DatabaseSessionService(database_path) as service:
            found = await service.get_session(APP, USER, "s", way)
            assert found is not None
            expected = [one for one in stored if not way or one.timestamp >= (way.after_timestamp or -1e12)]
            assert found.events == expected[-(way.num_recent_events or 0) if way else 0 :]


@pytest.mark.parametrize(
    "edit",
    [
        "author = CAST(author AS BLOB)",
        "event_id = CAST(event_id AS BLOB)",
        "content = CAST(content AS BLOB)",
        "actions = CAST(actions AS BLOB)",
        "extra = CAST('{}' AS BLOB)",
        "content = ''",
        "extra = ''",
        "event_time = 'soon'",
        """actions = '{}},{"author":"nobody"'""",
    ],
)
async def test_an_odd_row_is_named_among_sound_ones(database_path: Path, edit: str) -> None:
    """Seen failing without a look at the types, and with what is decoded together taken for what the rows hold."""
    async with DatabaseSessionService(database_path) as service:
        session = await create(service)
        for number in range(3):
            await service.append_event(session, event(f"{number}"))
    with other_program(database_path, f"UPDATE adk_events SET {edit} WHERE seq = 2"):
        pass
    for way in (None, GetSessionConfig(num_recent_events=2), GetSessionConfig(after_timestamp=1.0)):
        async with DatabaseSessionService(database_path) as service:
            with pytest.raises(CorruptRowError, match=r"row 2 of adk_events \(event 2 of session 's'"):
                await service.get_session(APP, USER, "s", way)


async def test_events_looked_at_late_are_those_of_the_read(database_path: Path) -> None:
    """Seen failing with events that are read from the file when somebody looks."""
    async with DatabaseSessionService(database_path) as service:
        session = await create(service)
        await service.append_event(session, event("first"))
    async with DatabaseSessionService(database_path) as service:
        first, second = await get(service, "s"), await get(service, "s")
        with other_program(database_path, "UPDATE adk_events SET content = NULL, author = 'nobody'"):
            await service.append_event(second, event("second"))
        assert [one.author for one in first.events] == ["user"]
        assert [one.author for one in second.events] == ["user", "user"]
        first.events[0].author = "mine"
        assert [one.author for one in (await get(service, "s")).events] == ["nobody", "user"]
