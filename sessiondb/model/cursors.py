"""Cursors as callers get them: a place in a list of sessions or in a log, as a text that says nothing to them.

A cursor holds no more than a place. What a call reads is said by its other arguments, so one that was made up leads to
nothing that its caller could not read anyway.
"""

from __future__ import annotations

import json
import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

from sessiondb.errors import InvalidInputError
from sessiondb.model.queries import LogPlace, SessionPlace
from sessiondb.model.records import SessionKey
from sessiondb.model.search import SearchPlace

_VERSION = 1
_MAX_NUMBER = 2**63 - 1


def encode_place(place: SessionPlace | LogPlace | SearchPlace) -> str:
    """Returns a cursor for a place."""
    if isinstance(place, SearchPlace):
        # Infinity, before the first hit, is no JSON.
        rank = place.rank if math.isfinite(place.rank) else None
        return _encode(["hits", place.newest, rank, place.row_id])
    if isinstance(place, SessionPlace):
        return _encode(["sessions", place.update_time, *place.key])
    return _encode(["events", *place])


def decode_session_place(cursor: str | None) -> SessionPlace | None:
    """Returns the place that a cursor of a list of sessions stands for; None for None.

    Raises:
        InvalidInputError: If it is none.
    """
    if cursor is None:
        return None
    match _decode(cursor, "list_sessions"):
        case ["sessions", float(time), str(app_name), str(user_id), str(session_id)]:
            # No store can look for a NUL.
            if math.isfinite(time) and "\0" not in app_name + user_id + session_id:
                return SessionPlace(time, SessionKey(app_name, user_id, session_id))
    raise _refusal("list_sessions")


def decode_log_place(name: str, cursor: str | None) -> LogPlace | None:
    """Returns the place that a cursor of a log stands for; None for None. ``name`` is what the caller knows it by.

    Raises:
        InvalidInputError: If it is none.
    """
    if cursor is None:
        return None
    match _decode(cursor, "get_events", name):
        case ["events", int(incarnation), int(seq), int(row_id)]:
            if all(type(number) is int and 0 <= number <= _MAX_NUMBER for number in (incarnation, seq, row_id)):
                return LogPlace(incarnation, seq, row_id)
    raise _refusal("get_events", name)


def decode_search_place(cursor: str | None) -> SearchPlace | None:
    """Returns the place that a cursor of a search stands for; None for None.

    Raises:
        InvalidInputError: If it is none.
    """
    if cursor is None:
        return None
    match _decode(cursor, "search"):
        case ["hits", int(newest), float() | None as rank, int(row_id)]:
            if all(type(number) is int and 0 <= number <= _MAX_NUMBER for number in (newest, row_id)):
                return SearchPlace(newest, math.inf if rank is None else rank, row_id)
    raise _refusal("search")


def _encode(place: list[Any]) -> str:
    text = json.dumps([_VERSION, *place], ensure_ascii=False, separators=(",", ":"))
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: object, call: str, name: str = "after") -> list[Any]:
    if not isinstance(cursor, str):
        raise InvalidInputError(f"{name} must be a cursor, a string, not {type(cursor).__name__}")
    try:
        place = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        # Whatever else can be read as one was not made here.
        if isinstance(place, list) and place[0] == _VERSION and _encode(place[1:]) == cursor:
            return place[1:]
    except (ValueError, IndexError, RecursionError):
        pass
    raise _refusal(call, name)


def _refusal(call: str, name: str = "after") -> InvalidInputError:
    return InvalidInputError(f"{name} is not a cursor of {call}: pass on, unchanged, what `next` of a page was")
