"""Cases about state: scopes, deletion, temp keys, and values that JSON cannot hold."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from google.genai import types

from tests.contract.places import Place, event


async def keys_go_to_their_scope(place: Place) -> object:
    session = await place.create()
    await place.append(session, event(own=1, user__theme="dark", app__version=2))
    same_user = await place.create(name="same user")
    same_app = await place.create(user="other", name="same app")
    other_app = await place.create(app="other")
    return [dict(sorted(found.state.items())) for found in (session, same_user, same_app, other_app)]


async def only_the_first_prefix_counts(place: Place) -> object:
    keys = ("app:user:x", "user:app:x", "app:temp:x", "App:x", "app:", "user:", "")
    session = await place.create(dict.fromkeys(keys, 1))
    await place.reopen()
    other = await place.create(user="other", name="other")
    return (await place.get()).state == session.state == dict.fromkeys(keys, 1), sorted(other.state)


async def none_in_a_delta(place: Place) -> object:
    session = await place.create({"own": 1, "user:theme": 1, "app:version": 1, "kept": 1})
    await place.append(session, event(own=None, user__theme=None, app__version=None, never=None))
    read = await place.get()
    return dict(sorted(read.state.items())), read.state == session.state, await place.user_state()


async def none_at_creation(place: Place) -> object:
    await place.create({"user:theme": 1, "app:version": 1}, name="before")
    session = await place.create({"own": None, "user:theme": None, "app:version": None, "kept": 1})
    await place.reopen()
    read, before = await place.get(), await place.get(name="before")
    return dict(sorted(session.state.items())), read.state == session.state, dict(sorted(before.state.items()))


async def none_inside_a_value(place: Place) -> object:
    session = await place.create({"own": {"x": None, "y": [None]}})
    await place.append(session, event(more={"x": None}))
    return (await place.get()).state


async def a_deleted_key_can_be_set_again(place: Place) -> object:
    session = await place.create({"own": 1})
    await place.append(session, event(own=None))
    await place.append(session, event(own=2))
    return (await place.get()).state, session.state


async def temp_keys_of_an_event(place: Place) -> object:
    session = await place.create()
    given = event(temp__trace="xyz", own=1)
    await place.append(session, given)
    read = await place.get()
    return session.state, given.actions.state_delta, read.state, read.events[0].actions.state_delta


async def temp_keys_at_creation(place: Place) -> object:
    session = await place.create({"temp:trace": "xyz", "own": 1})
    return session.state, (await place.get()).state


async def temp_keys_outlive_the_next_append(place: Place) -> object:
    session = await place.create()
    await place.append(session, event(temp__trace="xyz"))
    await place.append(session, event(own=1))
    return session.state


async def _stored(place: Place, value: object) -> object:
    """What a value is read back as, after an append and at once after it on the live session."""
    session = await place.create()
    end = await place.append(session, event(own=value))
    if end != "ok":
        return end
    read = await place.get()
    return read.state.get("own", "deleted"), session.state.get("own", "deleted")


MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


async def a_datetime(place: Place) -> object:
    return await _stored(place, MOMENT)


async def a_model(place: Place) -> object:
    return await _stored(place, types.ModalityTokenCount(token_count=3))


async def a_set(place: Place) -> object:
    return await _stored(place, {3})


async def a_tuple(place: Place) -> object:
    return await _stored(place, (1, (2,)))


async def integer_keys(place: Place) -> object:
    return await _stored(place, {1: "one"})


async def a_callable(place: Place) -> object:
    return await _stored(place, len)


async def bytes_of_utf8(place: Place) -> object:
    return await _stored(place, "grün".encode())


async def bytes_of_anything(place: Place) -> object:
    return await _stored(place, b"\xff\xfe")


async def not_a_number(place: Place) -> object:
    stored = await _stored(place, {"x": float("nan")})
    # NaN is not equal to itself: it has to be told by name.
    return "a NaN" if "nan" in repr(stored) else stored


async def infinity(place: Place) -> object:
    return await _stored(place, [float("inf"), float("-inf")])


async def a_bare_infinity(place: Place) -> object:
    return await _stored(place, float("inf"))


async def a_large_integer(place: Place) -> object:
    return await _stored(place, 2**70)


async def a_negative_zero(place: Place) -> object:
    return repr(await _stored(place, -0.0))


async def a_precise_float(place: Place) -> object:
    return await _stored(place, 0.1 + 0.2)


async def a_cycle(place: Place) -> object:
    cycle: list[object] = []
    cycle.append(cycle)
    stored = await _stored(place, cycle)
    if isinstance(stored, tuple) and stored[0][0] is stored[0]:
        return "a cycle"
    return stored


async def a_lone_surrogate(place: Place) -> object:
    return await _stored(place, "\ud800")


async def a_lone_surrogate_inside(place: Place) -> object:
    return await _stored(place, {"\ud83d": [os.fsdecode(b"caf\xe9.txt")]})


async def a_generator(place: Place) -> object:
    try:
        stored = await _stored(place, (n for n in range(2)))
    except TypeError:
        # The in-memory service copies what it holds, and a generator has no copy.
        return "cannot be read"
    assert isinstance(stored, tuple)
    return list(map(list, stored))


async def an_iterator_inside(place: Place) -> object:
    stored = await _stored(place, {"rows": (map(str, [1, 2]), {3})})
    assert isinstance(stored, tuple)
    return [list(held["rows"][0]) for held in stored]


async def a_value_refused_leaves_the_service_working(place: Place) -> object:
    session = await place.create()
    await place.append(session, event(own=10**5_000))
    return await place.append(session, event(own="fine")), (await place.get()).state
