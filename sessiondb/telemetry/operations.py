"""What the rest of sessiondb tells telemetry: calls of a service, commits, files opened and closed.

Nothing here imports OpenTelemetry before somebody else has: until then there is no provider, and nobody to tell.
"""

from __future__ import annotations

import functools
import inspect
import sys
import weakref
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sessiondb.telemetry.figures import PROCESS, Cache, OpenStore

if TYPE_CHECKING:
    from sessiondb.telemetry.spans import Place, Running

MethodT = TypeVar("MethodT", bound=Callable[..., Any])

_places: weakref.WeakKeyDictionary[object, Place] = weakref.WeakKeyDictionary()


_API = ("opentelemetry.metrics", "opentelemetry.trace")

_LOOK_SECONDS = 0.01
"""How often it is looked for providers: a look takes microseconds, as much as a small part of an append."""


class Providers:
    """What is known of the host's providers.

    Attributes:
        tracing: Whether spans go anywhere.
        metering: Whether measurements go anywhere.
        look_at: When to look again, by the monotonic clock. Read before each use: ``if monotonic() >= look_at: look()``
    """

    __slots__ = ("look_at", "metering", "tracing")

    def __init__(self) -> None:
        self.tracing = self.metering = False
        self.look_at = 0.0

    def look(self) -> None:
        """Looks for the providers. Called by those who use a service, never by its threads: it may import modules."""
        self.look_at = monotonic() + _LOOK_SECONDS
        # A provider is set through the API. Until somebody has imported that, there is none; and importing it would make
        # a third of what importing sessiondb takes.
        if not any(module in sys.modules for module in _API):
            return
        from opentelemetry import metrics, trace  # noqa: PLC0415  # as said above

        # Observed figures are asked for through instruments: they must be there before the first measurement.
        import sessiondb.telemetry.instruments  # noqa: F401, PLC0415  # as said above

        self.tracing = _is_real(trace.get_tracer_provider())
        self.metering = _is_real(metrics.get_meter_provider())


def _is_real(provider: object) -> bool:
    # The API's own providers, the proxies among them, do nothing.
    return not type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))


PROVIDERS = Providers()


def service_opened(service: object, place: Place, cache: Cache | None) -> None:
    """Lets the spans of a service name its store, and counts what its cache does."""
    _places[service] = place
    if cache is not None:
        PROCESS.add_cache(cache)


def store_opened(store: OpenStore) -> None:
    """Counts an open store."""
    PROVIDERS.look()
    PROCESS.add_store(store)


def store_closed(store: OpenStore) -> None:
    """Counts it no longer; what it did stays counted."""
    PROCESS.remove_store(store)


def record_batch(commands: int, seconds: float) -> None:
    """Records a batch that was committed. Called by the writer, once for each."""
    # Whose batch it is has looked for providers.
    if PROVIDERS.metering:
        from sessiondb.telemetry.instruments import BATCH_SIZE, COMMIT_DURATION  # noqa: PLC0415  # imported by the look

        BATCH_SIZE.record(commands)
        COMMIT_DURATION.record(seconds)


def record_prune(sessions: int, events: int) -> None:
    """Records what a prune has deleted. Called on its thread."""
    if PROVIDERS.metering:
        from sessiondb.telemetry.instruments import PRUNED_EVENTS, PRUNED_SESSIONS  # noqa: PLC0415  # imported by the look

        PRUNED_SESSIONS.add(sessions)
        PRUNED_EVENTS.add(events)


def operation(method: MethodT) -> MethodT:
    """Makes a method an operation, named as the method is. A coroutine function stays one.

    A session is taken from the argument ``session`` or ``session_id``, or else from the result.
    """
    return cast("MethodT", _awaited(method) if inspect.iscoroutinefunction(method) else _called(method))


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


def _starter(method: Callable[..., Any]) -> Callable[[tuple[Any, ...], dict[str, Any]], Running]:
    name = method.__name__
    parameters = list(inspect.signature(method).parameters)
    place = next((index for index, name in enumerate(parameters) if name in ("session", "session_id")), None)

    def start(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Running:
        from sessiondb.telemetry.spans import Running  # noqa: PLC0415  # there is a provider

        session = None
        if place is not None:
            session = args[place] if place < len(args) else kwargs.get(parameters[place])
        return Running(name, _places[args[0]], session)

    return start
