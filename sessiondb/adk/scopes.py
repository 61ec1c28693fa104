"""The scopes of state keys: the prefixes ``app:``, ``user:`` and ``temp:``; no prefix means session scope."""

from __future__ import annotations

import enum

from google.adk.sessions import State

APP_PREFIX = State.APP_PREFIX
USER_PREFIX = State.USER_PREFIX
TEMP_PREFIX = State.TEMP_PREFIX


class Scope(enum.StrEnum):
    """The scope of a state key; the values are those of ``adk_state.scope``."""

    SESSION = "SESSION"
    USER = "USER"
    APP = "APP"
    TEMP = "TEMP"
    """Only in the Session object, never stored."""


def parse(key: str) -> tuple[Scope, str]:
    """Splits a key into its scope and its name there; a temp key keeps its prefix.

    Only the first prefix counts: ``app:user:x`` is the app's key ``user:x``.
    """
    if key.startswith(APP_PREFIX):
        return Scope.APP, key[len(APP_PREFIX) :]
    if key.startswith(USER_PREFIX):
        return Scope.USER, key[len(USER_PREFIX) :]
    if key.startswith(TEMP_PREFIX):
        return Scope.TEMP, key
    return Scope.SESSION, key
