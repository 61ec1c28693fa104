"""What conversations have used."""

from __future__ import annotations

from sessiondb import telemetry
from sessiondb.adk.limits import check_text
from sessiondb.calls.base import Calls, stripped
from sessiondb.errors import InvalidInputError
from sessiondb.model.queries import GetUsage
from sessiondb.model.records import Selection
from sessiondb.model.usage import USAGE_BY, UsageBy, UsageRow

_FAR_OFF = 1e15
"""In seconds: no event is so far from the epoch."""


class Usage(Calls):
    """Calls for those who pay."""

    @telemetry.operation
    async def usage(
        self,
        *,
        app_name: str | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        since: float | None = None,
        until: float | None = None,
        by: UsageBy = "session",
    ) -> list[UsageRow]:
        """Sums up turns, events, tool calls, tokens, errors and interruptions, as the events in the logs tell.

        It is one query on a reader, beside the writer, and takes time in proportion to the events of the app, user or
        session that is named. What was deleted is not counted. What a fork has taken over counts where it was said, not in the
        fork.

        Args:
            app_name: Only this app's; None: all apps.
            user_id: Only this user's; None: all users.
            session_id: Only sessions of this id, stripped of white space around it; None: all sessions.
            since: Only events at or after this moment, in seconds since the epoch.
            until: Only events before this moment, in seconds since the epoch.
            by: What a row is of: ``"session"``, ``"user"``, ``"app"``, ``"author"``, ``"model"``, ``"day"`` (of UTC) or
                ``"invocation"``.

        Returns:
            A row for each session, user and so on that has events, in the order of their names.

        Raises:
            InvalidInputError: If an id cannot be one, a moment is no number, or ``by`` is none of these.
        """
        if by not in USAGE_BY:
            raise InvalidInputError(f"usage is counted by one of {', '.join(map(repr, USAGE_BY))}, not {by!r}")
        selection = Selection(
            None if app_name is None else check_text("app_name", app_name),
            None if user_id is None else check_text("user_id", user_id),
            None if session_id is None else check_text("session_id", stripped(session_id)),
        )
        query = GetUsage(selection, _checked_moment("since", since), _checked_moment("until", until), by)
        return await self._engine.read(query, list)


def _checked_moment(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _FAR_OFF:
        raise InvalidInputError(f"{name} must be a number of seconds since the epoch, not {value!r}")
    return float(value)
