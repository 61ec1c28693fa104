"""Cases about events: what is appended once, twice or not at all, in which order it comes back, and how much of it."""

from __future__ import annotations

from google.adk.events import Event
from google.genai import types

from tests.contract.places import Place, event, times


async def append_returns_the_event_itself(place: Place) -> object:
    session = await place.create()
    given = event(own=1)
    returned = await place.service.append_event(session, given)
    return returned is given, session.events[-1] is given


async def append_to_a_missing_session(place: Place) -> object:
    session = await place.create()
    await place.delete()
    return await place.append(session, event()), await place.append(await place.create(name="x"), event())


async def a_refused_append_leaves_the_session_alone(place: Place) -> object:
    session = await place.create({"own": 1})
    await place.delete()
    refused = event(own=2, temp__trace=1)
    await place.append(session, refused)
    return session.state, session.events, sorted(refused.actions.state_delta)


async def a_partial_event_is_returned_as_it_is(place: Place) -> object:
    session = await place.create()
    await place.delete(name="sess_abc")
    partial = Event(author="agent", partial=True, content=types.ModelContent("hel"), timestamp=5.0)
    returned = await place.service.append_event(session, partial)
    return returned is partial, session.events, session.last_update_time == 5.0


async def the_same_event_again(place: Place) -> object:
    session = await place.create()
    given = event(own=1)
    ends = [await place.append(session, given) for _ in range(2)]
    return ends, len(session.events), len((await place.get()).events)


async def an_equal_copy_again(place: Place) -> object:
    session = await place.create()
    given = event(own=1, temp__trace=1)
    copy = given.model_copy(deep=True)
    ends = [await place.append(session, given), await place.append(session, copy)]
    return ends, len((await place.get()).events)


async def an_equal_copy_through_a_fresh_handle(place: Place) -> object:
    session = await place.create()
    given = event(own=1)
    copy = given.model_copy(deep=True)
    await place.append(session, given)
    fresh = await place.get()
    end = await place.append(fresh, copy)
    return end, len(fresh.events), len((await place.get()).events)


async def an_equal_copy_through_a_stale_handle(place: Place) -> object:
    session = await place.create()
    stale = await place.get()
    given = event(session.last_update_time + 1, own=1)
    copy = given.model_copy(deep=True)
    await place.append(session, given)
    return await place.append(stale, copy), len((await place.get()).events)


async def an_equal_copy_after_reopening(place: Place) -> object:
    session = await place.create()
    given = event(own=1)
    copy = given.model_copy(deep=True)
    await place.append(session, given)
    await place.reopen()
    return await place.append(await place.get(), copy), len((await place.get()).events)


async def the_event_as_it_was_read_again(place: Place) -> object:
    session = await place.create()
    await place.append(session, event(own={"list": [1, 2.5, "x"]}))
    fresh = await place.get()
    return await place.append(fresh, fresh.events[0].model_copy(deep=True)), len((await place.get()).events)


async def one_event_a_thousand_times(place: Place) -> object:
    session = await place.create()
    given = event(own=1)
    ends = {await place.append(session, given.model_copy(deep=True)) for _ in range(1_000)}
    return sorted(ends), len((await place.get()).events)


async def an_old_event_again_changes_no_state(place: Place) -> object:
    session = await place.create()
    first = event(1_000.0, own="old")
    copy = first.model_copy(deep=True)
    await place.append(session, first)
    await place.append(session, event(1_001.0, own="new"))
    await place.append(session, copy)
    return (await place.get()).state, session.state


async def another_event_with_a_used_id(place: Place) -> object:
    session = await place.create()
    ends = [
        await place.append(session, event(1_000.0, event_id="used", own=1)),
        await place.append(session, event(1_000.0, event_id="used", own=2)),
    ]
    read = await place.get()
    return ends, [found.id for found in read.events], read.state


async def one_event_id_in_two_sessions(place: Place) -> object:
    one, two = await place.create(name="one"), await place.create(name="two")
    ends = [await place.append(session, event(event_id="used")) for session in (one, two)]
    return ends, len((await place.get(name="one")).events), len((await place.get(name="two")).events)


async def equal_timestamps_keep_append_order(place: Place) -> object:
    session = await place.create()
    given = [event(1_000.0, event_id=letter) for letter in "dacb"]
    for each in given:
        await place.append(session, each)
    await place.reopen()
    return "".join(found.id for found in (await place.get()).events)


async def backward_timestamps(place: Place) -> object:
    session = await place.create()
    ends = [await place.append(session, event(moment)) for moment in (3_000.0, 1_000.0, 2_000.0)]
    await place.reopen()
    return ends, times(session), times(await place.get())


async def _with_events(place: Place, *moments: float) -> None:
    session = await place.create()
    for moment in moments:
        await place.append(session, event(moment))


async def the_most_recent_events(place: Place) -> object:
    await _with_events(place, 1.0, 2.0, 3.0)
    return [times(await place.get(recent=number)) for number in (0, 1, 2, 3, 4, 1_000_000)]


async def no_recent_events_still_have_their_state(place: Place) -> object:
    session = await place.create({"own": 1})
    await place.append(session, event(own=2))
    read = await place.get(recent=0)
    return read.state, read.events, read.last_update_time


async def events_after_a_moment_include_it(place: Place) -> object:
    await _with_events(place, 1.0, 2.0, 3.0)
    return [times(await place.get(after=moment)) for moment in (0.5, 2.0, 2.5, 4.0)]


async def the_epoch_is_a_moment(place: Place) -> object:
    await _with_events(place, -1.0, 0.0, 1.0)
    return times(await place.get(after=0.0))


async def events_after_a_moment_when_time_went_back(place: Place) -> object:
    await _with_events(place, 5.0, 1.0, 6.0)
    return times(await place.get(after=3.0))


async def both_filters(place: Place) -> object:
    await _with_events(place, 5.0, 1.0, 2.0)
    return times(await place.get(recent=2, after=2.0))


async def a_filtered_read_spoils_no_later_one(place: Place) -> object:
    await _with_events(place, 1.0, 2.0, 3.0)
    await place.reopen()
    narrow = [times(await place.get(recent=1)), times(await place.get(after=3.0)), times(await place.get(recent=0))]
    return narrow, times(await place.get()), times(await place.get(recent=2))


async def _one_event_twice(place: Place, first: object, second: object) -> object:
    """How the second append of an event ends when its state delta is an equal, but not identical, value."""
    session = await place.create()
    given = event(event_id="once", own=first)
    again = event(event_id="once", own=second)
    assert given == again
    return [await place.append(session, given), await place.append(session, again)], len((await place.get()).events)


async def an_equal_event_whose_keys_come_in_another_order(place: Place) -> object:
    return await _one_event_twice(place, {"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1})


async def an_equal_event_whose_set_comes_in_another_order(place: Place) -> object:
    # These two fall into one slot of a small hash table: the one put in first comes first.
    return await _one_event_twice(place, {"a": {0, 8}}, {"a": {8, 0}})


async def an_event_that_differs_in_a_type_only(place: Place) -> object:
    session = await place.create()
    for value in (1, True, 1.0):
        await place.append(session, event(event_id="once", own=value))
    return [repr(found.actions.state_delta["own"]) for found in (await place.get()).events]
