"""Cases about live Session objects: which of them may append."""

from __future__ import annotations

import asyncio

from google.adk.sessions import Session

from tests.contract.places import APP, SESSION, USER, Place, event


def _restored(session: Session) -> Session:
    """The session as it comes out of JSON, as a client or a cache keeps it."""
    return Session.model_validate_json(session.model_dump_json())


async def an_overtaken_handle(place: Place) -> object:
    one = await place.create()
    two = await place.get()
    later = one.last_update_time
    ends = [await place.append(one, event(later + 1)), await place.append(two, event(later + 2, own=1, temp__trace=1))]
    return ends, len(two.events), two.state


async def an_overtaken_handle_when_clocks_stand_still(place: Place) -> object:
    one = await place.create()
    two = await place.get()
    now = one.last_update_time
    return [await place.append(one, event(now)), await place.append(two, event(now))]


async def an_overtaken_handle_when_clocks_go_back(place: Place) -> object:
    one = await place.create()
    two = await place.get()
    return [await place.append(one, event(1.0)), await place.append(two, event(2.0))]


async def an_overtaken_handle_read_again(place: Place) -> object:
    one = await place.create()
    await place.get()
    await place.append(one, event())
    return await place.append(await place.get(), event()), len((await place.get()).events)


async def a_handle_after_its_own_backward_appends(place: Place) -> object:
    session = await place.create()
    return [await place.append(session, event(moment)) for moment in (3_000.0, 1_000.0, 2_000.0)]


async def a_handle_over_a_restart(place: Place) -> object:
    session = await place.create()
    await place.append(session, event())
    await place.reopen()
    return await place.append(session, event()), await place.get() == session


async def a_handle_of_a_session_deleted_and_created_anew(place: Place) -> object:
    old = await place.create()
    await place.delete()
    # The clock moves on between two calls, but not on every machine by as much as one tick of time.time().
    renewed = await place.create()
    await place.append(renewed, event(renewed.last_update_time + 1))
    return await place.append(old, event(own="old")), (await place.get()).state


async def a_handle_out_of_json(place: Place) -> object:
    session = await place.create()
    await place.append(session, event(session.last_update_time + 1))
    restored = _restored(session)
    return await place.append(restored, event(session.last_update_time + 1)), len((await place.get()).events)


async def a_handle_out_of_json_before_the_first_event(place: Place) -> object:
    return await place.append(_restored(await place.create()), event())


async def an_overtaken_handle_out_of_json(place: Place) -> object:
    session = await place.create()
    await place.append(session, event(session.last_update_time + 1))
    restored = _restored(session)
    await place.append(session, event(session.last_update_time + 1))
    return await place.append(restored, event(session.last_update_time + 1))


async def a_handle_made_by_hand_for_a_new_session(place: Place) -> object:
    await place.create()
    made = Session(id=SESSION, app_name=APP, user_id=USER)
    return await place.append(made, event()), await place.append(made, event())


async def a_handle_made_by_hand_for_a_session_with_events(place: Place) -> object:
    session = await place.create()
    await place.append(session, event())
    return await place.append(Session(id=SESSION, app_name=APP, user_id=USER), event())


async def concurrent_appends_on_one_session(place: Place) -> object:
    session = await place.create()
    # At one moment, so that no service can take a later one for somebody else's.
    given = [event(session.last_update_time, own=number) for number in range(4)]
    ends = await asyncio.gather(*(place.append(session, each) for each in given))
    read = await place.get()
    return set(ends), len(session.events), {found.id for found in read.events} == {each.id for each in given}
