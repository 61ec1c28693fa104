"""What holds for every call, whatever it does: see :mod:`tests.contract.calls`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from sessiondb import DatabaseSessionService, MemoryService
from tests.contract.calls import (
    GROUPS,
    NOT_OF_SESSIONS,
    READS,
    ROWS,
    Row,
    Tenant,
    everything_of,
    outcome,
    renamed,
    settle,
)
from tests.databases import query

pytestmark = [pytest.mark.anyio, pytest.mark.each_store]

APP, USER, SESSION = "my_app", "user_123", "sess_abc"
HOSTILE = [
    "' OR 1=1 --",
    '%_"\\*?',
    "日本🤖 e\u0301",
    "{}[]$1 %(x)s :seq",
    "NEAR(a b) AND",
    "\n\r\t\u2028\ufeff",
    "null",
    "../../etc",
]


def test_table_has_every_call() -> None:
    public = {
        name
        for service in (DatabaseSessionService, MemoryService)
        for name, _ in inspect.getmembers(service, inspect.isfunction)
        if not name.startswith("_") and name in {n for one in service.__mro__[:-1] for n in vars(one)}
    }
    assert public - {row.name for row in ROWS} == NOT_OF_SESSIONS


def rows_of(location: Path | str, tenant: Tenant) -> list[list[tuple[Any, ...]]]:
    """What the tables hold of a tenant."""
    return [
        sorted(
            query(location, f"SELECT * FROM {table} WHERE app_name = ? AND {whose}", tenant.app, tenant.user), key=str
        )
        for table, whose in (
            ("adk_sessions", "user_id = ?"),
            ("adk_events", "user_id = ?"),
            ("adk_state", "(user_id = ? OR user_id IS NULL)"),
        )
    ]


def strangers(number: int, suffix: str) -> list[Tenant]:
    """Tenants who are not the host: of another app, of another user, and of names that differ by their case only."""
    return [
        Tenant(f"{APP} {number}{suffix}", USER, SESSION),
        Tenant(APP.upper(), USER, f"{SESSION} {number}{suffix}"),
        Tenant(APP, f"{USER} {number}{suffix}", SESSION),
        Tenant(APP, USER.upper(), f"{SESSION} {number}{suffix}"),
    ]


async def test_ids_of_another_tenant_reach_nothing(location: Path | str, tmp_path: Path) -> None:
    """A call answers what it would if the other tenants were not there, and leaves all of their rows alone."""
    hosts = (Tenant(APP, USER, SESSION), Tenant("other_app", USER, SESSION))
    async with (
        DatabaseSessionService(location, index="text") as shared,
        DatabaseSessionService(tmp_path / "alone.sqlite3", durability="normal", index="text") as alone,
    ):
        await settle(shared, hosts[0])
        await settle(shared, hosts[1], shares=True)
        before = [rows_of(location, host) for host in hosts]
        for number, group in enumerate(GROUPS):
            # Who has nothing sees nothing; who has sessions of the same names sees these.
            for suffix in ("", " with sessions"):
                for stranger in strangers(number, suffix):
                    if suffix:
                        await settle(shared, stranger)
                        await settle(alone, stranger)
                    for row in group:
                        if row.owner == "user" or stranger.app != APP:
                            assert await outcome(row, shared, stranger) == await outcome(row, alone, stranger), row
            assert [rows_of(location, host) for host in hosts] == before, group


async def test_hostile_ids_name_what_they_name(location: Path | str) -> None:
    """Whatever ids, authors, keys and texts are, a call answers what it does for plain ones."""
    async with DatabaseSessionService(location, index="text") as service:
        for number, group in enumerate(GROUPS):
            await check_hostile_ids(service, number, group)


async def check_hostile_ids(service: DatabaseSessionService, number: int, group: list[Row]) -> None:
    # Of sessions of the same moment the order of their ids decides: all of these come before the one that notes memories.
    plain_one = Tenant(f"app {number}", "user", "one", "text")
    texts = HOSTILE if group is READS else HOSTILE[number % len(HOSTILE) :][:1]
    tenants = [Tenant(f"app {number} {text}", f"user{text}", f"one{text}", f"text{text}") for text in texts]
    tenants.append(Tenant(f"app {number} " + "".join(HOSTILE), "u" * 4_096, "o" * 4_080, "t" * 4_080))
    await settle(service, plain_one)
    expected = [await outcome(row, service, plain_one) for row in group]
    expected.append(await everything_of(service, plain_one))
    for tenant in tenants:
        await settle(service, tenant)
        found = [await outcome(row, service, tenant) for row in group]
        found.append(await everything_of(service, tenant))
        assert renamed(found, dict(zip(tenant, plain_one, strict=True))) == renamed(expected, {}), tenant


@pytest.mark.parametrize("unusable", ["a\0b", "a\ud800b", "x" * 4_097])
async def test_ids_that_cannot_be_any_are_refused(service: DatabaseSessionService, unusable: str) -> None:
    host = Tenant(APP, USER, SESSION)
    for row in ROWS:
        for field in ("app", "user") if row.owner == "user" else ("app",):
            assert await outcome(row, service, host._replace(**{field: unusable})) == "InvalidInputError", row
    assert service.get_stats()["sessions"] == 0


async def test_closed_service_refuses_every_call(service: DatabaseSessionService) -> None:
    await service.close()
    for row in ROWS:
        assert await outcome(row, service, Tenant(APP, USER, SESSION)) == "ServiceClosedError", row
