"""Cases about sessions: creating, finding, listing, deleting."""

from __future__ import annotations

from tests.contract.places import APP, SESSION, USER, Place, event, outcome


async def create_a_session_that_exists(place: Place) -> object:
    await place.create()
    return await outcome(place.create())


async def create_a_session_that_exists_under_a_padded_id(place: Place) -> object:
    await place.create()
    return await outcome(place.create(name=f"  {SESSION}\t"))


async def a_refused_create_changes_no_user_state(place: Place) -> object:
    await place.create({"user:theme": "dark"})
    await outcome(place.create({"user:theme": "light", "user:other": 1}))
    return await place.user_state()


async def a_padded_id_is_stripped(place: Place) -> object:
    created = await place.create(name=f" {SESSION}\n")
    found = await place.find(name=f"\t{SESSION} ")
    return created.id, found == created


async def a_padded_id_deletes(place: Place) -> object:
    await place.create()
    await place.delete(name=f" {SESSION} ")
    return await place.find()


async def a_blank_id_is_replaced(place: Place) -> object:
    created = [await place.create(name=blank) for blank in (None, "", "   ", "\n")]
    return len({session.id for session in created}), [bool(session.id.strip()) for session in created]


async def ids_keep_their_case(place: Place) -> object:
    await place.create({"name": "lower"}, name="s")
    await place.create({"name": "upper"}, name="S")
    return (await place.get(name="s")).state, (await place.get(name="S")).state


async def one_id_serves_each_user_and_app(place: Place) -> object:
    await place.create({"of": "one"})
    await place.create({"of": "two"}, user="other")
    await place.create({"of": "three"}, app="other")
    return [
        (await place.get()).state["of"],
        (await place.get(user="other")).state["of"],
        (await place.get(app="other")).state["of"],
    ]


async def create_returns_merged_state(place: Place) -> object:
    await place.create({"app:version": 1, "user:theme": "dark", "own": 1}, name="first")
    second = await place.create({"app:flag": True, "own": 2}, name="second")
    return dict(sorted(second.state.items()))


async def a_created_session_equals_the_one_read(place: Place) -> object:
    created = await place.create({"own": [1, 2.5, None], "user:theme": "dark", "app:version": {"x": ""}})
    read = await place.get()
    return read == created, read is created


async def a_session_appended_to_equals_the_one_read(place: Place) -> object:
    session = await place.create({"own": 1})
    for number in range(3):
        await place.append(session, event(1_000.0 + number, own=number, user__theme="dark", app__version=number))
    return await place.get() == session


async def a_returned_session_is_the_callers_own(place: Place) -> object:
    session = await place.create({"own": {"deep": [1]}})
    await place.append(session, event(own={"deep": [2]}))
    read = await place.get()
    read.state["own"]["deep"].append(3)
    read.state["more"] = 1
    read.events.clear()
    again = await place.get()
    return again.state, len(again.events)


async def a_missing_session_is_none(place: Place) -> object:
    await place.create()
    return [
        await place.find(name="other"),
        await place.find(user="other"),
        await place.find(app="other"),
        await place.find(name=""),
    ]


async def deleting_a_missing_session(place: Place) -> object:
    return await outcome(place.delete(name="never"))


async def deleting_takes_the_session_alone(place: Place) -> object:
    session = await place.create({"own": 1, "user:theme": "dark", "app:version": 1})
    await place.append(session, event(own=2))
    await place.create(name="other")
    await place.delete()
    renewed = await place.create()
    return renewed.state, renewed.events, [found.id for found in await place.listed(user=USER)].count("other")


async def user_state_has_no_prefixes(place: Place) -> object:
    session = await place.create({"user:theme": "dark", "app:version": 1, "own": 1})
    await place.append(session, event(user__count=2, own=2))
    return await place.user_state()


async def user_state_of_a_stranger(place: Place) -> object:
    await place.create({"user:theme": "dark"})
    return await place.user_state(user="other"), await place.user_state(app="other")


async def list_order(place: Place) -> object:
    # Distinct moments first, then a tie that the user's id, and then the session's, has to break.
    moments = {("u2", "a"): 30.0, ("u1", "z"): 20.0, ("u1", "b"): 20.0, ("u0", "c"): 20.0, ("u3", "d"): 10.0}
    for (user, name), moment in moments.items():
        session = await place.create(user=user, name=name)
        await place.append(session, event(moment))
    return [(session.user_id, session.id) for session in await place.listed()]


async def list_content(place: Place) -> object:
    session = await place.create({"own": 1, "user:theme": "dark"})
    await place.append(session, event(own=2, app__version=3))
    (listed,) = await place.listed()
    return dict(sorted(listed.state.items())), listed.events, listed.last_update_time


async def list_filters(place: Place) -> object:
    for user, name in (("", "nobody's"), ("u", "somebody's")):
        await place.create(user=user, name=name)
    await place.create(app="other", name="elsewhere")
    everybody = [session.id for session in await place.listed()]
    return sorted(everybody), [session.id for session in await place.listed(user="")]


async def list_nothing(place: Place) -> object:
    await place.create()
    return await place.listed(app="other"), await place.listed(user="other")


async def last_update_time_is_exact(place: Place) -> object:
    session = await place.create()
    created_alike = (await place.get()).last_update_time == session.last_update_time
    moments = [1_700_000_000.123456789, 0.1 + 0.2, 5e-324, 1_700_000_000.0000002]
    seen = []
    for moment in moments:
        await place.append(session, event(moment))
        seen.append(session.last_update_time)
    await place.reopen()
    return created_alike, seen == moments, (await place.get()).last_update_time == moments[-1]


async def last_update_time_may_go_back(place: Place) -> object:
    session = await place.create()
    for moment in (2_000.0, 1_000.0):
        await place.append(session, event(moment))
    (listed,) = await place.listed()
    return session.last_update_time, (await place.get()).last_update_time, listed.last_update_time


async def calls_go_by_keyword(place: Place) -> object:
    service = place.service
    await service.create_session(app_name=APP, user_id=USER, session_id=SESSION, state={"own": 1})
    found = await service.get_session(app_name=APP, user_id=USER, session_id=SESSION, config=None)
    listed = await service.list_sessions(app_name=APP, user_id=USER)
    await service.append_event(session=listed.sessions[0], event=event())
    await service.flush()
    await service.delete_session(app_name=APP, user_id=USER, session_id=SESSION)
    return found is not None, len(listed.sessions), await service.get_user_state(app_name=APP, user_id=USER)
