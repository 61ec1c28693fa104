"""What the rest of sessiondb tells telemetry: calls of a service, commits, files opened and closed.

Nothing here imports OpenTelemetry; what does is imported once there is a provider, or somebody who may set one.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from sessiondb.telemetry.figures import PROCESS, Cache, OpenStore
from sessiondb.telemetry.providers import PROVIDERS

if TYPE_CHECKING:
    from sessiondb.telemetry.spans import Place, Running

OwnerT = TypeVar("OwnerT")
Args = ParamSpec("Args")
ResultT = TypeVar("ResultT")

_places: weakref.WeakKeyDictionary[object, Place] = weakref.WeakKeyDictionary()


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
