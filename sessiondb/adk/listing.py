"""The result of ``list_sessions``, of two types at once: ADK's response and a sequence of dicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from google.adk.sessions.base_session_service import ListSessionsResponse
from pydantic import PrivateAttr

from sessiondb.adk.sessions import build_session
from sessiondb.model.records import SessionSummary

SessionRow = dict[str, str]


# The validator is built when a list is first validated or dumped: few programs do that, and each would pay at import.
class SessionList(ListSessionsResponse, Sequence[SessionRow], defer_build=True):
    """Sessions in the order of their last update, the oldest update first.

    It is ADK's ``ListSessionsResponse``: ``sessions`` holds Session objects with merged state and without events. It
    is also a sequence of dicts, one a session, with ``app_name``, ``user_id``, ``session_id``, ``created_at`` and
    ``updated_at``; the last two are UTC ISO 8601 texts of fixed width.
    """

    _rows: list[SessionRow] = PrivateAttr(default_factory=list)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> SessionRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[SessionRow]: ...
    def __getitem__(self, index: int | slice) -> SessionRow | list[SessionRow]:
        return self._rows[index]

    def __iter__(self) -> Iterator[SessionRow]:  # type: ignore[override]  # a model iterates over its fields
        return iter(self._rows)


def list_of(summaries: Iterable[SessionSummary]) -> SessionList:
    """Makes a list of sessions of a store's answer.

    Raises:
        CorruptRowError: If a value of some state is not JSON.
    """
    sessions = []
    rows = []
    for key, created_at, updated_at, head in summaries:
        sessions.append(build_session(key, head, [], head.update_time))
        # Spelled out: key._asdict() would be a quarter of the time that a listing takes.
        rows.append(
            {
                "app_name": key.app_name,
                "user_id": key.user_id,
                "session_id": key.session_id,
                "created_at": created_at,
                "updated_at": updated_at,
            }
        )
    # The sessions come from the store: to validate thousands of them again would cost more than to read them.
    listing = SessionList.model_construct(sessions=sessions)
    listing._rows = rows  # noqa: SLF001  # of this module
    return listing
