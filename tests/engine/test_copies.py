"""``copy`` and ``pickle`` of a service: frameworks copy their configuration, with what is in it."""

from __future__ import annotations

import copy
import pickle  # noqa: TID251  # that it is refused is under test
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import anyio
import pytest
from pydantic import BaseModel, ConfigDict

from sessiondb import DatabaseSessionService
from sessiondb.errors import NotPicklableError, ServiceClosedError, SessionDBError, StaleSessionError
from tests.engine.tools import APP, USER, create, engine_of, event, get, texts

pytestmark = pytest.mark.anyio


def _files_of(database: Path) -> list[str]:
    """The database and what belongs to it, as far as they are there: after the last service has closed it, it alone."""
    return [file.name for file in database.parent.glob(f"{database.name}*")]


COPIERS: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy]


@pytest.mark.parametrize("copied", COPIERS)
@pytest.mark.parametrize("place", ["file", "memory"])
async def test_copy_is_a_service_on_the_same_data_closed_by_itself(
    database_path: Path, place: str, copied: Callable[[Any], Any]
) -> None:
    """Seen failing while ``copy`` shared the end with the original, and ``deepcopy`` found a lock."""
    original = DatabaseSessionService(database_path if place == "file" else ":memory:", readers=2)
    session = await create(original)
    twin: DatabaseSessionService = copied(original)
    assert type(twin) is DatabaseSessionService
    assert repr(twin) == repr(original)
    await twin.append_event(await get(twin, "s"), event("through the copy"))
    # They know of each other's handles.
    with pytest.raises(StaleSessionError):
        await original.append_event(session, event("late"))
    assert await texts(original, "s") == ["through the copy"]
    await original.close()
    with pytest.raises(ServiceClosedError):
        await original.flush()
    await twin.append_event(await get(twin, "s"), event("after the original"))
    assert await texts(twin, "s") == ["through the copy", "after the original"]
    file = Path(engine_of(twin).store.name)
    await twin.close()
    await original.close()
    assert _files_of(file) == ([file.name] if place == "file" else [])


@pytest.mark.parametrize("copied", COPIERS)
async def test_original_goes_on_when_its_copy_is_closed(
    service: DatabaseSessionService, copied: Callable[[Any], Any]
) -> None:
    async with copied(service) as twin:
        await create(twin)
    await service.append_event(await get(service, "s"), event("goes on"))
    assert await texts(service, "s") == ["goes on"]


@pytest.mark.parametrize("copied", COPIERS)
async def test_copy_has_the_options_and_a_cache_of_its_own(database_path: Path, copied: Callable[[Any], Any]) -> None:
    async with (
        DatabaseSessionService(database_path, on_stale="append", log_cache="share", readers=3) as original,
        copied(original) as twin,
    ):
        handles = [await create(original), await get(original, "s")]
        cached = original.get_stats()["cache_bytes"]
        for handle in handles:
            await twin.append_event(handle, event())
        first, second = await get(twin, "s"), await get(twin, "s")
        assert [one is other for one, other in zip(first.events, second.events, strict=True)] == [True, True]
        assert twin.get_stats()["cache_bytes"] > original.get_stats()["cache_bytes"] == cached


@pytest.mark.parametrize("copied", COPIERS)
async def test_copy_of_a_closed_service_is_refused(database_path: Path, copied: Callable[[Any], Any]) -> None:
    service = DatabaseSessionService(database_path)
    await service.close()
    with pytest.raises(ServiceClosedError, match="closed"):
        copied(service)
    async with DatabaseSessionService(database_path):
        # Another service has the file open; this one is closed all the same.
        with pytest.raises(ServiceClosedError, match="closed"):
            copied(service)


class Labelled(DatabaseSessionService):
    """A subclass with something of its own."""

    def __init__(self, path: Path, labels: list[str]) -> None:
        super().__init__(path)
        self.labels = labels
        self.me = self
        self.other: object = None


async def test_copy_of_a_subclass_has_what_that_has_added(database_path: Path) -> None:
    async with Labelled(database_path, ["a"]) as original:
        async with copy.copy(original) as shallow, copy.deepcopy(original) as deep:
            assert type(shallow) is type(deep) is Labelled
            assert shallow.labels is original.labels
            assert deep.labels == original.labels
            assert deep.labels is not original.labels
            assert deep.me is deep
        await create(original)


class EndsItsOwner:
    """Closes the service that it belongs to while that is being copied."""

    def __init__(self, owner: DatabaseSessionService) -> None:
        self.owner = owner

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        anyio.run(self.owner.close)
        return self


def test_copy_of_a_service_that_is_closed_meanwhile_is_refused(database_path: Path) -> None:
    """Seen failing with a copy that took its share without looking whether there still was one."""
    service = Labelled(database_path, [])
    service.other = EndsItsOwner(service)
    with pytest.raises(ServiceClosedError, match="closed before it could be copied"):
        copy.deepcopy(service)


class Configuration(BaseModel):
    """What a framework copies."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    service: DatabaseSessionService
    same: DatabaseSessionService


async def test_deep_copy_of_a_configuration_has_one_copy_of_the_service(service: DatabaseSessionService) -> None:
    copied = Configuration(service=service, same=service).model_copy(deep=True)
    assert copied.service is copied.same is not service
    async with copied.service as twin:
        await create(twin)
    assert service.get_event_count(APP, USER, "s") == 0


async def test_copy_that_is_dropped_gives_resource_warning_and_its_share(database_path: Path) -> None:
    service = DatabaseSessionService(database_path)
    twins = [copy.copy(service)]
    with pytest.warns(ResourceWarning, match="never closed"):
        twins.clear()
    await create(service)
    await service.close()
    assert _files_of(database_path) == [database_path.name]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
async def test_pickle_of_a_service_is_refused(service: DatabaseSessionService, protocol: int) -> None:
    """Seen failing with the bare TypeError of the first lock that was found."""
    with pytest.raises(NotPicklableError, match="Pass on its path and options") as refusal:
        pickle.dumps([service], protocol)
    assert isinstance(refusal.value, TypeError)
    assert isinstance(refusal.value, SessionDBError)
