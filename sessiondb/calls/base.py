"""What every call of a service works with."""

from __future__ import annotations

from typing import Protocol

from google.adk.events import Event
from google.adk.sessions import Session

from sessiondb.adk.events import EncodedEvent
from sessiondb.adk.state import EncodedDelta
from sessiondb.engine.engine import Engine
from sessiondb.engine.reading import LogReader, ReadPlan
from sessiondb.model.records import EventRecord, SessionSnapshot, StateDelta
from sessiondb.options import ServiceOptions


class Calls(Protocol):
    """The part of a service that its calls use."""

    _options: ServiceOptions
    _logs: LogReader

    @property
    def _keeps_none(self) -> bool:
        return self._options.none_in_delta == "store"

    def _encode(self, event: Event, delta: EncodedDelta) -> tuple[EncodedEvent, EventRecord, StateDelta]:
        """Encodes an event as its Session has it; and what of it is stored, with the changes of state that this makes."""

    async def get_session(self, app_name: str, user_id: str, session_id: str) -> Session | None:
        """See the service."""

    def _session_of(self, plan: ReadPlan, snapshot: SessionSnapshot | None, *, later: bool = False) -> Session | None:
        """Makes a Session of the answer to a plan; ``later`` as in :meth:`.LogReader.events`."""

    @property
    def _engine(self) -> Engine:
        """The open store.

        Raises:
            ServiceClosedError: If the service is closed.
        """


def stripped(session_id: str) -> str:
    """Takes the white space around a session's id away, as ADK's services do."""
    return session_id.strip() if isinstance(session_id, str) else session_id
