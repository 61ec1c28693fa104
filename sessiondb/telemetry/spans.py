"""Spans and durations of calls. Importing this module imports OpenTelemetry's API."""

from __future__ import annotations

from time import perf_counter
from typing import Any, Protocol, Self

from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode

from sessiondb.telemetry.instruments import OPERATION_DURATION, TRACER
from sessiondb.telemetry.operations import PROVIDERS


class Place(Protocol):
    """What calls work on."""

    system: str
    """What kind of database it is, as OpenTelemetry names it."""
    name: str
    """Where it is."""
    label: str
    """The same in short."""


class Running:
    """An operation under way. It is nobody's parent, so it is not made the current span."""

    __slots__ = ("_name", "_span", "_started", "_system", "result")

    def __init__(self, name: str, place: Place, session: object) -> None:
        """Starts now.

        Args:
            name: The operation's.
            place: What it works on.
            session: The Session or id that it is about; None if that is not known yet.
        """
        self._name = name
        self._system = place.system
        self._span = _start_span(name, place, session) if PROVIDERS.tracing else INVALID_SPAN
        self._started = perf_counter()
        self.result: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, exc: BaseException | None, _traceback: object) -> None:
        attributes = {"db.system.name": self._system, "db.operation.name": self._name}
        if exc is not None:
            # The type alone: messages name sessions and paths, and those of others may quote what was to be stored.
            kind = attributes["error.type"] = _kind_of(exc)
            self._span.set_attribute("error.type", kind)
            self._span.set_status(StatusCode.ERROR, kind)
        elif self._name == "create_session" and self._span.is_recording():
            # Its id may have been generated.
            _name_session(self._span, self.result)
        self._span.end()
        OPERATION_DURATION.record(perf_counter() - self._started, attributes)


def _start_span(name: str, place: Place, session: object) -> Span:
    attributes = {"db.system.name": place.system, "db.operation.name": name, "db.namespace": place.name}
    span = TRACER.start_span(f"{name} {place.label}", kind=SpanKind.CLIENT, attributes=attributes)
    if span.is_recording():
        _name_session(span, session)
    return span


def _name_session(span: Span, session: object) -> None:
    """Names a session as ADK's own spans do."""
    session_id = getattr(session, "id", session)
    if isinstance(session_id, str) and session_id.strip():
        span.set_attribute("gen_ai.conversation.id", session_id.strip())


def _kind_of(error: BaseException) -> str:
    """Names what an operation ended with; a cancellation is called the same under every event loop."""
    if isinstance(error, Exception | KeyboardInterrupt | SystemExit):
        return type(error).__qualname__
    return "cancelled"
