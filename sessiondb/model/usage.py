"""What conversations have used: the groups in which it is counted, and what is counted where in a stored event."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias, get_args

UsageBy: TypeAlias = Literal["session", "user", "app", "author", "model", "day", "invocation"]
"""What usage is counted for."""

USAGE_BY: tuple[UsageBy, ...] = get_args(UsageBy)

GROUPS: dict[UsageBy, tuple[str, ...]] = {
    "session": ("app_name", "user_id", "session_id"),
    "user": ("app_name", "user_id"),
    "app": ("app_name",),
    "author": ("app_name", "author"),
    "model": ("model",),
    "day": ("day",),
    "invocation": ("app_name", "user_id", "session_id", "invocation_id"),
}
"""Which fields of :class:`UsageRow` name what a row is of."""

TOKEN_COUNTS = {
    "prompt_tokens": "prompt_token_count",
    "candidates_tokens": "candidates_token_count",
    "cached_tokens": "cached_content_token_count",
    "thoughts_tokens": "thoughts_token_count",
    "total_tokens": "total_token_count",
}
"""Fields of :class:`UsageRow`, and the members of an event's ``usage_metadata`` that they sum up."""

MAX_TOKEN_COUNT = 2**31 - 1
"""The largest count that models report, which is an int32. What is no whole number from 0 to this counts as nothing, so that
no sum leaves 64 bits."""


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one session, user, app, author, model, day or invocation has used.

    Of the fields that say whose it is, those are set that it was counted by; the others are None. ``model`` is None for
    events that name no model, which is what users and tools say.

    Attributes:
        app_name: Set by session, user, app, author and invocation.
        user_id: Set by session, user and invocation.
        session_id: Set by session and invocation.
        author: Set by author.
        model: Set by model: what the model calls itself (``model_version``).
        day: Set by day: of UTC, as ``2026-01-31``, by the events' timestamps.
        invocation_id: Set by invocation.
        turns: Invocations that events belong to, each counted once in its session; changes of state from outside are none.
        events: Events.
        tool_calls: How often each tool was called, by its name.
        prompt_tokens: Tokens that went into models.
        candidates_tokens: Tokens that came out.
        cached_tokens: Of those that went in, the ones from a cache.
        thoughts_tokens: Tokens of thoughts.
        total_tokens: All tokens, as models have summed them up.
        errors: Events with an ``error_code``.
        interruptions: Events that are marked as ``interrupted``.
    """

    app_name: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    author: str | None = None
    model: str | None = None
    day: str | None = None
    invocation_id: str | None = None
    turns: int = 0
    events: int = 0
    tool_calls: dict[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    candidates_tokens: int = 0
    cached_tokens: int = 0
    thoughts_tokens: int = 0
    total_tokens: int = 0
    errors: int = 0
    interruptions: int = 0


COUNTED = tuple(one.name for one in fields(UsageRow) if one.default == 0)
"""The numbers of a :class:`UsageRow`, in the order in which a store gives them."""


def usage_rows(by: UsageBy, found: Iterable[tuple[Any, ...]]) -> list[UsageRow]:
    """Makes rows of what a store has counted.

    Args:
        by: What it was counted by.
        found: Tuples, in their order: the fields that :data:`GROUPS` names, the name of a tool, and :data:`COUNTED`. Those
            of a group follow each other. The first has no tool; of the others, the first number says how often it was
            called.
    """
    names = GROUPS[by]
    width = len(names)
    rows: list[UsageRow] = []
    for group_and_counts in found:
        tool = group_and_counts[width]
        counts = group_and_counts[width + 1 :]
        if tool is None:
            values: dict[str, Any] = dict(zip(names, group_and_counts, strict=False))
            values |= zip(COUNTED, map(int, counts), strict=True)
            rows.append(UsageRow(**values))
        else:
            rows[-1].tool_calls[tool] = int(counts[0])
    if by == "model":
        # Each store has its own order of texts that come out of JSON.
        rows.sort(key=lambda row: (row.model is not None, row.model or ""))
    return rows
