"""Checks of ids and keys, and the limits of size."""

from __future__ import annotations

import functools
import math

from sessiondb.errors import InvalidInputError
from sessiondb.model.records import SessionKey

MAX_ID_BYTES = 4096
"""Longest id or state key, in bytes of UTF-8."""

MAX_EVENT_BYTES = 64 * 1024 * 1024
"""Largest event or state, in bytes of JSON."""


MAX_COUNT = 1_000_000_000
"""More than that nobody can ask for in one answer."""


def check_text(what: str, value: object) -> str:
    """Returns ``value`` if it can be an id or a key.

    Raises:
        InvalidInputError: If it is not a string, holds a NUL or a lone surrogate, or is longer than MAX_ID_BYTES.
    """
    if not isinstance(value, str):
        raise InvalidInputError(f"{what} must be a string, not {type(value).__name__}")
    if len(value) * 4 > MAX_ID_BYTES or not value.isascii():
        try:
            length = len(value.encode())
        except UnicodeEncodeError:
            raise InvalidInputError(f"{what} holds a lone surrogate, which has no UTF-8 form") from None
        if length > MAX_ID_BYTES:
            raise InvalidInputError(f"{what} is {length} bytes long; at most {MAX_ID_BYTES} can be stored")
    if "\0" in value:
        raise InvalidInputError(f"{what} holds a NUL character, which SQLite's text functions cut off at")
    return value


def check_key(app_name: object, user_id: object, session_id: object) -> SessionKey:
    """Returns the key of a session, with each part checked by :func:`check_text`."""
    # Each call of a conversation has the same three texts. Only strings are cached: 1 and True would be the same cache
    # key.
    if type(app_name) is type(user_id) is type(session_id) is str:
        return _checked_key(app_name, user_id, session_id)
    return _check_key(app_name, user_id, session_id)


def _check_key(app_name: object, user_id: object, session_id: object) -> SessionKey:
    return SessionKey(
        check_text("app_name", app_name), check_text("user_id", user_id), check_text("session_id", session_id)
    )


_checked_key = functools.lru_cache(maxsize=4096)(_check_key)


def check_count(what: str, value: object) -> int:
    """Returns ``value`` if it can say how many are wanted, at most.

    Raises:
        InvalidInputError: If it is not an integer from 1, or larger than a store can count.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_COUNT:
        raise InvalidInputError(f"{what} must be an integer from 1 to {MAX_COUNT}, not {value!r:.50}")
    return value


def check_moment(what: str, value: object) -> float | None:
    """Returns ``value`` if it can be a moment, or None.

    Raises:
        InvalidInputError: If it is not a finite number of seconds.
    """
    if value is None:
        return None
    try:
        if not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise InvalidInputError(f"{what} must be a number of seconds since 1970, not {value!r:.50}")


def json_size(*texts: str | None) -> int:
    """Returns the bytes of texts in UTF-8; their characters only, if four bytes for each are within the limit."""
    # Nearly every text is far below the limit, and then need not be encoded.
    characters = sum(map(len, filter(None, texts)))
    if characters * 4 <= MAX_EVENT_BYTES:
        return characters
    return sum(len(text.encode()) for text in texts if text is not None)
