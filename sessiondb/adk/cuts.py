"""Where a log can be cut off: nowhere between a function call and its response."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sessiondb.adk.events import decode_event
from sessiondb.errors import UnsafeCutError
from sessiondb.model.records import EventRow, SessionKey, named


class _Bond(NamedTuple):
    """What a cut must not part. Events are named by their places in the log, from 0."""

    first: int
    """A cut after this event would part it,"""
    last: int
    """and each further one that is before this event."""
    event: int
    """The event that would lose something."""
    loss: str


def check_cut(key: SessionKey, outline: Sequence[EventRow], seq: int) -> None:
    """Makes sure that a log can be cut off after an event.

    As in the requests that ADK makes of a log, a response belongs to the last call of its id that comes before it. The first
    response will do: a long-running tool may give several. A call that has none in all of the log may stay.

    Args:
        key: Of which session the log is.
        outline: What the log holds, as :class:`~sessiondb.model.queries.GetOutline` reads it.
        seq: The number of the last event that stays; one before that of the first if none does.

    Raises:
        UnsafeCutError: If not.
        CorruptRowError: If an event that matters cannot be read.
    """
    bonds = [*_bonds_of_calls(key, outline), *_bonds_of_summaries(key, outline)]
    place = max((n for n, row in enumerate(outline) if row.seq <= seq), default=-1)
    parted = next((bond for bond in bonds if bond.first <= place < bond.last), None)
    if parted is None:
        return
    unsafe = {n for bond in bonds for n in range(bond.first, bond.last)}
    earlier = next(n for n in range(place, -2, -1) if n not in unsafe)
    later = next(n for n in range(place, len(outline)) if n not in unsafe)
    ids = [row.event_id for row in outline]
    instead = f"after event {ids[earlier]!r}" if earlier >= 0 else "all events"
    raise UnsafeCutError(
        f"to cut {named(key)} off after event {ids[place]!r} would cut off {parted.loss}: cut off {instead}, or after event"
        f" {ids[later]!r}; or force it (force=True, --force)",
        ids[parted.event],
        ids[earlier] if earlier >= 0 else None,
        ids[later],
    )


def _bonds_of_calls(key: SessionKey, outline: Sequence[EventRow]) -> Iterator[_Bond]:
    # By id; by name if there is none.
    open_calls: dict[tuple[str | None, str | None], int] = {}
    for n, row in enumerate(outline):
        if row.content is None:
            continue
        event = decode_event(row, key)
        for response in event.get_function_responses():
            called = open_calls.pop((response.id, None if response.id else response.name), None)
            if called is not None:
                loss = (
                    f"the response of event {row.event_id!r} to a function call of event {outline[called].event_id!r}"
                )
                yield _Bond(called, n, called, loss)
        for call in event.get_function_calls():
            open_calls[call.id, None if call.id else call.name] = n


def _bonds_of_summaries(key: SessionKey, outline: Sequence[EventRow]) -> Iterator[_Bond]:
    """Yields a bond if the log has lost its first events, of which a summary tells."""
    if not outline or outline[0].seq == 1:
        return
    for n, row in enumerate(outline):
        compaction = decode_event(row, key).actions.compaction if row.actions != "{}" else None
        if compaction is not None and compaction.start_timestamp < outline[0].time:
            yield _Bond(0, n, n, f"the summary of event {row.event_id!r}, which stands for events that are gone")
            return
