"""Calls of a service: a span for each, and its duration."""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic, perf_counter
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode

from sessiondb.telemetry.figures import Cache, cache_made
from sessiondb.telemetry.providers import METER, PROVIDERS, TRACER

OwnerT = TypeVar("OwnerT")
Args = ParamSpec("Args")
ResultT = TypeVar("ResultT")

SYSTEM = "sqlite"

_DURATION = METER.create_histogram(
    "db.client.operation.duration",
    unit="s",
    description="Duration of the calls of a session service.",
    explicit_bucket_boundaries_advisory=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 10, 30),
)

_files: weakref.WeakKeyDictionary[object, Path] = weakref.WeakKeyDictionary()


def service_opened(service: object, path: Path, cache: Cache | None) -> None:
    """Has the spans of a service name its file, and counts what its cache does."""
    _files[service] = path
    if cache is not None:
        cache_made(cache)


def operation(method: Callable[Concatenate[OwnerT, Args], ResultT]) -> Callable[Concatenate[OwnerT, Args], ResultT]:
    """Makes a method an operation, named as the method is. A coroutine function stays one.

    A session is taken from the argument ``session`` or ``session_id``, or else from the result.
    """
    made = _awaited(method) if inspect.iscoroutinefunction(method) else _called(method)
    return cast("Callable[Concatenate[OwnerT, Args], ResultT]", made)


def _awaited(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    start = _starter(method)

    @functools.wraps(method)
    async def call(*args: Any, **kwargs: Any) -> Any:
        if monotonic() >= PROVIDERS.look_at:
            PROVIDERS.look()
        if not (PROVIDERS.tracing or PROVIDERS.metering):
            return await method(*args, **kwargs)
        with start(args, kwargs) as running:
            running.result = await method(*args, **kwargs)
        return running.result

    return call


def _called(method: Callable[..., Any]) -> Callable[..., Any]:
    start = _starter(method)

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        if monotonic() >= PROVIDERS.look_at:
            PROVIDERS.look()
        if not (PROVIDERS.tracing or PROVIDERS.metering):
            return method(*args, **kwargs)
        with start(args, kwargs) as running:
            running.result = method(*args, **kwargs)
        return running.result

    return call


def _starter(method: Callable[..., Any]) -> Callable[[tuple[Any, ...], dict[str, Any]], _Running]:
    name = method.__name__
    parameters = list(inspect.signature(method).parameters)
    place = next((index for index, name in enumerate(parameters) if name in ("session", "session_id")), None)

    def start(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Running:
        if not PROVIDERS.tracing:
            return _Running(name, INVALID_SPAN)
        attributes = {"db.system.name": SYSTEM, "db.operation.name": name}
        file = _files.get(args[0])
        if file is not None:
            attributes["db.namespace"] = str(file)
        span = TRACER.start_span(
            name if file is None else f"{name} {file.name}", kind=SpanKind.CLIENT, attributes=attributes
        )
        if place is not None and span.is_recording():
            _name_session(span, args[place] if place < len(args) else kwargs.get(parameters[place]))
        return _Running(name, span)

    return start


def _name_session(span: Span, session: object) -> None:
    """Names a session as ADK's own spans do."""
    session_id = getattr(session, "id", session)
    if isinstance(session_id, str) and session_id.strip():
        span.set_attribute("gen_ai.conversation.id", session_id.strip())


class _Running:
    """An operation under way. It is nobody's parent, so it is not made the current span."""

    __slots__ = ("_name", "_span", "_started", "result")

    def __init__(self, name: str, span: Span) -> None:
        self._name = name
        self._span = span
        self._started = perf_counter()
        self.result: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is None:
            self._succeed()
        else:
            self._fail(exc)

    def _succeed(self) -> None:
        if self._name == "create_session" and self._span.is_recording():
            # Its id may have been generated.
            _name_session(self._span, self.result)
        self._end({"db.system.name": SYSTEM, "db.operation.name": self._name})

    def _fail(self, error: BaseException) -> None:
        kind = _kind_of(error)
        # The type alone: messages name sessions and paths, and those of others may quote what was to be stored.
        self._span.set_attribute("error.type", kind)
        self._span.set_status(StatusCode.ERROR, kind)
        self._end({"db.system.name": SYSTEM, "db.operation.name": self._name, "error.type": kind})

    def _end(self, attributes: dict[str, str]) -> None:
        self._span.end()
        _DURATION.record(perf_counter() - self._started, attributes)


def _kind_of(error: BaseException) -> str:
    """Names what an operation ended with; a cancellation is called the same under every event loop."""
    if isinstance(error, Exception | KeyboardInterrupt | SystemExit):
        return type(error).__qualname__
    return "cancelled"
