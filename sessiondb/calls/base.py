"""What every call of a service works with."""

from __future__ import annotations

from typing import Protocol

from google.adk.sessions import Session

from sessiondb.engine.engine import Engine
from sessiondb.engine.reading import LogReader
from sessiondb.options import ServiceOptions


class Calls(Protocol):
    """The part of a service that its calls use."""

    _options: ServiceOptions
    _logs: LogReader

    async def get_session(self, app_name: str, user_id: str, session_id: str) -> Session | None:
        """See the service."""

    @property
    def _engine(self) -> Engine:
        """The open store.

        Raises:
            ServiceClosedError: If the service is closed.
        """


def stripped(session_id: str) -> str:
    """Takes the white space around a session's id away, as ADK's services do."""
    return session_id.strip() if isinstance(session_id, str) else session_id
