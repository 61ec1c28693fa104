"""How long sessions and events are kept."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sessiondb.errors import ConfigurationError

_MAX_SECONDS = 1_000_000_000
"""About 32 years."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept of sessions and their events; whatever is more is pruned. At least one of the first four is given.

    Durations are given as a ``timedelta`` or in seconds, and are seconds from then on.

    Attributes:
        idle: Sessions go whose last update is longer ago.
        age: Sessions go that were created longer ago, in use or not.
        max_events: Of each session the last events stay, so many at least: where a log may be cut, see
            :meth:`~sessiondb.DatabaseSessionService.prune`. State stays.
        max_sessions_per_user: Of each user of an app the sessions stay that were updated last, so many at most.
        archive: A folder, created where it is missing, in one that is there: what is to go is written there first, as files
            of JSON Lines that ``sessiondb import`` reads.
        every: How long a service waits between two prunes.
    """

    idle: timedelta | float | None = None
    age: timedelta | float | None = None
    max_events: int | None = None
    max_sessions_per_user: int | None = None
    archive: str | os.PathLike[str] | None = None
    every: timedelta | float = 3600.0

    def __post_init__(self) -> None:
        for name in ("idle", "age", "every"):
            value = getattr(self, name)
            if value is not None or name == "every":
                object.__setattr__(self, name, _checked_seconds(name, value))
        for name in ("max_events", "max_sessions_per_user"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31):
                raise ConfigurationError(f"{name} must be a whole number from 1 to {2**31 - 1:,}, not {value!r:.50}")
        if self.idle is self.age is self.max_events is self.max_sessions_per_user is None:
            raise ConfigurationError(
                "a Retention must say what is kept: idle, age, max_events or max_sessions_per_user"
            )
        if self.archive is not None and (
            not isinstance(self.archive, str | os.PathLike) or not os.fspath(self.archive)
        ):
            raise ConfigurationError(f"archive must be the path of a folder, not {self.archive!r:.50}")


def seconds_of(duration: timedelta | float) -> float:
    """Returns a duration, however it was given, in seconds."""
    return duration.total_seconds() if isinstance(duration, timedelta) else duration


def _checked_seconds(name: str, value: Any) -> float:
    seconds = seconds_of(value)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
        raise ConfigurationError(f"{name} must be a timedelta or a number of seconds, not {value!r:.50}")
    if not 0 < seconds <= _MAX_SECONDS:
        raise ConfigurationError(f"{name} must be above 0 and at most {_MAX_SECONDS:,} seconds, not {seconds!r:.50}")
    return float(seconds)
