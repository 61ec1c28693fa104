"""What the cache of logs keeps of the events that were read, and how later readers get events of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from google.adk.events import Event
from typing_extensions import override

from sessiondb.adk.events import decode_event, decode_events
from sessiondb.adk.packed import pack, unpack, value_of
from sessiondb.adk.sessions import model_access
from sessiondb.model.records import EventRow, SessionKey
from sessiondb.options import CacheMode


class SharedEvents:
    """Every reader gets the same objects.

    Attributes:
        bytes_per_event: How much memory an event takes that is kept, beside its text.
        is_deferred: Whether kept events are given when somebody looks at them, since it takes a while.
    """

    # Measured (docs/performance): a decoded text event.
    bytes_per_event = 5_000
    is_deferred = False

    def decode(self, rows: Sequence[EventRow], key: SessionKey) -> Iterator[Event]:
        """Makes events of rows, one after the other, as :func:`decode_events`."""
        return decode_events(rows, key)

    def keep(self, events: list[Event], rows: list[EventRow], *, known: bool) -> list[Any]:
        """Returns what is kept of events, which readers got meanwhile. ``known``: of a log that was read before."""
        # The list itself is a reader's, who appends to it.
        return list(events)

    def give(self, kept: list[Any], which: slice | list[int], key: SessionKey) -> tuple[list[Event], bool]:
        """Returns events of the kept ones, in a new list, and whether some of these are kept in another form now."""
        return kept[which] if isinstance(which, slice) else [kept[index] for index in which], False

    def time_of(self, kept: Any) -> float:
        """Returns the timestamp of an event that is kept, in seconds since the epoch."""
        timestamp: float = kept.timestamp
        return timestamp


class ShallowCopies(SharedEvents):
    """Every reader gets events with fields of their own; the values in them are the same objects for all."""

    @override
    def keep(self, events: list[Event], rows: list[EventRow], *, known: bool) -> list[Any]:
        return model_access.copy_events(events)

    @override
    def give(self, kept: list[Any], which: slice | list[int], key: SessionKey) -> tuple[list[Event], bool]:
        events, renewed = super().give(kept, which, key)
        return model_access.copy_events(events), renewed


class IsolatedEvents(SharedEvents):
    """Every reader gets events that share nothing with those of others.

    A log that was read once is kept as its rows: most are not read again. An event of a log that is, is packed.
    """

    # Measured (docs/performance): a packed text event. A row takes less.
    bytes_per_event = 900
    is_deferred = True

    @override
    def keep(self, events: list[Event], rows: list[EventRow], *, known: bool) -> list[Any]:
        return [pack(event) or row for event, row in zip(events, rows, strict=True)] if known else rows

    @override
    def give(self, kept: list[Any], which: slice | list[int], key: SessionKey) -> tuple[list[Event], bool]:
        events = []
        renewed = False
        for index in range(len(kept))[which] if isinstance(which, slice) else which:
            one = kept[index]
            if type(one) is tuple:
                events.append(unpack(one))
            else:
                event = decode_event(one, key)
                events.append(event)
                packed = pack(event)
                if packed is not None:
                    # Other readers may do the same at the same time: both tuples are right.
                    kept[index] = packed
                    renewed = True
        return events, renewed

    @override
    def time_of(self, kept: Any) -> float:
        time: float = value_of(kept, "timestamp") if type(kept) is tuple else kept.time
        return time


def form_of(mode: CacheMode) -> SharedEvents:
    """Returns how events are kept with an option of the service; ``"off"`` keeps none."""
    if mode == "copy":
        return IsolatedEvents()
    return ShallowCopies() if mode == "shallow" else SharedEvents()
